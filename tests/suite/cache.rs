//! The artifact cache over real sockets and a real disk: one fetch for many machines, right bytes whatever happens.

mod builds;
mod crashes;
mod disks;
mod histories;
mod limits;

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::Method;
use tempfile::TempDir;

use crate::support::bridge::{Answer, Bridge, command, eventually};
use crate::support::site::{Site, id};
use crate::upstream_service::{Content, Fault, Options, Target};

pub const KERNEL: &str = "/boot-artifacts/kernel/a/lab";
pub const ROOTFS: &str = "/boot-artifacts/rootfs/a/lab";
pub const INITRD: &str = "/boot-artifacts/initrd/a/lab";

/// A site with one environment `a/lab` and a folder for a cache.
pub struct Cached {
    pub site: Site,
    pub folder: TempDir,
}

impl Cached {
    /// With a rootfs of so many bytes.
    pub async fn start(rootfs: u64) -> Self {
        let site = Site::with(Options {
            kernel: Content::random(300_000, 1),
            initrd: Content::random(400_000, 2),
            rootfs: Content::random(rootfs, 3),
            ..Options::default()
        })
        .await;
        site.environment("a", "lab", "{}", false);
        let folder = tempfile::Builder::new().prefix("cache-").tempdir().unwrap();
        Self { site, folder }
    }

    pub fn path(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// A server with the cache; a build counts as current for a second.
    pub async fn bridge(&self, arguments: &[&str]) -> Bridge {
        self.bridge_on(self.path(), arguments).await
    }

    /// The same with another folder.
    pub async fn bridge_on(&self, folder: &str, arguments: &[&str]) -> Bridge {
        let mut all = vec!["--cache-dir", folder];
        if !arguments.contains(&"--loop-timing") {
            all.extend(["--loop-timing", "1"]);
        }
        all.extend(arguments);
        self.site.bridge(&all).await
    }

    pub fn expected(&self, target: Target) -> Vec<u8> {
        let content = self.site.upstream.content(&id("a", "lab"), target).unwrap();
        content.read(0..content.length().unwrap()).unwrap().to_vec()
    }

    /// How many bodies of a kind were fetched from upstream, and how many bytes of them.
    pub fn fetched(&self, target: Target) -> (usize, u64) {
        let requests = self.site.upstream.requests();
        let bodies = requests
            .iter()
            .filter(|request| request.target == Some(target) && request.method == Method::GET);
        bodies.fold((0, 0), |(count, bytes), request| (count + 1, bytes + request.sent))
    }

    pub fn slow(&self, target: Target, bytes_per_second: u64) {
        self.site
            .upstream
            .set_fault(target, Some(Fault::Slow { bytes_per_second }), None);
    }

    pub fn well(&self, target: Target) {
        self.site.upstream.set_fault(target, None, None);
    }
}

/// The whole body, or how many bytes came before the connection was cut.
pub async fn fetch(bridge: &Bridge, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Vec<u8>> {
    let response = bridge.send(Method::GET, path, headers).await;
    let (status, headers) = (response.status(), response.headers().clone());
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => body.extend_from_slice(&piece),
            Err(_) => return Err(body),
        }
    }
    Ok(Answer { status, headers, body })
}

/// Files of the cache with this extension.
pub fn files(folder: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder.join("artifacts")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths
}

/// Waits until nothing is being filled.
pub async fn filled(bridge: &Bridge, artifacts: usize) {
    eventually("the cache is filled", Duration::from_secs(30), async || {
        let cache = bridge.get("/cache").await.json();
        let held = cache["artifacts"].as_array().unwrap();
        held.len() == artifacts && held.iter().all(|held| held["state"] == "Complete")
    })
    .await;
}

/// A number that looks random and is the same in every run.
pub fn number(seed: &mut u64, below: u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % below
}

