//! Upstream changes its build, breaks off, or is away.

use super::*;

#[tokio::test]
async fn machines_notice_only_a_pause_when_upstream_breaks_off() {
    let cached = Cached::start(6_000_000).await;
    let bridge = cached.bridge(&[]).await;
    let whole = cached.expected(Target::Rootfs);
    cached
        .site
        .upstream
        .set_fault(Target::Rootfs, Some(Fault::CutEvery(1_000_000)), None);
    let answers = (0..8).map(|_| fetch(&bridge, ROOTFS, &[]));
    for answer in futures::future::join_all(answers).await {
        assert!(answer.expect("complete").body == whole);
    }
    let (requests, bytes) = cached.fetched(Target::Rootfs);
    assert!(
        requests > 1 && bytes < whole.len() as u64 + 1_000_000,
        "{requests} requests, {bytes} bytes"
    );
    let requests = cached.site.upstream.requests();
    let resumed = requests.iter().filter(|request| request.range.is_some());
    assert!(resumed.clone().count() >= 5 && resumed.clone().all(|request| request.if_range.is_some()));
}

#[tokio::test]
async fn without_upstream_a_pair_of_one_build_is_served_and_says_so() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&[]).await;
    for path in [KERNEL, ROOTFS] {
        fetch(&bridge, path, &[]).await.expect("complete");
    }
    filled(&bridge, 2).await;
    let (kernel, rootfs) = (cached.expected(Target::Kernel), cached.expected(Target::Rootfs));
    cached.site.upstream.set_ready(false);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for (path, whole) in [(KERNEL, &kernel), (ROOTFS, &rootfs)] {
        let answer = fetch(&bridge, path, &[]).await.expect("complete");
        assert!(answer.body == *whole, "{path}");
        assert_eq!(answer.header("cache-status"), "ipxe-bridge; hit; detail=upstream-away");
        assert_eq!(answer.header("warning"), "111 ipxe-bridge \"Revalidation Failed\"");
    }
    assert!(bridge.get(INITRD).await.status == 503);
    let metrics = bridge.metrics().await;
    assert!(
        metrics.contains("ipxe_bridge_cache_answers_total{kind=\"kernel\",result=\"stale\"} 1"),
        "{metrics}"
    );
    cached.site.upstream.set_ready(true);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let answer = fetch(&bridge, KERNEL, &[]).await.expect("complete");
    assert_eq!(
        (answer.header("warning"), answer.header("cache-status")),
        ("", "ipxe-bridge; hit")
    );
}

#[tokio::test]
async fn a_build_that_upstream_replaced_is_not_served_beside_its_successor() {
    let cached = Cached::start(3_000_000).await;
    let mut bridge = cached.bridge(&[]).await;
    for path in [KERNEL, ROOTFS] {
        fetch(&bridge, path, &[]).await.expect("complete");
    }
    filled(&bridge, 2).await;
    cached.site.upstream.new_build();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // The kernel cannot be asked about while the new rootfs comes.
    cached.site.upstream.set_fault(Target::Kernel, Some(Fault::Status(503)), None);
    let answer = fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    assert!(answer.body == cached.expected(Target::Rootfs));
    for _ in 0..3 {
        assert_eq!(
            bridge.get(KERNEL).await.status,
            503,
            "the old kernel does not go with the new rootfs"
        );
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    filled(&bridge, 2).await;
    // Nor after a restart.
    bridge.terminate();
    bridge.ended(Duration::from_secs(10)).await;
    let bridge = cached.bridge(&[]).await;
    assert_eq!(bridge.get(KERNEL).await.status, 503);
    assert_eq!(fetch(&bridge, ROOTFS, &[]).await.expect("complete").header("warning"), "");
    cached.well(Target::Kernel);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let answer = fetch(&bridge, KERNEL, &[]).await.expect("complete");
    assert!(answer.body == cached.expected(Target::Kernel));
}

#[tokio::test]
async fn kernel_and_rootfs_go_together_when_upstream_has_a_new_build() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&[]).await;
    for path in [KERNEL, ROOTFS] {
        fetch(&bridge, path, &[]).await.expect("complete");
    }
    filled(&bridge, 2).await;
    cached.site.upstream.new_build();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    // Nobody asked for the kernel.
    eventually("the old kernel is gone", Duration::from_secs(3), async || {
        files(cached.folder.path(), "json").len() == 1 && files(cached.folder.path(), "data").len() == 1
    })
    .await;
}

#[tokio::test]
async fn an_answer_never_holds_bytes_of_two_builds() {
    let cached = Cached::start(6_000_000).await;
    let bridge = cached.bridge(&[]).await;
    for round in 0..4 {
        cached.site.upstream.new_build();
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let old = cached.expected(Target::Rootfs);
        let after = 500_000 + round * 1_500_000;
        cached
            .site
            .upstream
            .set_fault(Target::Rootfs, Some(Fault::ChangeBuildAfter(after)), Some(1));
        let answers = futures::future::join_all((0..6).map(|_| fetch(&bridge, ROOTFS, &[]))).await;
        let new = cached.expected(Target::Rootfs);
        assert!(old != new);
        for answer in answers {
            match answer {
                // A client that came late may have got all of the new one.
                Ok(answer) => assert!(answer.body == new || answer.body == old),
                Err(begin) => assert!(
                    begin == old[..begin.len()] || begin == new[..begin.len()],
                    "{} bytes",
                    begin.len()
                ),
            }
        }
        tokio::time::sleep(Duration::from_millis(2100)).await;
        assert!(fetch(&bridge, ROOTFS, &[]).await.expect("complete").body == new);
    }
}

