//! What bounds a server: connections, heads, stalled readers, its own end; certificates; secrets.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use reqwest::Method;

use crate::support::bridge::{command, eventually};
use crate::support::site::Site;
use crate::upstream_service::{Content, Fault, Options, Target};

const SCRIPT: &str = "/ipxe-mac-boot/52:54:00:cc:00:01";

/// What the server says to these bytes until it closes the connection or has said enough.
fn raw(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that has heard enough may close before everything was sent.
    let _ = stream.write_all(bytes);
    let mut answer = vec![0; 64 * 1024];
    let mut length = 0;
    while let Ok(more) = stream.read(&mut answer[length..]) {
        length += more;
        if more == 0 || length == answer.len() || answer[..length].windows(2).any(|two| two == b"}\n") {
            break;
        }
    }
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_line_of_64_kib_is_answered() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let frame = "GET / HTTP/1.1\r\n".len();
    let line = format!("GET /{} HTTP/1.1\r\n", "a".repeat(64 * 1024 - frame));
    assert_eq!(line.len(), 64 * 1024);
    let answer = raw(
        bridge.port(),
        format!("{line}Host: x\r\nConnection: close\r\n\r\n").as_bytes(),
    );
    assert!(
        answer.starts_with("HTTP/1.1 414 ") && answer.contains("urn:ipxe-bridge:problem:target-too-long"),
        "{answer:.300}"
    );
    // Beyond what is read at all the answer has no body, but it is one.
    let answer = raw(
        bridge.port(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(300_000)).as_bytes(),
    );
    assert!(
        answer.starts_with("HTTP/1.1 414 ") || answer.starts_with("HTTP/1.1 431 "),
        "{answer:.300}"
    );
    let headers = "X: y\r\n".repeat(30_000);
    let answer = raw(
        bridge.port(),
        format!("GET / HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:.300}");
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01"[..],
        b"GET\r\n\r\n",
        b"\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = raw(bridge.port(), &[garbage, b"\r\n\r\n"].concat());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer:.300}");
    }
    assert_eq!(bridge.get(SCRIPT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_hinder_nobody_for_long() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let (before, _) = bridge.memory();
    let mut idle = Vec::new();
    for _ in 0..10_000 {
        match TcpStream::connect_timeout(&([127, 0, 0, 1], bridge.port()).into(), Duration::from_secs(15)) {
            Ok(stream) => idle.push(stream),
            Err(error) => panic!("after {} connections: {error}", idle.len()),
        }
    }
    let start = Instant::now();
    let answer = bridge.get(SCRIPT).await;
    let (took, (now, _)) = (start.elapsed(), bridge.memory());
    println!("with 10,000 idle connections: a script after {took:?}, {now} MiB, {before} MiB before");
    // The first 4,096 are dropped as idle after ten seconds, then it is the next ones' turn.
    assert!(answer.status == 200 && took < Duration::from_secs(45), "{took:?}");
    assert!(now < before + 150, "{now} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_stalled_clients_are_dropped() {
    let site = Site::with(Options {
        rootfs: Content::random(64_000_000, 3),
        ..Options::default()
    })
    .await;
    site.environment("a", "lab", "{}", false);
    let bridge = site.bridge(&["--stall-timeout", "2s"]).await;
    let half = tokio::task::spawn_blocking({
        let port = bridge.port();
        move || {
            let start = Instant::now();
            let answer = raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n");
            (answer, start.elapsed())
        }
    });
    let mut reader = bridge
        .send(Method::GET, "/boot-artifacts/rootfs/a/lab", &[])
        .await
        .bytes_stream();
    reader.next().await.unwrap().unwrap();
    eventually(
        "a reader that takes nothing is dropped",
        Duration::from_secs(10),
        async || {
            bridge
                .metrics()
                .await
                .contains("ipxe_bridge_transfers_total{kind=\"rootfs\",outcome=\"left\"} 1")
        },
    )
    .await;
    let (answer, took) = half.await.unwrap();
    assert!(
        took > Duration::from_secs(8) && took < Duration::from_secs(15),
        "{took:?} {answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_downloads_finish_within_the_limit() {
    let site = Site::start().await;
    for (drain, completes) in [("30s", true), ("1s", false)] {
        let mut bridge = site.bridge(&["--drain-timeout", drain]).await;
        site.upstream.set_fault(
            Target::Rootfs,
            Some(Fault::Slow {
                bytes_per_second: 1_000_000,
            }),
            Some(1),
        );
        let mut stream = bridge
            .send(Method::GET, "/boot-artifacts/rootfs/a/lab", &[])
            .await
            .bytes_stream();
        let mut length = stream.next().await.unwrap().unwrap().len();
        let idle = TcpStream::connect(("127.0.0.1", bridge.port())).unwrap();
        bridge.terminate();
        eventually("no new connections", Duration::from_secs(5), async || {
            TcpStream::connect(("127.0.0.1", bridge.port())).is_err()
        })
        .await;
        let cut = loop {
            match stream.next().await {
                Some(Ok(piece)) => length += piece.len(),
                Some(Err(_)) => break true,
                None => break false,
            }
        };
        assert_eq!((cut, length == 3_000_000), (!completes, completes), "{length} bytes");
        assert!(bridge.ended(Duration::from_secs(20)).await.success());
        drop(idle);
    }
}

/// Runs a start that must fail, and gives what it said.
fn refused(arguments: &[&str]) -> String {
    let output = command(&[&["server"], arguments].concat())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn wrong_settings_stop_the_start_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    for (arguments, message) in [
        (
            &["--manifests", "/nowhere"] as &[&str],
            "--manifests: /nowhere is not a folder",
        ),
        (
            &["--manifests", dir, "--host", "127.0.0.1", "--port", &port],
            "--port: cannot listen on",
        ),
        (
            &["--manifests", dir, "--tls-cert", "/nowhere", "--tls-key", "/nowhere"],
            "the certificate /nowhere cannot be read",
        ),
        (&["--manifests", dir, "--upstream-ca", "/nowhere"], "--upstream-ca: /nowhere:"),
        (&["--manifests", dir, "--kernel-arguments", "${x}"], "iPXE expands"),
        (&["--manifests", dir, "--log-level", "loud=loud"], "--log-level"),
        (
            &["--manifests", dir, "--log-level", "verbose"],
            "expected error, warn, info, debug or trace",
        ),
        (&[], "use --manifests DIR with a folder of YAML"),
    ] {
        let said = refused(arguments);
        assert!(said.contains(message), "{arguments:?}: {said}");
    }
}

#[test]
fn help_and_version_are_there() {
    for (arguments, text) in [
        (&["--version"] as &[&str], concat!("ipxe-bridge ", env!("CARGO_PKG_VERSION"))),
        (&["--help"], "server"),
        (&["server", "--help"], "IPXE_BRIDGE_MANIFESTS"),
    ] {
        let output: std::process::Output = Command::output(&mut command(arguments)).unwrap();
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains(text),
            "{arguments:?}"
        );
    }
}