#[tokio::test]
async fn a_storm_of_ranges_on_a_cold_cache_is_right_to_the_byte_and_fetches_once() {
    let cached = Cached::start(24_000_000).await;
    cached.slow(Target::Rootfs, 12_000_000);
    let bridge = cached.bridge(&[]).await;
    let whole = cached.expected(Target::Rootfs);
    let mut seed = 7;
    let wanted: Vec<Option<(usize, usize)>> = (0..48)
        .map(|index| {
            let first = number(&mut seed, 24_000_000) as usize;
            let last = (first + number(&mut seed, 3_000_000) as usize).min(whole.len() - 1);
            (index % 3 != 0).then_some((first, last))
        })
        .collect();
    let answers = wanted.iter().map(|range| async {
        let header = range.map(|(first, last)| format!("bytes={first}-{last}"));
        let headers: Vec<(&str, &str)> = header.iter().map(|header| ("range", header.as_str())).collect();
        let answer = fetch(&bridge, ROOTFS, &headers).await.expect("complete");
        match range {
            None => assert!(answer.status == 200 && answer.body == whole),
            Some((first, last)) => {
                assert_eq!(
                    answer.header("content-range"),
                    format!("bytes {first}-{last}/{}", whole.len())
                );
                assert!(answer.status == 206 && answer.body == whole[*first..=*last]);
            }
        }
    });
    futures::future::join_all(answers).await;
    // Ranges far ahead may come by themselves if this machine is slow; the whole comes once.
    let requests = cached.site.upstream.requests();
    let whole_ones = requests
        .iter()
        .filter(|request| request.range.is_none() && request.target == Some(Target::Rootfs));
    assert_eq!(
        whole_ones.map(|request| request.sent).collect::<Vec<_>>(),
        [whole.len() as u64]
    );
    // The last bytes are sent before they are durable.
    filled(&bridge, 1).await;
    // From the disk now, several on one connection.
    for range in wanted.iter().flatten() {
        let header = format!("bytes={}-{}", range.0, range.1);
        let answer = fetch(&bridge, ROOTFS, &[("range", &header)]).await.expect("complete");
        assert!(answer.body == whole[range.0..=range.1]);
        assert_eq!(answer.header("cache-status"), "ipxe-bridge; hit");
    }
    let fetched = cached.fetched(Target::Rootfs).0;
    assert_eq!(
        fetched,
        requests
            .iter()
            .filter(|request| request.method == Method::GET && request.target.is_some())
            .count()
    );
    let metrics = bridge.metrics().await;
    assert!(
        metrics.contains("ipxe_bridge_cache_fills_total{outcome=\"complete\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("ipxe_bridge_cache_used_bytes 24000000"), "{metrics}");
}

#[tokio::test]
async fn the_first_bytes_come_at_once_and_a_fill_goes_on_without_its_client() {
    let cached = Cached::start(6_000_000).await;
    cached.slow(Target::Rootfs, 3_000_000);
    let bridge = cached.bridge(&[]).await;
    let whole = cached.expected(Target::Rootfs);
    let start = std::time::Instant::now();
    let mut first = bridge.send(Method::GET, ROOTFS, &[]).await.bytes_stream();
    first.next().await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
    drop(first);
    let cache = bridge.get("/cache").await.json();
    let held = &cache["artifacts"][0];
    assert_eq!(
        (held["state"].as_str(), held["kind"].as_str()),
        (Some("Filling"), Some("rootfs"))
    );
    assert!(held["percent"].as_u64().unwrap() < 100 && held["sha256"].is_null(), "{held}");
    assert_eq!(held["environments"], serde_json::json!(["a/lab"]));
    filled(&bridge, 1).await;
    let answer = fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    assert!(answer.body == whole);
    assert_eq!(cached.fetched(Target::Rootfs).0, 1);
    let held = &bridge.get("/cache").await.json()["artifacts"][0];
    let digest = cached
        .site
        .upstream
        .content(&id("a", "lab"), Target::Rootfs)
        .unwrap()
        .sha256()
        .unwrap();
    assert_eq!(held["sha256"], digest);
    assert!(!bridge.get("/cache").await.text().contains("api_key"));
}

#[tokio::test]
async fn a_range_far_ahead_of_a_slow_fill_is_fetched_by_itself() {
    let cached = Cached::start(20_000_000).await;
    cached.slow(Target::Rootfs, 1_000_000);
    let bridge = cached.bridge(&[]).await;
    let whole = cached.expected(Target::Rootfs);
    let _first = bridge.send(Method::GET, ROOTFS, &[]).await;
    let start = std::time::Instant::now();
    let answer = fetch(&bridge, ROOTFS, &[("range", "bytes=19900000-")])
        .await
        .expect("complete");
    assert!(answer.status == 206 && answer.body == whole[19_900_000..]);
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    assert_eq!(answer.header("cache-status"), "ipxe-bridge; fwd=bypass");
    let ranges: Vec<_> = cached
        .site
        .upstream
        .requests()
        .iter()
        .filter_map(|request| request.range.clone())
        .collect();
    assert_eq!(ranges, ["bytes=19900000-"]);
}

#[tokio::test]
async fn conditions_and_head_are_answered_from_the_cache_as_upstream_answers_them() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&[]).await;
    let head = bridge.ask(Method::HEAD, ROOTFS, &[]).await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "3000000"));
    assert_eq!(cached.fetched(Target::Rootfs).0, 0, "headers alone fetch nothing");
    let passed = fetch(&bridge, KERNEL, &[]).await.expect("complete");
    filled(&bridge, 1).await;
    let whole = cached.expected(Target::Kernel);
    assert!(passed.body == whole);
    let (tag, date) = (passed.header("etag").to_owned(), passed.header("last-modified").to_owned());
    let requests = cached.site.upstream.requests().len();
    let old = "Mon, 01 Jan 2024 00:00:00 GMT";
    for (name, value, status) in [
        ("if-none-match", tag.as_str(), 304),
        ("if-none-match", "\"other\"", 200),
        ("if-modified-since", date.as_str(), 304),
        ("if-modified-since", old, 200),
        ("range", "bytes=0-9", 206),
        ("range", "bytes=300000-", 416),
        ("range", "bytes=0-1,5-6", 200),
        ("range", "foo", 200),
    ] {
        let answer = bridge.ask(Method::GET, KERNEL, &[(name, value)]).await;
        assert_eq!(answer.status, status, "{name}: {value}");
        match status {
            200 => assert!(answer.body == whole),
            206 => assert!(answer.body == whole[..10]),
            304 => assert_eq!((answer.header("etag"), answer.body.len()), (tag.as_str(), 0)),
            _ => assert_eq!(answer.header("content-range"), "bytes */300000"),
        }
    }
    for (condition, status) in [(tag.as_str(), 206), (date.as_str(), 206), ("\"other\"", 200), (old, 200)] {
        let headers = [("range", "bytes=5-9"), ("if-range", condition)];
        assert_eq!(bridge.ask(Method::GET, KERNEL, &headers).await.status, status, "{condition}");
    }
    let head = bridge.ask(Method::HEAD, KERNEL, &[]).await;
    assert_eq!((head.header("content-length"), head.header("etag")), ("300000", tag.as_str()));
    // Perhaps a look whether the build is current, but no body.
    assert_eq!(cached.fetched(Target::Kernel).0, 1);
    assert!(cached.site.upstream.requests().len() <= requests + 3);
    let initrd = fetch(&bridge, INITRD, &[]).await.expect("complete");
    assert_eq!(initrd.header("cache-status"), "");
    assert_eq!(
        files(cached.folder.path(), "data").len(),
        1,
        "an initrd never gets to the disk"
    );
}

