//! Artifacts over real sockets: correct HTTP, and an upstream with its faults switched on.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Method;

use crate::support::bridge::{Bridge, eventually};
use crate::support::site::{Site, id};
use crate::upstream_service::{Content, Fault, Options, SECRET_MARKER, Target};

const KERNEL: &str = "/boot-artifacts/kernel/a/lab";
const ROOTFS: &str = "/boot-artifacts/rootfs/a/lab";
const INITRD: &str = "/boot-artifacts/initrd/a/lab";

fn expected(site: &Site, target: Target) -> Vec<u8> {
    let content = site.upstream.content(&id("a", "lab"), target).unwrap();
    content.read(0..content.length().unwrap()).unwrap().to_vec()
}

/// The whole body, or how many bytes came before the connection was cut.
async fn fetch(bridge: &Bridge, path: &str) -> Result<Vec<u8>, usize> {
    let response = bridge.send(Method::GET, path, &[]).await;
    assert_eq!(response.status(), 200, "{path}");
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        match piece {
            Ok(piece) => body.extend_from_slice(&piece),
            Err(_) => return Err(body.len()),
        }
    }
    Ok(body)
}

#[tokio::test]
async fn kernel_and_rootfs_are_correct_http() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    for (path, target) in [(KERNEL, Target::Kernel), (ROOTFS, Target::Rootfs)] {
        let whole = expected(&site, target);
        let total = whole.len();
        let answer = bridge.get(path).await;
        assert!(answer.status == 200 && answer.body == whole);
        assert_eq!(answer.header("content-length"), total.to_string());
        assert_eq!(
            (answer.header("accept-ranges"), answer.header("content-encoding")),
            ("bytes", "")
        );
        let (tag, date) = (answer.header("etag").to_owned(), answer.header("last-modified").to_owned());
        assert!(tag.starts_with('"') && date.ends_with("GMT"));

        for (range, first, last) in [
            ("bytes=0-0", 0, 0),
            ("bytes=5-9", 5, 9),
            ("bytes=1000-", 1000, total - 1),
            ("bytes=-7", total - 7, total - 1),
            ("bytes=0-99999999999", 0, total - 1),
        ] {
            for condition in [None, Some(&tag), Some(&date)] {
                let mut headers = vec![("range", range)];
                headers.extend(condition.map(|condition| ("if-range", condition.as_str())));
                let answer = bridge.ask(Method::GET, path, &headers).await;
                assert_eq!(answer.status, 206, "{range} {condition:?}");
                assert_eq!(answer.header("content-range"), format!("bytes {first}-{last}/{total}"));
                assert!(answer.body == whole[first..=last] && answer.header("etag") == tag);
            }
        }
        // The whole where a part cannot be: several ranges, nonsense, another build.
        for (range, condition) in [
            ("bytes=0-1,5-6", None),
            ("foo", None),
            ("bytes=9-5", None),
            ("bytes=0-1", Some("\"other\"")),
            ("bytes=0-1", Some("W/\"weak\"")),
            ("bytes=0-1", Some("Mon, 01 Jan 2024 00:00:00 GMT")),
            ("bytes=0-1", Some("nonsense")),
        ] {
            let mut headers = vec![("range", range)];
            headers.extend(condition.map(|condition| ("if-range", condition)));
            let answer = bridge.ask(Method::GET, path, &headers).await;
            assert!(
                answer.status == 200 && answer.body == whole,
                "{range} {condition:?}: {}",
                answer.status
            );
        }
        let answer = bridge.ask(Method::GET, path, &[("range", "bytes=99999999999-")]).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (416, "range"));
        assert_eq!(answer.header("content-range"), format!("bytes */{total}"));
        for (name, value) in [("if-none-match", &tag), ("if-modified-since", &date)] {
            let answer = bridge.ask(Method::GET, path, &[(name, value)]).await;
            assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{name}");
        }
        let head = bridge.ask(Method::HEAD, path, &[]).await;
        assert_eq!(
            (head.header("content-length"), head.header("etag")),
            (total.to_string().as_str(), tag.as_str())
        );
    }
    let short = bridge.get("/boot-artifacts/kernel/lab").await;
    assert_eq!(short.status, 409);
    site.remove("env-b-lab.yaml");
    eventually("the short form works again", Duration::from_secs(1), async || {
        bridge.get("/boot-artifacts/kernel/lab").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn an_initrd_is_always_whole_and_never_resumed() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    for range in ["bytes=0-9", "bytes=100-"] {
        let answer = bridge.ask(Method::GET, INITRD, &[("range", range)]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("accept-ranges"), answer.header("etag")),
            (200, "none", "")
        );
        assert!(String::from_utf8_lossy(&answer.body).contains(SECRET_MARKER));
    }
    site.upstream.clear_log();
    site.upstream
        .set_fault(Target::Initrd, Some(Fault::CutAfter(200_000)), Some(1));
    let sent = fetch(&bridge, INITRD).await.expect_err("the connection is cut");
    assert!(sent <= 200_000);
    assert_eq!(site.upstream.requests().len(), 1, "one request, no resumption");
    assert!(bridge.log().contains("cannot be resumed"), "{}", bridge.log());
}

