//! What a real OpenTelemetry Collector gets to see of boots.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::net::{TcpListener, TcpStream};

use crate::boots::{CONSOLE, boot, site as real_site};
use crate::observability::{MAC, SECRET, files, keys};
use crate::support::bridge::{Bridge, eventually};
use crate::support::collector::{Collector, Span};
use crate::support::qemu::{Firmware, Guest, HOST};
use crate::support::site::{Site, TOKEN_MARKER};
use crate::upstream_service::{Fault, SECRET_MARKER, Target};

const SECOND: Duration = Duration::from_secs(1);

/// A server on a site that exports to a collector.
async fn traced(site: &Site, collector: &Collector, protocol: &str, arguments: &[&str], more: &[(&str, &str)]) -> Bridge {
    let folder = site.path().to_str().unwrap();
    let variables = collector.variables(protocol);
    let mut all: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    all.extend(more);
    let bridge = Bridge::start_with(&[&["--manifests", folder], arguments].concat(), &all).await;
    bridge.wait_ready().await;
    bridge
}

fn named<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[track_caller]
fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = named(spans, name);
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

const SCRIPT: &str = "GET /ipxe-mac-boot/{mac}";

/// Spans of one trace.
fn of_trace(spans: &[Span], trace: &str) -> Vec<Span> {
    spans.iter().filter(|span| span.trace == trace).cloned().collect()
}