#[tokio::test]
async fn the_folder_can_be_listed_verified_and_pruned() {
    let cached = Cached::start(3_000_000).await;
    let run = |arguments: &[&str]| {
        let mut all = vec!["cache", "--cache-dir", cached.path()];
        all.extend(arguments);
        let output = command(&all).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text, String::from_utf8(output.stderr).unwrap())
    };
    let (is_well, _, error) = run(&["ls"]);
    assert!(!is_well && error.contains("holds no cache"), "{error}");
    let mut bridge = cached.bridge(&[]).await;
    for path in [KERNEL, ROOTFS] {
        fetch(&bridge, path, &[]).await.expect("complete");
    }
    filled(&bridge, 2).await;
    let (is_well, text, _) = run(&["ls"]);
    assert!(
        is_well && text.lines().count() == 2 && text.contains("rootfs") && text.contains("version=4.16"),
        "{text}"
    );
    let (is_well, text, _) = run(&["verify"]);
    assert!(is_well && text.lines().all(|line| line.starts_with("whole")), "{text}");
    let (is_well, _, error) = run(&["prune", "--unused-for", "0s"]);
    assert!(!is_well && error.contains("another process uses this folder"), "{error}");

    bridge.terminate();
    bridge.ended(Duration::from_secs(10)).await;
    let (_, text, _) = run(&["ls", "--json"]);
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert!(
        line["sha256"].as_str().unwrap().len() == 64 && line["length"].is_u64(),
        "{line}"
    );
    let (is_well, text, _) = run(&["prune"]);
    assert!(is_well && text.is_empty(), "{text}");
    let data = files(cached.folder.path(), "data").remove(0);
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let (is_well, text, error) = run(&["verify"]);
    assert!(
        !is_well && text.contains("DAMAGED") && error.contains("1 damaged"),
        "{text}{error}"
    );
    let (is_well, text, _) = run(&["prune", "--unused-for", "0s"]);
    assert!(is_well && text.lines().count() == 2, "{text}");
    assert!(files(cached.folder.path(), "data").is_empty() && files(cached.folder.path(), "json").is_empty());
}

#[tokio::test]
async fn new_builds_are_there_before_the_first_machine() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&["--prefetch"]).await;
    filled(&bridge, 2).await;
    assert_eq!((cached.fetched(Target::Kernel).0, cached.fetched(Target::Rootfs).0), (1, 1));
    let answer = fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    assert_eq!(answer.header("cache-status"), "ipxe-bridge; hit");
    cached.site.upstream.new_build();
    eventually("the new build is fetched", Duration::from_secs(10), async || {
        cached.fetched(Target::Kernel).0 == 2 && cached.fetched(Target::Rootfs).0 == 2
    })
    .await;
    filled(&bridge, 2).await;
    let answer = fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    assert!(answer.body == cached.expected(Target::Rootfs));
    // Environments that all need something do not push each other out.
    let mut bridge = bridge;
    bridge.terminate();
    bridge.ended(Duration::from_secs(10)).await;
    let bridge = cached.bridge(&["--prefetch", "--cache-size", "3100000"]).await;
    eventually("it says that there is no room", Duration::from_secs(10), async || {
        bridge.log().contains("not fetched ahead")
    })
    .await;
}