#[tokio::test]
async fn a_broken_transfer_is_taken_up_again_without_the_client_noticing() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let whole = expected(&site, Target::Rootfs);

    site.upstream
        .set_fault(Target::Rootfs, Some(Fault::CutAfter(1_000_000)), Some(1));
    site.upstream.clear_log();
    assert!(fetch(&bridge, ROOTFS).await.expect("complete") == whole);
    let requests = site.upstream.requests();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(
        requests[1].range.as_deref().unwrap().starts_with("bytes=") && requests[1].if_range.is_some(),
        "{requests:?}"
    );

    site.upstream.set_fault(Target::Rootfs, Some(Fault::CutEvery(400_000)), None);
    assert!(
        fetch(&bridge, ROOTFS).await.expect("complete") == whole,
        "as often as it makes progress"
    );
    site.upstream
        .set_fault(Target::Rootfs, Some(Fault::CutAfter(500_000)), Some(1));
    let answer = bridge.ask(Method::GET, ROOTFS, &[("range", "bytes=100000-2900000")]).await;
    assert!(
        answer.body == whole[100_000..=2_900_000],
        "a part is resumed within its range"
    );

    // A status instead of the rest, then the rest.
    site.upstream
        .set_fault(Target::Rootfs, Some(Fault::CutAfter(500_000)), Some(1));
    let transfer = tokio::spawn(async move {
        let body = fetch(&bridge, ROOTFS).await;
        (bridge, body)
    });
    eventually("the cut is used up", Duration::from_secs(5), async || {
        !site.upstream.has_fault(Target::Rootfs)
    })
    .await;
    site.upstream.set_fault(Target::Rootfs, Some(Fault::Status(503)), Some(2));
    let (bridge, body) = transfer.await.unwrap();
    assert!(body.expect("complete") == whole);

    // Never an end of it: the connection is cut in the end.
    for after in [0, 50] {
        site.upstream.set_fault(Target::Rootfs, Some(Fault::CutAfter(after)), None);
        fetch(&bridge, ROOTFS).await.expect_err("cut");
    }
}

#[tokio::test]
async fn bytes_of_two_builds_are_never_in_one_answer() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    for fault in [Fault::ChangeBuildAfter(1_000_000), Fault::CutAfter(1_000_000)] {
        let old = expected(&site, Target::Rootfs);
        let change = matches!(fault, Fault::CutAfter(_));
        site.upstream.set_fault(Target::Rootfs, Some(fault), Some(1));
        let transfer = async {
            let response = bridge.send(Method::GET, ROOTFS, &[]).await;
            if change {
                // The cut has happened, or will: the next request finds another build of the same length.
                site.upstream.new_build();
            }
            let mut body = Vec::new();
            let mut stream = response.bytes_stream();
            while let Some(Ok(piece)) = stream.next().await {
                body.extend_from_slice(&piece);
            }
            body
        };
        let body = transfer.await;
        assert!(body.len() < old.len() && body == old[..body.len()], "{} bytes", body.len());
        eventually("it says why", Duration::from_secs(1), async || {
            bridge.log().contains("another build now")
        })
        .await;
        let new = expected(&site, Target::Rootfs);
        assert!(
            new != old && fetch(&bridge, ROOTFS).await.expect("complete") == new,
            "the next answer is all new"
        );
    }
}