#[tokio::test]
async fn a_boot_is_one_trace_and_a_fill_is_one_of_its_own_linked_with_it_both_ways() {
    let Some(collector) = Collector::start().await else { return };
    let site = Site::start().await;
    let (keys, cache) = (keys("1", SECRET, 3600), tempfile::tempdir().unwrap());
    let folder = keys.path().to_str().unwrap();
    let plain = traced(&site, &collector, "http/protobuf", &["--boot-keys", folder], &[]).await;
    let with_cache = ["--boot-keys", folder, "--cache-dir", cache.path().to_str().unwrap()];
    let cached = traced(&site, &collector, "grpc", &with_cache, &[("OTEL_SERVICE_NAME", "cached")]).await;
    let told = jiff::Timestamp::now().as_millisecond() - 12_000;
    let asked = plain
        .get(&format!("/ipxe-mac-boot/{MAC}?way={told:x}-t-3100-240-173792"))
        .await;
    let [kernel, initrd, rootfs] = files(asked.text());
    assert_eq!(plain.get(&kernel).await.status, 200);
    assert_eq!(plain.get(&initrd).await.status, 200);
    assert_eq!(cached.ask(Method::HEAD, &rootfs, &[]).await.status, 200);
    assert_eq!(cached.get(&rootfs).await.status, 200);
    eventually("the fill is over", SECOND * 10, async || {
        cached
            .ask(Method::HEAD, &rootfs, &[])
            .await
            .header("cache-status")
            .ends_with(" hit")
    })
    .await;
    assert_eq!(cached.get(&rootfs).await.status, 200);

    let spans = collector
        .until("all of it arrived", |spans| {
            named(spans, "send rootfs").len() == 2
                && named(spans, "send kernel").len() == 1
                && named(spans, "send initrd").len() == 1
                && named(spans, "fill cache with rootfs").len() == 1
                && named(spans, SCRIPT).len() == 1
        })
        .await;
    let script = one(&spans, SCRIPT);
    assert_eq!((script.parent.as_str(), script.kind), ("", 2));
    let before = [
        ("told by DHCP what to fetch", told),
        ("asks for its boot program", told + 3100),
        ("has its boot program", told + 3340),
    ];
    assert_eq!(script.events[..3], before.map(|(name, at)| (name.to_owned(), at)));
    for (name, value) in [
        ("ipxe_bridge.mac", MAC),
        ("ipxe_bridge.rule", "BareMetalHost"),
        ("ipxe_bridge.boots", "Environment"),
        ("ipxe_bridge.reason", "BareMetalHost a/n1 wants InfraEnv a/lab"),
        ("http.response.status_code", "200"),
        ("url.path", "/ipxe-mac-boot/52:54:00:cc:00:01"),
        ("error.type", ""),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(script.get(name), value, "{name}");
    }
    assert_eq!(script.resource["service.name"], "ipxe-bridge");
    assert_eq!(script.resource["service.version"], env!("CARGO_PKG_VERSION"));
    let boot = of_trace(&spans, &script.trace);
    let lengths = [("kernel", 300_000), ("rootfs", 3_000_000)];
    for (kind, length) in lengths {
        for send in named(&boot, &format!("send {kind}")) {
            assert_eq!(send.get("ipxe_bridge.bytes"), length.to_string());
            assert_eq!(
                (send.get("ipxe_bridge.outcome"), send.get("ipxe_bridge.mac")),
                ("complete", MAC)
            );
            let request = boot.iter().find(|span| span.id == send.parent).unwrap();
            assert_eq!(
                (request.name.as_str(), request.kind),
                ("GET /boot-artifacts/{kind}/{namespace}/{name}", 2)
            );
            assert_eq!(request.parent, script.id, "requests are below the script");
        }
    }
    let initrd = one(&boot, "send initrd");
    assert_eq!((initrd.get("ipxe_bridge.cache"), initrd.status), ("", 0));
    // The requests to upstream are below what asked for them: the script's, kernel's and initrd's.
    let upstream: Vec<&Span> = boot.iter().filter(|span| span.kind == 3).collect();
    assert!(upstream.len() >= 3, "{upstream:#?}");
    for span in &upstream {
        assert!(
            boot.iter().any(|other| other.id == span.parent && other.kind == 2),
            "{span:?}"
        );
        assert!(
            !span.get("url.full").contains(TOKEN_MARKER) && span.get("url.full").starts_with("http"),
            "{span:?}"
        );
    }
    assert!(boot.iter().any(|span| span.name.starts_with("HEAD /boot-artifacts/")));

    let fill = one(&spans, "fill cache with rootfs");
    assert_ne!(fill.trace, script.trace);
    assert_eq!((fill.parent.as_str(), fill.get("ipxe_bridge.outcome")), ("", "complete"));
    assert_eq!(fill.get("ipxe_bridge.bytes"), "3000000");
    assert_eq!(fill.resource["service.name"], "cached");
    let sends = named(&boot, "send rootfs");
    let filling: Vec<_> = sends.iter().filter(|send| send.get("ipxe_bridge.cache") == "fill").collect();
    let hits: Vec<_> = sends.iter().filter(|send| send.get("ipxe_bridge.cache") == "hit").collect();
    assert_eq!((filling.len(), hits.len()), (1, 1), "{sends:#?}");
    assert_eq!(filling[0].links, [(fill.trace.clone(), fill.id.clone())]);
    assert!(hits[0].links.is_empty());
    assert!(
        fill.links
            .iter()
            .any(|(trace, span)| *trace == script.trace && *span == filling[0].parent),
        "{fill:?}"
    );
    let said = format!("{spans:?}");
    for secret in [TOKEN_MARKER, SECRET_MARKER, "api_key"] {
        assert!(!said.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn what_a_machine_leaves_or_upstream_breaks_is_told_in_its_span_with_the_time_of_the_body() {
    let Some(collector) = Collector::start().await else { return };
    let site = Site::start().await;
    let bridge = traced(&site, &collector, "grpc", &["--connection-rate-limit", "1M"], &[]).await;
    let [kernel, initrd, rootfs] = files(&bridge.script(MAC).await);
    // 300 kB at 1 MB/s.
    assert_eq!(bridge.get(&kernel).await.status, 200);
    let mut response = bridge.send(Method::GET, &rootfs, &[]).await;
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    site.upstream.set_fault(Target::Initrd, Some(Fault::CutAfter(100_000)), None);
    assert!(bridge.send(Method::GET, &initrd, &[]).await.bytes().await.is_err());
    site.upstream.set_fault(Target::Kernel, Some(Fault::Status(500)), None);
    assert_eq!(bridge.get(&kernel).await.status, 503);

    let spans = collector
        .until("the ends arrived", |spans| {
            ["send kernel", "send initrd", "send rootfs"]
                .iter()
                .all(|name| named(spans, name).len() == 1)
                && spans.iter().any(|span| span.get("http.response.status_code") == "503")
        })
        .await;
    let kernel = one(&spans, "send kernel");
    assert!(
        kernel.seconds > 0.1 && kernel.seconds < 10.0,
        "the body takes longer than the head: {kernel:?}"
    );
    assert_eq!((kernel.get("ipxe_bridge.outcome"), kernel.status), ("complete", 0));
    let left = one(&spans, "send rootfs");
    let bytes: u64 = left.get("ipxe_bridge.bytes").parse().unwrap();
    assert_eq!((left.get("ipxe_bridge.outcome"), left.status), ("left", 0));
    assert!(bytes > 0 && bytes < 3_000_000, "{bytes}");
    let broken = one(&spans, "send initrd");
    assert_eq!((broken.get("ipxe_bridge.outcome"), broken.status), ("broken", 2));
    let refused = spans
        .iter()
        .find(|span| span.get("http.response.status_code") == "503")
        .unwrap();
    assert_eq!((refused.status, refused.kind, refused.get("error.type")), (2, 2, "503"));
    let trace = &one(&spans, SCRIPT).trace;
    assert!([kernel, left, broken, refused].iter().all(|span| span.trace == *trace));
}

#[tokio::test]
async fn a_trace_of_a_client_is_joined_unless_the_address_holds_an_id() {
    let Some(collector) = Collector::start().await else { return };
    let site = Site::start().await;
    let bridge = traced(&site, &collector, "http/protobuf", &[], &[]).await;
    let theirs = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{}-{}-01", theirs.0, theirs.1);
    let script = bridge
        .ask(
            Method::GET,
            &format!("/ipxe-mac-boot/{MAC}"),
            &[("traceparent", &traceparent)],
        )
        .await;
    assert_eq!(bridge.get("/boots").await.json()[0]["trace"], theirs.0);
    let [kernel, initrd, rootfs] = files(script.text());
    let foreign = format!("00-{}-{}-01", "1".repeat(32), "2".repeat(16));
    bridge.ask(Method::GET, &kernel, &[("traceparent", &foreign)]).await;
    let (plain, _) = initrd.split_once('?').unwrap();
    bridge.ask(Method::GET, plain, &[("traceparent", &foreign)]).await;
    let (plain, id) = rootfs.split_once('?').unwrap();
    bridge.get(&format!("{plain}?{}", id.replace("b=", "b=A"))).await;
    bridge.ask(Method::GET, plain, &[("traceparent", "nonsense")]).await;
    let spans = collector
        .until("all arrived", |spans| {
            named(spans, "send kernel").len() + named(spans, "send initrd").len() + named(spans, "send rootfs").len() == 4
        })
        .await;
    let script = one(&spans, SCRIPT);
    assert_eq!((script.trace.as_str(), script.parent.as_str()), theirs);
    assert_eq!(one(&spans, "send kernel").trace, theirs.0);
    assert_eq!(one(&spans, "send initrd").trace, "1".repeat(32));
    let own: Vec<&str> = named(&spans, "send rootfs").iter().map(|span| span.trace.as_str()).collect();
    assert!(
        own[0] != own[1] && own.iter().all(|trace| *trace != theirs.0),
        "traces of their own: {own:?}"
    );
}

#[tokio::test]
async fn a_boot_is_sampled_whole_or_not_at_all_on_every_replica() {
    let Some(collector) = Collector::start().await else { return };
    let site = Site::start().await;
    let keys = keys("1", SECRET, 3600);
    let arguments = ["--boot-keys", keys.path().to_str().unwrap()];
    let half = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ];
    let one = traced(&site, &collector, "grpc", &arguments, &half).await;
    let two = traced(&site, &collector, "http/protobuf", &arguments, &half).await;
    let boots = 40;
    for _ in 0..boots {
        let [kernel, ..] = files(&one.script(MAC).await);
        assert_eq!(two.get(&kernel).await.status, 200);
    }
    // What comes last is sampled, so that all before it arrived with it.
    let always = format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16));
    for bridge in [&one, &two] {
        bridge.ask(Method::GET, "/livez", &[("traceparent", &always)]).await;
    }
    let spans = collector
        .until("the last one", |spans| {
            spans
                .iter()
                .filter(|span| span.name == "GET /livez" && span.trace.starts_with("aaaa"))
                .count()
                == 2
        })
        .await;
    let scripts = named(&spans, SCRIPT);
    assert!(scripts.len() > 4 && scripts.len() < boots - 4, "{} of {boots}", scripts.len());
    let sends = named(&spans, "send kernel");
    assert_eq!(sends.len(), scripts.len());
    for send in sends {
        assert!(scripts.iter().any(|script| script.trace == send.trace));
    }
    // The timeline does not depend on it.
    assert_eq!(two.get(&format!("/boots/{MAC}")).await.json().as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn a_collector_that_is_silent_or_away_costs_nothing() {
    let site = Site::start().await;
    let folder = site.path().to_str().unwrap().to_owned();
    // It takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    for (endpoint, protocol) in [
        (silent.as_str(), "grpc"),
        (silent.as_str(), "http/protobuf"),
        ("http://127.0.0.1:1", "grpc"),
        ("http://127.0.0.1:1", "http/protobuf"),
    ] {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "64"),
        ];
        let mut bridge = Bridge::start_with(&["--manifests", &folder, "--log-level", "info"], &variables).await;
        bridge.wait_ready().await;
        let before = bridge.memory().0;
        let start = std::time::Instant::now();
        for _ in 0..300 {
            assert_eq!(bridge.get("/ipxe-mac-boot/52-54-00-cc-00-01").await.status, 200);
        }
        assert!(start.elapsed() < SECOND * 10, "{endpoint} {protocol}: {:?}", start.elapsed());
        assert!(
            bridge.memory().0 < before + 30,
            "{before} MiB before, {} after",
            bridge.memory().0
        );
        let warnings = bridge
            .log()
            .lines()
            .filter(|line| line.contains("WARN") || line.contains("ERROR"))
            .count();
        assert!(warnings <= 20, "{warnings} lines about it: {}", bridge.log());
        bridge.terminate();
        assert!(bridge.ended(SECOND * 5).await.success(), "{endpoint} {protocol}");
    }
}