#[tokio::test]
async fn a_machine_that_reads_an_old_build_keeps_it_to_its_end() {
    let cached = Cached::start(40_000_000).await;
    let bridge = cached.bridge(&[]).await;
    let old = cached.expected(Target::Rootfs);
    fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    filled(&bridge, 1).await;
    let mut slow = bridge.send(Method::GET, ROOTFS, &[]).await.bytes_stream();
    let mut body = slow.next().await.unwrap().unwrap().to_vec();
    cached.site.upstream.new_build();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let new = fetch(&bridge, ROOTFS, &[]).await.expect("complete").body;
    assert!(new == cached.expected(Target::Rootfs) && new != old);
    while let Some(piece) = slow.next().await {
        body.extend_from_slice(&piece.expect("not cut"));
    }
    assert!(body == old);
    drop(slow);
    eventually("the old file goes with its last reader", Duration::from_secs(5), async || {
        files(cached.folder.path(), "data").len() == 1
    })
    .await;
}

#[tokio::test]
async fn a_fill_that_was_overtaken_by_a_new_build_leaves_no_file() {
    let cached = Cached::start(4_000_000).await;
    let bridge = cached.bridge(&[]).await;
    let old = cached.expected(Target::Rootfs);
    cached.slow(Target::Rootfs, 1_500_000);
    let machine = async { fetch(&bridge, ROOTFS, &[]).await.expect("not cut").body };
    let overtaking = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        // The transfer that goes on has the old file open.
        cached.site.upstream.new_build();
        cached.well(Target::Rootfs);
        fetch(&bridge, ROOTFS, &[]).await.expect("complete").body
    };
    let (first, second) = futures::join!(machine, overtaking);
    assert!(first == old && second == cached.expected(Target::Rootfs) && second != old);
    eventually("one build is on the disk", Duration::from_secs(5), async || {
        files(cached.folder.path(), "part").is_empty()
            && files(cached.folder.path(), "data").len() == 1
            && files(cached.folder.path(), "json").len() == 1
    })
    .await;
    assert_eq!(bridge.get("/cache").await.json()["used_bytes"], 4_000_000);
}

#[tokio::test]
async fn what_upstream_refuses_is_not_given_away() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&[]).await;
    fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    filled(&bridge, 1).await;
    cached.site.upstream.set_fault(Target::Rootfs, Some(Fault::Status(404)), None);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(bridge.get(ROOTFS).await.status, 503);
    cached.well(Target::Rootfs);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(
        fetch(&bridge, ROOTFS, &[]).await.expect("complete").header("cache-status"),
        "ipxe-bridge; hit"
    );
}

#[tokio::test]
async fn an_upstream_that_asks_for_patience_has_not_refused() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&[]).await;
    fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    filled(&bridge, 1).await;
    for status in [408, 429] {
        cached
            .site
            .upstream
            .set_fault(Target::Rootfs, Some(Fault::Status(status)), None);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let answer = fetch(&bridge, ROOTFS, &[]).await.expect("complete");
        assert_eq!(
            (answer.status.as_u16(), answer.header("cache-status")),
            (200, "ipxe-bridge; hit; detail=upstream-away")
        );
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_costs_no_question_per_machine() {
    let cached = Cached::start(3_000_000).await;
    let mut bridge = cached.bridge(&[]).await;
    for path in [KERNEL, ROOTFS] {
        fetch(&bridge, path, &[]).await.expect("complete");
    }
    filled(&bridge, 2).await;
    bridge.terminate();
    bridge.ended(Duration::from_secs(10)).await;
    // The kernel was fetched while the clock was a day ahead.
    for path in files(cached.folder.path(), "json") {
        let mut facts: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        if facts["kind"] == "kernel" {
            for time in ["first_seen", "confirmed", "used"] {
                facts[time] = (facts[time].as_u64().unwrap() + 86_400).into();
            }
        }
        std::fs::write(&path, facts.to_string()).unwrap();
    }
    let bridge = cached.bridge(&["--loop-timing", "60"]).await;
    cached.site.upstream.clear_log();
    for _ in 0..5 {
        assert_eq!(fetch(&bridge, ROOTFS, &[]).await.expect("complete").status, 200);
    }
    let asked = cached.site.upstream.requests().len();
    assert_eq!(asked, 1, "one question, as with any build that an earlier process left");
    cached.site.upstream.set_ready(false);
    tokio::time::sleep(Duration::from_millis(5100)).await;
    let answer = fetch(&bridge, ROOTFS, &[]).await.expect("complete");
    assert_eq!(
        (answer.status.as_u16(), answer.header("cache-status")),
        (200, "ipxe-bridge; hit; detail=upstream-away")
    );
}

#[tokio::test]
async fn many_machines_share_one_failure_of_upstream() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&[]).await;
    cached.site.upstream.set_fault(Target::Rootfs, Some(Fault::Status(500)), None);
    cached.site.upstream.clear_log();
    let start = std::time::Instant::now();
    let answers = futures::future::join_all((0..30).map(|_| bridge.get(ROOTFS))).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 503 && answer.header("retry-after") == "5")
    );
    assert!(start.elapsed() < Duration::from_secs(3) && cached.fetched(Target::Rootfs).0 <= 2);
}
