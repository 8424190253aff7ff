//! The sample upstream answers as the real services were recorded to answer, and fails as it is told to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_LENGTH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE};
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;

use crate::upstream_service::sample::{self, EDGE_DISCOVERY, LAB_DISCOVERY, LAB_STORAGE};
use crate::upstream_service::{Content, EnvironmentSpec, Fault, HostSpec, INTERNAL_URL, Options, SECRET_MARKER, Target, Upstream};

const SMALL: u64 = 300_000;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn client() -> Client {
    // The second test to come here finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client without files of its own")
}

/// The sample site with small artifacts.
async fn site() -> Upstream {
    start(Options {
        environments: sample::environments(),
        kernel: Content::random(SMALL, 1),
        initrd: Content::random(SMALL + 3, 2),
        rootfs: Content::random(SMALL, 3),
        ..Options::default()
    })
    .await
}

async fn start(options: Options) -> Upstream {
    Upstream::start(options).await.expect("a free port")
}

fn url(upstream: &Upstream, environment: &str, target: Target) -> String {
    upstream.url_of(environment, target).expect("an environment of the site")
}

async fn get(url: &str) -> Response {
    client().get(url).send().await.expect("an answer")
}

async fn ranged(url: &str, range: &str) -> Response {
    client().get(url).header(RANGE, range).send().await.expect("an answer")
}

fn text(response: &Response, name: impl reqwest::header::AsHeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// Everything that came before the connection broke, and whether it did.
async fn received(mut response: Response) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return (bytes, false),
            Err(_) => return (bytes, true),
        }
    }
}

fn host(id: &str, mac: &str, state: &str, stage: &str) -> HostSpec {
    HostSpec {
        id: id.to_owned(),
        macs: vec![mac.to_owned()],
        state: state.to_owned(),
        stage: stage.to_owned(),
    }
}

/// One file of `tests/data/upstream`.
struct Recording {
    method: Method,
    path_and_query: String,
    request_headers: Vec<(String, String)>,
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

const RECORDED_HOSTS: [&str; 2] = [
    "http://assisted-image-service.example.com:8081",
    "http://assisted-service.example.com:8091",
];

impl Recording {
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let mut lines = head.lines();
        let (method, url) = lines.next()?.strip_prefix("# ")?.split_once(' ')?;
        let path = RECORDED_HOSTS.iter().find_map(|host| url.strip_prefix(host))?;
        let mut request_headers = Vec::new();
        let status = loop {
            let line = lines.next()?;
            match line.strip_prefix("# ") {
                Some(header) => {
                    let (name, value) = header.split_once(": ")?;
                    request_headers.push((name.to_owned(), value.to_owned()));
                }
                None => break line.split(' ').nth(1)?.parse().ok()?,
            }
        };
        let headers = lines
            .map(|line| {
                line.split_once(": ")
                    .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            })
            .collect::<Option<_>>()?;
        Some(Self {
            method: method.parse().ok()?,
            path_and_query: path.to_owned(),
            request_headers,
            status,
            headers,
            body: body.to_owned(),
        })
    }

    fn token(&self) -> &str {
        let (_, rest) = self.path_and_query.split_once("api_key=").expect("a recording with a token");
        rest.split('&').next().unwrap_or_default()
    }

    fn environment(&self) -> &str {
        self.path_and_query
            .split(['/', '?'])
            .find(|part| part.len() == 36)
            .expect("a recording for an environment")
    }
}

fn recordings() -> BTreeMap<String, Recording> {
    fs::read_dir(project("tests/data/upstream"))
        .expect("the recordings")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a recording");
            let recording = Recording::parse(&text).expect("a request, a status and headers");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, recording)
        })
        .collect()
}