/// Passes each connection to the next of these ports.
async fn balancer(ports: Vec<u16>) -> u16 {
    let listener = TcpListener::bind((HOST_SIDE, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let ports = Arc::new(ports);
        for turn in 0.. {
            let (mut machine, _) = listener.accept().await.unwrap();
            let port = ports[turn % ports.len()];
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut machine, &mut server).await;
            });
        }
    });
    port
}

/// Where QEMU's user network ends.
const HOST_SIDE: &str = "127.0.0.1";

#[tokio::test(flavor = "multi_thread")]
async fn the_boot_of_a_real_machine_over_two_replicas_is_one_trace() {
    let Some(site) = real_site().await else { return };
    let Some(collector) = Collector::start().await else { return };
    let keys = keys("1", SECRET, 3600);
    let common = ["--boot-keys", keys.path().to_str().unwrap()];
    let (first, second) = (crate::support::free_port(), crate::support::free_port());
    let balancer = balancer(vec![first, second]).await;
    let uri = format!("http://{HOST}:{balancer}");
    let mut bridges = Vec::new();
    for (port, name) in [(first, "one"), (second, "two")] {
        let port = port.to_string();
        let arguments = [&CONSOLE[..], &common, &["--port", &port, "--uri", &uri]].concat();
        bridges.push(
            traced(
                &site,
                &collector,
                "grpc",
                &arguments,
                &[("OTEL_RESOURCE_ATTRIBUTES", &format!("service.instance.id={name}"))],
            )
            .await,
        );
    }
    let console = boot(Guest::new("traced", Firmware::Bios, MAC, &format!("{uri}/boot.ipxe"))).await;
    assert!(console.text.contains("BOOT-OK"), "{}", console.keep().display());
    let spans = collector
        .until("the root file system", |spans| named(spans, "send rootfs").len() == 1)
        .await;
    let script = one(&spans, SCRIPT);
    let boot = of_trace(&spans, &script.trace);
    for kind in ["kernel", "initrd", "rootfs"] {
        let send = one(&boot, &format!("send {kind}"));
        assert_eq!(send.get("ipxe_bridge.outcome"), "complete");
        let request = boot.iter().find(|span| span.id == send.parent).unwrap();
        assert_eq!(request.parent, script.id);
    }
    assert!(
        boot.iter().any(|span| span.name.starts_with("HEAD /boot-artifacts/")),
        "the guest asks for the headers first"
    );
    let replicas: std::collections::BTreeSet<_> = boot.iter().map(|span| span.resource["service.instance.id"].clone()).collect();
    assert_eq!(replicas.len(), 2, "both had a part in it");
    // Nothing of the boot is elsewhere.
    let strays: Vec<_> = spans
        .iter()
        .filter(|span| span.trace != script.trace && span.name.contains("artifact"))
        .collect();
    assert!(strays.is_empty(), "{strays:#?}");
}
