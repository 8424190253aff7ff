//! A process that is killed leaves nothing that a later one could mistake for an artifact.

use std::os::unix::fs::FileExt as _;

use super::*;

#[tokio::test]
async fn what_was_fetched_survives_a_restart_and_what_was_damaged_does_not() {
    let cached = Cached::start(3_000_000).await;
    let mut bridge = cached.bridge(&[]).await;
    for path in [KERNEL, ROOTFS] {
        fetch(&bridge, path, &[]).await.expect("complete");
    }
    filled(&bridge, 2).await;
    bridge.terminate();
    bridge.ended(Duration::from_secs(10)).await;
    cached.site.upstream.clear_log();
    let mut bridge = cached.bridge(&[]).await;
    for (path, target) in [(KERNEL, Target::Kernel), (ROOTFS, Target::Rootfs)] {
        let answer = fetch(&bridge, path, &[]).await.expect("complete");
        assert!(answer.body == cached.expected(target));
        assert_eq!(
            (answer.header("cache-status"), cached.fetched(target).0),
            ("ipxe-bridge; hit", 0)
        );
    }
    bridge.terminate();
    bridge.ended(Duration::from_secs(10)).await;

    // One file damaged, one without its bytes, one without its facts, one half done, one that is somebody else's.
    let artifacts = cached.folder.path().join("artifacts");
    let damaged = files(cached.folder.path(), "data");
    for path in &damaged {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"damage", 1000).unwrap();
    }
    let key = "0123456789abcdef0123456789abcdef";
    std::fs::write(artifacts.join(format!("{key}.1.data")), b"bytes").unwrap();
    std::fs::write(artifacts.join(format!("{key}.2.json")), b"{}").unwrap();
    std::fs::write(artifacts.join(format!("{key}.3.part")), b"bytes").unwrap();
    // A folder of that name may have had another use before.
    let others = ["notes", "report.json", "report.data", "disk.part", "a.b.data"].map(|name| artifacts.join(name));
    for path in &others {
        std::fs::write(path, b"mine").unwrap();
    }
    let bridge = cached.bridge(&[]).await;
    for (path, target) in [(KERNEL, Target::Kernel), (ROOTFS, Target::Rootfs)] {
        assert!(fetch(&bridge, path, &[]).await.expect("complete").body == cached.expected(target));
        assert_eq!(cached.fetched(target).0, 1, "fetched again");
    }
    filled(&bridge, 2).await;
    eventually("leftovers are gone", Duration::from_secs(3), async || {
        let left = std::fs::read_dir(&artifacts).unwrap().count();
        left == 2 * 2 + others.len()
    })
    .await;
    assert!(damaged.iter().all(|path| !path.exists()) && others.iter().all(|path| path.exists()));
    let metrics = bridge.metrics().await;
    assert!(metrics.contains("ipxe_bridge_cache_damaged_files_total 2"), "{metrics}");
}

/// 200 processes are killed, each at another moment of a fill, and every answer in between is right.
#[tokio::test]
async fn two_hundred_kills_at_any_moment_of_a_fill_leave_only_right_answers() {
    let cached = Cached::start(4_000_000).await;
    let (kernel, rootfs) = (cached.expected(Target::Kernel), cached.expected(Target::Rootfs));
    // Whatever a former process left, the answer is either all of it or cut short by the kill.
    let is_right = |answer: Result<Answer, Vec<u8>>, whole: &[u8]| match answer {
        Ok(answer) => assert!(answer.status == 200 && answer.body == whole, "{}", answer.status),
        Err(begin) => assert!(begin == whole[..begin.len()]),
    };
    let mut seed = 11;
    let (mut kept, mut cut) = (0, 0);
    for round in 0..200 {
        // Some fills end before the kill, most do not; in every third round a new build is the cause of a new fill.
        cached.slow(Target::Rootfs, 8_000_000 + number(&mut seed, 40_000_000));
        if round % 3 == 0 {
            std::fs::remove_dir_all(cached.folder.path().join("artifacts")).ok();
        }
        let bridge = cached.bridge(&["--log-level", "info"]).await;
        kept += files(cached.folder.path(), "json").len();
        let pid = rustix::process::Pid::from_raw(i32::try_from(bridge.pid()).unwrap()).unwrap();
        let pause = Duration::from_millis(number(&mut seed, 250));
        let kill = async {
            tokio::time::sleep(pause).await;
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        };
        let answers = async {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            for (path, whole) in [(KERNEL, &kernel), (ROOTFS, &rootfs)] {
                // The request itself may find nobody any more.
                let Ok(response) = client.get(format!("{}{path}", bridge.url)).send().await else {
                    return false;
                };
                let (status, headers) = (response.status(), response.headers().clone());
                let mut body = Vec::new();
                let mut stream = response.bytes_stream();
                while let Some(Ok(piece)) = stream.next().await {
                    body.extend_from_slice(&piece);
                }
                let is_whole = body.len() == whole.len();
                is_right(
                    if is_whole {
                        Ok(Answer { status, headers, body })
                    } else {
                        Err(body)
                    },
                    whole,
                );
                if !is_whole {
                    return false;
                }
            }
            true
        };
        let ((), all) = futures::join!(kill, answers);
        cut += usize::from(!all);
    }
    println!("200 kills: {cut} in the middle of an answer, {kept} artifacts found whole by a later process");
    assert!(cut > 20 && kept > 20, "the kills did not hit what they should: {cut}, {kept}");
    cached.well(Target::Rootfs);
    let bridge = cached.bridge(&[]).await;
    is_right(fetch(&bridge, KERNEL, &[]).await, &kernel);
    is_right(fetch(&bridge, ROOTFS, &[]).await, &rootfs);
    filled(&bridge, 2).await;
    assert!(files(cached.folder.path(), "part").is_empty());
}