/// The environments and hosts that were there when the answers were recorded.
async fn recorded_site(recordings: &BTreeMap<String, Recording>) -> Upstream {
    let environment = |name: &str, version: &str| EnvironmentSpec {
        id: recordings[name].environment().to_owned(),
        token: recordings[name].token().to_owned(),
        version: version.to_owned(),
        arch: "x86_64".to_owned(),
        ..EnvironmentSpec::default()
    };
    let boot = EnvironmentSpec {
        hosts: vec![
            host("ad0e6307-eaba-40c9-8958-113470ef226d", "52:54:00:cc:00:01", "known", ""),
            host(
                "f3624eb4-4127-44b9-8059-26069a81a1b7",
                "52:54:00:cc:00:04",
                "installing-in-progress",
                "Rebooting",
            ),
            host(
                "74c881de-040d-4747-87b8-f0dcf231f67d",
                "52:54:00:cc:00:05",
                "installing-in-progress",
                "Writing image to disk",
            ),
        ],
        ..environment("script-boot", "4.16")
    };
    let redirect = EnvironmentSpec {
        boot_order_control: true,
        hosts: vec![host(
            "ce0288a7-a875-479e-83ba-e563ff47187d",
            "52:54:00:cc:00:03",
            "installed",
            "Done",
        )],
        ..environment("script-redirect", "4.16")
    };
    let arguments = EnvironmentSpec {
        kernel_arguments: ["p1", "p2=argument", "p3=\"this is  an argument\""]
            .map(str::to_owned)
            .to_vec(),
        ..environment("script-kernel-arguments", "4.19")
    };
    start(Options {
        environments: vec![boot, redirect, arguments],
        rootfs: Content::random(105_910_784, 3),
        ..Options::default()
    })
    .await
}

/// The text with every address of a service replaced by one word.
fn without_hosts(text: &str, hosts: &[&str]) -> String {
    hosts.iter().fold(text.to_owned(), |text, host| text.replace(host, "HOST"))
}

#[tokio::test]
async fn every_recorded_request_gets_the_recorded_answer() {
    let recordings = recordings();
    assert!(recordings.len() > 20, "only {} recordings", recordings.len());
    let upstream = recorded_site(&recordings).await;
    let own = upstream.url();
    for (name, recording) in &recordings {
        let mut request = client().request(recording.method.clone(), format!("{own}{}", recording.path_and_query));
        for (header, value) in &recording.request_headers {
            request = request.header(header, value);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), recording.status, "{name}");

        let body = without_hosts(&recording.body, &RECORDED_HOSTS);
        // A length is comparable where the recorded body was not changed and no two bodies are of different length anyway.
        let same_length = body == recording.body && name != "initrd-head";
        let comparable = |headers: &mut BTreeMap<String, String>| {
            let lengths: &[&str] = if same_length { &[] } else { &["content-length"] };
            for name in ["date", "last-modified"].iter().chain(lengths) {
                headers
                    .entry((*name).to_owned())
                    .and_modify(|value| *value = "(some)".to_owned());
            }
        };
        let mut expected = recording.headers.clone();
        let mut actual: BTreeMap<_, _> = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
            .collect();
        comparable(&mut expected);
        comparable(&mut actual);
        assert_eq!(actual, expected, "headers of {name}");

        if name == "rootfs-range" {
            let content = upstream.content(recordings["script-boot"].environment(), Target::Rootfs);
            let expected = content.expect("a rootfs").read(5..10).expect("five bytes");
            assert_eq!(response.bytes().await.expect("five bytes"), expected);
        } else {
            let actual = response.text().await.expect("a text");
            assert_eq!(without_hosts(&actual, &[&own, INTERNAL_URL]), body, "body of {name}");
        }
    }
}