#[tokio::test]
async fn an_upstream_error_is_a_status_before_the_first_byte() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    for (path, target) in [(KERNEL, Target::Kernel), (INITRD, Target::Initrd), (ROOTFS, Target::Rootfs)] {
        for (fault, status, problem) in [
            (Fault::Status(401), 503, "upstream-unavailable"),
            (Fault::Status(404), 503, "upstream-unavailable"),
            (Fault::Status(500), 503, "upstream-unavailable"),
            (Fault::Status(503), 503, "upstream-unavailable"),
            (
                Fault::Redirect("http://localhost:1/other".to_owned()),
                502,
                "upstream-redirect",
            ),
        ] {
            let name = format!("{path} {fault:?}");
            site.upstream.set_fault(target, Some(fault), None);
            for method in [Method::GET, Method::HEAD] {
                let answer = bridge.ask(method.clone(), path, &[]).await;
                assert_eq!(
                    (answer.status.as_u16(), answer.header("retry-after")),
                    (status, "5"),
                    "{name}"
                );
                if method == Method::GET {
                    assert_eq!(answer.problem(), problem, "{name}");
                    assert!(
                        !answer.text().contains("api_key") && !answer.text().contains("127.0.0.1"),
                        "{}",
                        answer.text()
                    );
                }
            }
        }
        site.upstream.set_fault(target, Some(Fault::WrongLength(1000)), Some(1));
        let short = fetch(&bridge, path).await;
        assert!(short.is_err(), "{path}: fewer bytes than announced are no complete answer");
        site.upstream.set_fault(target, None, None);
        assert!(fetch(&bridge, path).await.is_ok(), "{path}: it heals");
    }
}

#[tokio::test]
async fn a_stalled_upstream_is_given_up_and_resumed() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let whole = expected(&site, Target::Rootfs);
    site.upstream
        .set_fault(Target::Rootfs, Some(Fault::StallAfter(1_000_000)), Some(1));
    let start = Instant::now();
    assert!(fetch(&bridge, ROOTFS).await.expect("complete") == whole);
    let took = start.elapsed();
    assert!(took > Duration::from_secs(10) && took < Duration::from_secs(40), "{took:?}");
    site.upstream.set_fault(
        Target::Kernel,
        Some(Fault::Slow {
            bytes_per_second: 150_000,
        }),
        Some(1),
    );
    assert_eq!(fetch(&bridge, KERNEL).await.expect("slow is not broken").len(), 300_000);
}

#[tokio::test]
async fn many_slow_readers_hold_no_memory() {
    let site = Site::with(Options {
        rootfs: Content::random(400_000_000, 3),
        ..Options::default()
    })
    .await;
    site.environment("a", "lab", "{}", false);
    let bridge = site.bridge(&[]).await;
    let (before, _) = bridge.memory();
    let mut readers = Vec::new();
    for _ in 0..16 {
        let mut stream = bridge.send(Method::GET, ROOTFS, &[]).await.bytes_stream();
        stream.next().await.unwrap().unwrap();
        readers.push(stream);
    }
    // Left alone for a while, nothing may pile up in the bridge.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (now, highest) = bridge.memory();
    println!("memory with 16 readers that take nothing: {now} MiB, highest {highest} MiB, before {before} MiB");
    assert!(highest < before + 64, "{before} -> {highest} MiB");
    drop(readers);
    eventually(
        "transfers of clients that left are dropped",
        Duration::from_secs(5),
        async || {
            bridge
                .metrics()
                .await
                .contains("ipxe_bridge_transfers_total{kind=\"rootfs\",outcome=\"left\"} 16")
        },
    )
    .await;
}
