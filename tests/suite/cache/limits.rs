//! Bounds: the size of the cache, transfers from upstream, bytes a second, memory of slow readers.

use std::time::Instant;

use super::*;
use crate::support::bridge::write;

#[tokio::test]
async fn the_cache_stays_within_its_size_and_never_takes_what_is_being_read() {
    let cached = Cached::start(2_000_000).await;
    for index in 0..6 {
        let name = format!("env{index}");
        let mut spec = crate::support::site::environment("a", &name);
        spec.version = format!("4.{}", 10 + index);
        cached.site.upstream.set_environment(spec);
        let manifest = cached.site.infra_env("a", &name, "{}", false);
        cached.site.write(&format!("env-a-{name}.yaml"), &manifest);
    }
    // Room for two pairs of kernel and rootfs, and a bit.
    let bridge = cached.bridge(&["--cache-size", "5000000"]).await;
    let whole = |name: &str, target| {
        let content = cached.site.upstream.content(&id("a", name), target).unwrap();
        content.read(0..content.length().unwrap()).unwrap().to_vec()
    };
    let machines = (0..60).map(|index: u64| {
        let (bridge, whole) = (&bridge, &whole);
        async move {
            let name = format!("env{}", (index * 7) % 6);
            tokio::time::sleep(Duration::from_millis(index * 20)).await;
            for (kind, target) in [("kernel", Target::Kernel), ("rootfs", Target::Rootfs)] {
                let answer = fetch(bridge, &format!("/boot-artifacts/{kind}/a/{name}"), &[])
                    .await
                    .expect("complete");
                assert!(answer.body == whole(&name, target), "{name} {kind}");
            }
        }
    });
    let watching = async {
        for _ in 0..30 {
            let cache = bridge.get("/cache").await.json();
            assert!(cache["used_bytes"].as_u64().unwrap() <= 5_000_000, "{cache}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    futures::join!(futures::future::join_all(machines), watching);
    let on_disk: u64 = files(cached.folder.path(), "data")
        .iter()
        .map(|path| path.metadata().unwrap().len())
        .sum();
    assert!(on_disk <= 5_000_000, "{on_disk}");
    let metrics = bridge.metrics().await;
    assert!(metrics.contains("ipxe_bridge_cache_evictions_total"), "{metrics}");

    // Larger than the whole cache: passed through, and nothing given up for it.
    let small = Cached::start(6_000_000).await;
    let bridge = small.bridge(&["--cache-size", "5Mi"]).await;
    for _ in 0..2 {
        let answer = fetch(&bridge, ROOTFS, &[]).await.expect("complete");
        assert!(answer.body == small.expected(Target::Rootfs));
        assert_eq!(answer.header("cache-status"), "ipxe-bridge; fwd=bypass");
    }
    assert!(bridge.log().contains("more than the whole cache may hold (--cache-size)"));
}

#[tokio::test]
async fn transfers_from_upstream_wait_in_turn_and_scripts_do_not_wait_for_them() {
    let cached = Cached::start(300_000).await;
    cached.site.host("a", "n1", "52:54:00:cc:00:01", Some("lab"));
    cached.slow(Target::Initrd, 400_000);
    let bridge = cached.bridge(&["--upstream-connections", "2"]).await;
    let initrds = (0..6).map(|index: u64| {
        let bridge = &bridge;
        async move {
            tokio::time::sleep(Duration::from_millis(index * 30)).await;
            fetch(bridge, INITRD, &[]).await.expect("complete");
            (index, Instant::now())
        }
    });
    let script = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let start = Instant::now();
        bridge.script("52:54:00:cc:00:01").await;
        assert!(start.elapsed() < Duration::from_millis(700), "{:?}", start.elapsed());
    };
    let (mut ends, ()) = futures::join!(futures::future::join_all(initrds), script);
    let most = cached.site.upstream.requests().len();
    assert!(most >= 7);
    ends.sort_by_key(|(_, end)| *end);
    let order: Vec<u64> = ends.iter().map(|(index, _)| index / 2).collect();
    assert_eq!(order, [0, 0, 1, 1, 2, 2], "who waits longest comes next");
}

#[tokio::test]
async fn rates_are_kept_per_connection_and_in_total_and_the_bytes_are_right() {
    let cached = Cached::start(1_000_000).await;
    for (flag, machines, seconds) in [("--connection-rate-limit", 3, 1.0), ("--rate-limit", 3, 3.0)] {
        let mut bridge = cached.bridge(&[flag, "1M"]).await;
        let start = Instant::now();
        let answers = futures::future::join_all((0..machines).map(|_| fetch(&bridge, ROOTFS, &[]))).await;
        let took = start.elapsed().as_secs_f64();
        for answer in answers {
            assert!(answer.expect("complete").body == cached.expected(Target::Rootfs));
        }
        assert!(took > seconds * 0.75, "{flag}: {took}");
        // Not for ever slower than asked for.
        assert!(took < seconds * 3.0 + 2.0, "{flag}: {took}");
        bridge.terminate();
        bridge.ended(Duration::from_secs(10)).await;
    }
}

#[tokio::test]
async fn slow_readers_of_a_cached_file_hold_no_memory() {
    let cached = Cached::start(100_000_000).await;
    let bridge = cached.bridge(&[]).await;
    fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    filled(&bridge, 1).await;
    let (before, _) = bridge.memory();
    let mut readers = Vec::new();
    for _ in 0..200 {
        let mut stream = bridge.send(Method::GET, ROOTFS, &[]).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        readers.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (now, highest) = bridge.memory();
    println!("memory with 200 readers that take nothing: {now} MiB, highest {highest} MiB, before {before} MiB");
    assert!(highest < before.max(60) + 40, "{before} -> {highest} MiB");
}

#[tokio::test]
async fn tls_sends_the_same_bytes() {
    let cached = Cached::start(5_000_000).await;
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = write(&cached.site.path().join("tls.crt"), made.cert.pem());
    let key = write(&cached.site.path().join("tls.key"), made.signing_key.serialize_pem());
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let bridge = cached
        .bridge(&["--tls-cert", certificate, "--tls-key", key, "--tls-port", "0"])
        .await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let url = format!("{}{ROOTFS}", bridge.tls_url.clone().unwrap());
    for _ in 0..3 {
        let body = client.get(&url).send().await.unwrap().bytes().await.unwrap();
        assert!(body == cached.expected(Target::Rootfs));
    }
    assert_eq!(cached.fetched(Target::Rootfs).0, 1);
}