#[tokio::test]
async fn a_token_opens_its_own_environment_only() {
    let upstream = site().await;
    let own = url(&upstream, LAB_DISCOVERY, Target::Script);
    let foreign = own.replace(LAB_DISCOVERY, EDGE_DISCOVERY);
    let response = get(&foreign).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.text().await.expect("a text").contains("Object Not Found"));

    let forged = own.replace("SAMPLE-TOKEN", "FORGED-TOKEN");
    assert_eq!(get(&forged).await.status(), StatusCode::UNAUTHORIZED);

    let initrd = url(&upstream, LAB_DISCOVERY, Target::Initrd);
    let response = get(&initrd.replace(LAB_DISCOVERY, EDGE_DISCOVERY)).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.text().await.expect("a text").contains("api_key=eyJ"));
    let upper = initrd.replace(LAB_DISCOVERY, &LAB_DISCOVERY.to_uppercase());
    assert_eq!(get(&upper).await.status(), StatusCode::NOT_FOUND);
    let other_version = initrd.replace("4.19", "4.20");
    assert_eq!(get(&other_version).await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_deleted_environment_is_not_found_and_later_unauthorized() {
    let upstream = site().await;
    let script = url(&upstream, LAB_DISCOVERY, Target::Script);
    upstream.delete_environment(LAB_DISCOVERY);
    let response = get(&script).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(response.text().await.expect("a text").contains("record not found"));
    upstream.forget_environment(LAB_DISCOVERY);
    let response = get(&script).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    let body = response.text().await.expect("a text");
    assert!(body.contains(&format!("infraEnv {LAB_DISCOVERY} does not exist")), "{body}");
}

#[tokio::test]
async fn only_a_mac_with_colons_finds_a_host() {
    let upstream = site().await;
    let script = url(&upstream, EDGE_DISCOVERY, Target::Script);
    for (mac, status) in [
        ("52:54:00:5b:00:01", 404),
        ("52:54:00:5B:00:01", 404),
        ("52%3A54%3A00%3a5b%3A00%3A01", 404),
        ("52-54-00-5b-00-01", 200),
        ("5254.005b.0001", 200),
        ("5254005b0001", 200),
        ("52:54:00:5b:00:99", 200),
        ("", 200),
        ("$%7Bnet0/mac%7D", 400),
        ("52:54:00:5b:00", 400),
    ] {
        assert_eq!(get(&format!("{script}&mac={mac}")).await.status(), status, "{mac}");
    }
    let with_mac = get(&format!("{script}&mac=52:54:00:5b:00:99")).await;
    assert!(with_mac.text().await.expect("a text").contains("\nkernel http"));
    let without = get(&format!("{script}&mac=")).await;
    assert!(without.text().await.expect("a text").starts_with("#!ipxe\nchain http"));
}

#[tokio::test]
async fn a_hosts_second_card_counts_and_two_hosts_with_one_mac_are_an_error() {
    let upstream = site().await;
    let twin = |id: &str| HostSpec {
        macs: vec!["52:54:00:00:00:01".to_owned(), "52:54:00:00:00:02".to_owned()],
        ..host(id, "", "installed", "Done")
    };
    let asked = format!("{}&mac=52:54:00:00:00:02", url(&upstream, LAB_DISCOVERY, Target::Script));
    upstream.set_hosts(LAB_DISCOVERY, vec![twin("one")]);
    assert_eq!(get(&asked).await.status(), StatusCode::NOT_FOUND);
    upstream.set_hosts(LAB_DISCOVERY, vec![twin("one"), twin("two")]);
    let response = get(&asked).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body = response.text().await.expect("a text");
    assert!(
        body.contains("Unexpected number of hosts 2 with mac 52:54:00:00:00:02"),
        "{body}"
    );
}

#[tokio::test]
async fn a_script_is_given_to_whoever_takes_binary() {
    let upstream = site().await;
    let script = url(&upstream, LAB_STORAGE, Target::Script);
    for (accept, status) in [
        ("*/*", 200),
        ("text/html, application/*;q=0.5", 200),
        ("application/json", 400),
    ] {
        let request = client().get(&script).header(ACCEPT, accept);
        assert_eq!(request.send().await.expect("an answer").status(), status, "{accept}");
    }
}

#[tokio::test]
async fn artifacts_keep_to_ranges_and_conditions() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    let content = upstream.content(LAB_DISCOVERY, Target::Kernel).expect("a kernel");
    let first = get(&kernel).await;
    let date = text(&first, LAST_MODIFIED).expect("a date").to_owned();
    let old = "Mon, 02 Jun 2014 08:00:00 GMT";
    let last = SMALL - 1;
    for (range, condition, status, place) in [
        ("bytes=0-0", None, 206, Some(format!("bytes 0-0/{SMALL}"))),
        ("bytes=-10", None, 206, Some(format!("bytes {}-{last}/{SMALL}", SMALL - 10))),
        ("bytes=299990-", None, 206, Some(format!("bytes 299990-{last}/{SMALL}"))),
        ("bytes=10-999999", None, 206, Some(format!("bytes 10-{last}/{SMALL}"))),
        ("bytes=0-1,5-6", None, 200, None),
        ("bytes=300000-", None, 416, Some(format!("bytes */{SMALL}"))),
        ("foo", None, 416, None),
        ("bytes=9-5", None, 416, None),
        (
            "bytes=5-9",
            Some((IF_RANGE, date.as_str())),
            206,
            Some(format!("bytes 5-9/{SMALL}")),
        ),
        ("bytes=5-9", Some((IF_RANGE, old)), 200, None),
        ("bytes=5-9", Some((IF_RANGE, "\"tag\"")), 200, None),
        (
            "bytes=5-9",
            Some((reqwest::header::IF_MODIFIED_SINCE, date.as_str())),
            304,
            None,
        ),
        ("bytes=5-9", Some((reqwest::header::IF_NONE_MATCH, "*")), 304, None),
        ("bytes=5-9", Some((reqwest::header::IF_MATCH, "\"tag\"")), 412, None),
        ("bytes=5-9", Some((reqwest::header::IF_UNMODIFIED_SINCE, old)), 412, None),
    ] {
        let mut request = client().get(&kernel).header(RANGE, range);
        if let Some((name, value)) = &condition {
            request = request.header(name, *value);
        }
        let response = request.send().await.expect("an answer");
        let asked = format!("{range} {condition:?}");
        assert_eq!(response.status(), status, "{asked}");
        let actual = text(&response, "content-range").map(str::to_owned);
        assert_eq!(actual, place, "{asked}");
        if let Some((first, rest)) = place
            .as_deref()
            .and_then(|place| place.strip_prefix("bytes ")?.split_once('-'))
        {
            let end: u64 = rest.split('/').next().and_then(|end| end.parse().ok()).expect("an end");
            let expected = content.read(first.parse().expect("a start")..end + 1).expect("a range");
            assert_eq!(response.bytes().await.expect("bytes"), expected, "{asked}");
        }
    }
    assert_eq!(first.bytes().await.expect("bytes").len() as u64, SMALL);
    let unversioned = kernel.split('?').next().expect("a path");
    assert_eq!(get(unversioned).await.status(), StatusCode::BAD_REQUEST);
    let without_arch = format!("{unversioned}?version=4.19");
    assert_eq!(get(&without_arch).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn no_two_initrds_are_alike_but_all_begin_with_the_stock_one() {
    let upstream = site().await;
    let initrd = url(&upstream, LAB_DISCOVERY, Target::Initrd);
    let head = client().head(&initrd).send().await.expect("an answer");
    let stated: usize = text(&head, CONTENT_LENGTH)
        .and_then(|text| text.parse().ok())
        .expect("a length");
    let date = text(&head, LAST_MODIFIED).map(str::to_owned);
    let one = get(&initrd).await;
    assert_eq!(text(&one, LAST_MODIFIED).map(str::to_owned), date);
    let one = one.bytes().await.expect("bytes");
    let two = get(&initrd).await.bytes().await.expect("bytes");
    assert_ne!(one.len(), stated, "HEAD and GET in a row differ in length");
    assert_ne!(one, two);

    let stock = upstream.content(LAB_DISCOVERY, Target::Initrd).expect("an initrd");
    let stock = stock.read(0..SMALL + 3).expect("the whole");
    for body in [&one, &two] {
        assert!(body.starts_with(&stock));
        // The kernel looks for a further archive at a multiple of four.
        let archive = &body[stock.len().next_multiple_of(4)..];
        assert!(archive.starts_with(b"070701"));
        assert_eq!(archive.len() % 4, 0);
        let archive = String::from_utf8_lossy(archive);
        assert!(archive.contains("config.ign\0") && archive.contains("TRAILER!!!\0"));
        assert!(archive.contains(&format!("{SECRET_MARKER}{LAB_DISCOVERY}-")));
    }

    let from = format!("bytes={}-", stock.len() + 200);
    let ranges = [ranged(&initrd, &from).await, ranged(&initrd, &from).await];
    let [one, two] = ranges.map(|response| {
        assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
        response.bytes()
    });
    assert_ne!(one.await.expect("bytes"), two.await.expect("bytes"));
}

#[tokio::test]
async fn a_new_build_has_other_bytes_of_the_same_length_and_a_later_date() {
    let upstream = site().await;
    let rootfs = url(&upstream, LAB_DISCOVERY, Target::Rootfs);
    let old = get(&rootfs).await;
    let date = text(&old, LAST_MODIFIED).expect("a date").to_owned();
    let old = old.bytes().await.expect("bytes");
    upstream.new_build();
    let new = client()
        .get(&rootfs)
        .header(RANGE, "bytes=5-9")
        .header(IF_RANGE, &date)
        .send()
        .await
        .expect("an answer");
    assert_eq!(new.status(), StatusCode::OK);
    assert_ne!(text(&new, LAST_MODIFIED), Some(date.as_str()));
    let new = new.bytes().await.expect("bytes");
    assert_eq!(new.len(), old.len());
    assert_ne!(new, old);
    let content = upstream.content(LAB_DISCOVERY, Target::Rootfs).expect("a rootfs");
    assert_eq!(new, content.read(0..SMALL).expect("the whole"));
}

#[tokio::test]
async fn versions_differ_and_contents_know_their_bytes() {
    let upstream = site().await;
    let [lab, edge, storage] = [LAB_DISCOVERY, EDGE_DISCOVERY, LAB_STORAGE].map(|environment| {
        let content = upstream.content(environment, Target::Kernel).expect("a kernel");
        content.sha256().expect("a hash")
    });
    assert_eq!(lab, edge, "one version, one kernel");
    assert_ne!(lab, storage);

    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), b"abc").expect("a written file");
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for content in [Content::file(file.path()), Content::bytes(&b"abc"[..])] {
        assert_eq!(content.sha256().expect("a hash"), hash);
        assert_eq!(content.byte_at(1).expect("a byte"), b'b');
        assert!(content.read(2..4).is_err());
        assert_ne!(content.at_build(1).byte_at(1).expect("a byte"), b'b');
    }
    let noise = Content::random(100, 7);
    let whole = noise.read(0..100).expect("the whole");
    assert_eq!(noise.read(13..57).expect("a part"), whole[13..57]);
}

#[tokio::test]
async fn a_cut_heals_and_a_client_that_resumes_gets_on() {
    let upstream = site().await;
    let rootfs = url(&upstream, LAB_DISCOVERY, Target::Rootfs);
    let content = upstream.content(LAB_DISCOVERY, Target::Rootfs).expect("a rootfs");
    let whole = content.read(0..SMALL).expect("the whole");

    upstream.set_fault(Target::Rootfs, Some(Fault::CutAfter(100_000)), Some(1));
    let head = client().head(&rootfs).send().await.expect("an answer");
    assert_eq!(head.status(), StatusCode::OK);
    assert!(upstream.has_fault(Target::Rootfs), "HEAD does not use a cut up");
    let (bytes, broken) = received(get(&rootfs).await).await;
    assert!(broken);
    assert_eq!(bytes, whole[..100_000]);
    assert!(!upstream.has_fault(Target::Rootfs));
    let (bytes, broken) = received(get(&rootfs).await).await;
    assert!(!broken && bytes == whole);

    upstream.set_fault(Target::Rootfs, Some(Fault::CutEvery(100_000)), None);
    let mut bytes = Vec::new();
    for _ in 0..3 {
        let (more, _) = received(ranged(&rootfs, &format!("bytes={}-", bytes.len())).await).await;
        bytes.extend_from_slice(&more);
    }
    assert!(bytes == whole, "{} bytes", bytes.len());
}

#[tokio::test]
async fn a_build_that_changes_in_the_middle_breaks_the_download() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    upstream.set_fault(Target::Kernel, Some(Fault::ChangeBuildAfter(1_000)), Some(1));
    let response = get(&kernel).await;
    let date = text(&response, LAST_MODIFIED).expect("a date").to_owned();
    let (bytes, broken) = received(response).await;
    assert!(broken);
    assert_eq!(bytes.len(), 1_000);
    let next = get(&kernel).await;
    assert_ne!(text(&next, LAST_MODIFIED), Some(date.as_str()));
    let content = upstream.content(LAB_DISCOVERY, Target::Kernel).expect("a kernel");
    assert_eq!(content.build(), 1);
    assert_eq!(next.bytes().await.expect("bytes"), content.read(0..SMALL).expect("the whole"));
}

#[tokio::test]
async fn a_stalled_download_keeps_the_connection_and_a_slow_one_arrives() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    upstream.set_fault(Target::Kernel, Some(Fault::StallAfter(5_000)), Some(1));
    let mut response = get(&kernel).await;
    let mut seen = 0;
    while seen < 5_000 {
        seen += response.chunk().await.expect("bytes").expect("more bytes").len();
    }
    let more = tokio::time::timeout(Duration::from_millis(200), response.chunk()).await;
    assert!(more.is_err(), "neither bytes nor an end");

    let bytes_per_second = 1_000_000;
    upstream.set_fault(Target::Kernel, Some(Fault::Slow { bytes_per_second }), None);
    let begin = tokio::time::Instant::now();
    let (bytes, broken) = received(get(&kernel).await).await;
    assert!(!broken && bytes.len() as u64 == SMALL);
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_wrong_length_is_stated_as_told() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    upstream.set_fault(Target::Kernel, Some(Fault::WrongLength(10)), Some(1));
    let (bytes, broken) = received(get(&kernel).await).await;
    assert!(broken && bytes.len() as u64 <= SMALL);
    upstream.set_fault(Target::Kernel, Some(Fault::WrongLength(-10)), Some(1));
    let (bytes, broken) = received(get(&kernel).await).await;
    assert!(!broken);
    assert_eq!(bytes.len() as u64, SMALL - 10);
}

#[tokio::test]
async fn an_answer_can_be_replaced_or_late() {
    let upstream = site().await;
    let script = url(&upstream, LAB_DISCOVERY, Target::Script);
    let set = |fault| upstream.set_fault(Target::Script, Some(fault), Some(1));

    set(Fault::Status(503));
    let response = get(&script).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(text(&response, "retry-after"), None);
    assert_eq!(response.text().await.expect("a text"), "");

    set(Fault::Redirect("http://192.0.2.1/".to_owned()));
    let response = get(&script).await;
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(text(&response, LOCATION), Some("http://192.0.2.1/"));

    set(Fault::Body("<html>".into()));
    assert_eq!(get(&script).await.text().await.expect("a text"), "<html>");

    set(Fault::Endless);
    let mut response = get(&script).await;
    assert_eq!(text(&response, CONTENT_LENGTH), None);
    let mut seen = 0;
    while seen < 1_000_000 {
        seen += response.chunk().await.expect("bytes").expect("more bytes").len();
    }

    set(Fault::Delay(Duration::from_millis(100)));
    let begin = tokio::time::Instant::now();
    assert_eq!(get(&script).await.status(), StatusCode::OK);
    assert!(begin.elapsed() >= Duration::from_millis(100));
    assert!(!upstream.has_fault(Target::Script));
}

#[tokio::test]
async fn an_initrds_error_names_the_internal_address_and_the_token() {
    let upstream = site().await;
    upstream.set_fault(Target::Initrd, Some(Fault::Status(500)), None);
    let body = get(&url(&upstream, LAB_DISCOVERY, Target::Initrd)).await.text().await;
    let body = body.expect("a text");
    assert!(body.contains(INTERNAL_URL) && body.contains("SAMPLE-TOKEN"), "{body}");
}

#[tokio::test]
async fn a_service_without_its_images_answers_503_without_a_body() {
    let upstream = site().await;
    let health = format!("{}/health", upstream.url());
    assert_eq!(get(&health).await.status(), StatusCode::OK);
    upstream.set_ready(false);
    let addresses = [Target::Kernel, Target::Initrd].map(|target| url(&upstream, LAB_DISCOVERY, target));
    for address in addresses.iter().chain([&health]) {
        let response = get(address).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{address}");
        assert_eq!(response.text().await.expect("a text"), "");
    }
    let script = url(&upstream, LAB_DISCOVERY, Target::Script);
    assert_eq!(get(&script).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_path_prefix_is_in_every_url_but_the_chained_one() {
    let upstream = start(Options {
        prefix: "/api/image-services".to_owned(),
        environments: sample::environments(),
        ..Options::default()
    })
    .await;
    let script = url(&upstream, EDGE_DISCOVERY, Target::Script);
    assert!(script.contains("/api/image-services/api/assisted-install/"));
    let body = get(&script).await.text().await.expect("a text");
    let chained = body
        .lines()
        .nth(1)
        .and_then(|line| line.strip_prefix("chain "))
        .expect("a chain line");
    let chained = chained.replace("${net0/mac}", "52:54:00:5b:00:99");
    assert_eq!(get(&chained).await.status(), StatusCode::NOT_FOUND);
    let with_mac = get(&format!("{script}&mac=52:54:00:5b:00:99")).await;
    let body = with_mac.text().await.expect("a text");
    assert_eq!(body.matches("/api/image-services/").count(), 3, "{body}");
}

#[tokio::test]
async fn the_log_has_what_was_asked_and_a_stopped_service_frees_its_port() {
    let upstream = site().await;
    let kernel = url(&upstream, LAB_DISCOVERY, Target::Kernel);
    let response = client()
        .get(&kernel)
        .header(RANGE, "bytes=5-9")
        .header(IF_RANGE, "Mon, 02 Jun 2025 08:00:00 GMT")
        .send()
        .await
        .expect("an answer");
    response.bytes().await.expect("bytes");
    let log = upstream.requests();
    let [request] = log.as_slice() else {
        unreachable!("one request, not {log:?}");
    };
    assert_eq!(request.method, Method::GET);
    assert_eq!(request.path_and_query, "/boot-artifacts/kernel?arch=x86_64&version=4.19");
    assert_eq!(request.range.as_deref(), Some("bytes=5-9"));
    assert_eq!(request.if_range.as_deref(), Some("Mon, 02 Jun 2025 08:00:00 GMT"));
    assert_eq!((request.status, request.sent), (206, 5));
    assert_eq!(request.target, Some(Target::Kernel));
    upstream.clear_log();
    assert!(upstream.requests().is_empty());

    let listen = upstream.addr();
    upstream.stop().await;
    assert!(client().get(&kernel).send().await.is_err());
    let again = start(Options {
        listen,
        environments: sample::environments(),
        ..Options::default()
    })
    .await;
    assert_eq!(
        get(&url(&again, LAB_DISCOVERY, Target::Kernel)).await.status(),
        StatusCode::OK
    );
}

/// What the sample site says that the sample upstream must agree with.
#[derive(Deserialize)]
struct Sample {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    status: SampleStatus,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SampleStatus {
    boot_artifacts: BTreeMap<String, String>,
    debug_info: BTreeMap<String, String>,
    inventory: SampleInventory,
    progress: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SampleInventory {
    interfaces: Vec<SampleInterface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SampleInterface {
    mac_address: String,
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for file in ["environments.yaml", "agents.yaml"] {
        let text = fs::read_to_string(project("config/samples/site").join(file)).expect("a sample");
        samples.extend(serde_saphyr::from_multiple::<Sample>(&text).expect("objects"));
    }
    samples
}

#[tokio::test]
async fn the_sample_site_names_what_the_sample_upstream_serves() {
    let upstream = site().await;
    let samples = samples();
    let served: Vec<_> = samples
        .iter()
        .filter(|sample| {
            sample
                .status
                .boot_artifacts
                .get("ipxeScript")
                .is_some_and(|url| !url.is_empty())
        })
        .collect();
    assert_eq!(served.len(), sample::environments().len());
    for (object, environment) in served.iter().zip(sample::environments()) {
        for (key, target) in [
            ("ipxeScript", Target::Script),
            ("kernel", Target::Kernel),
            ("initrd", Target::Initrd),
            ("rootfs", Target::Rootfs),
        ] {
            let written = object.status.boot_artifacts[key].replace(sample::ORIGIN, &upstream.url());
            assert_eq!(
                written,
                url(&upstream, &environment.id, target),
                "{key} of {}",
                object.metadata.name
            );
            assert_eq!(get(&written).await.status(), StatusCode::OK, "{key}");
        }
    }

    let agents: Vec<_> = samples.iter().filter(|sample| sample.kind == "Agent").collect();
    let hosts: Vec<_> = sample::environments()
        .into_iter()
        .flat_map(|environment| environment.hosts)
        .collect();
    assert_eq!(agents.len(), hosts.len());
    for (agent, host) in agents.iter().zip(&hosts) {
        assert_eq!(agent.metadata.name, host.id);
        assert_eq!(agent.status.debug_info["state"], host.state);
        let stage = agent.status.progress.get("currentStage").map_or("", String::as_str);
        assert_eq!(stage, host.stage);
        let interfaces = &agent.status.inventory.interfaces;
        let macs: Vec<_> = interfaces.iter().map(|interface| interface.mac_address.clone()).collect();
        assert_eq!(macs, host.macs);
    }
}
