//! What the server says: never a secret, and spans to whoever collects them.

use std::path::Path;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::Method;

use crate::support::bridge::{Bridge, eventually};
use crate::support::collector::{Collector, Span};
use crate::support::site::{Site, TOKEN_MARKER};
use crate::upstream_service::{Fault, INTERNAL_URL, SECRET_MARKER, Target};

const SCRIPT: &str = "/ipxe-mac-boot/52:54:00:cc:00:01";

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_upstream_is_in_any_output() {
    let site = Site::start().await;
    site.environment("c", "odd", "{}", false);
    site.host("c", "n9", "52:54:00:cc:00:09", Some("odd"));
    // What a machine is handed over to is in its script, and shown without user, password and query everywhere else.
    let chained = "52:54:00:cc:00:0a";
    site.write("chain.yaml", &format!("apiVersion: ipxe-bridge.io/v1alpha1\nkind: IpxeHostOverride\nmetadata: {{name: chain, namespace: a}}\nspec:\n  macAddresses: ['{chained}']\n  chain: https://{TOKEN_MARKER}:{TOKEN_MARKER}@other.example.com/next.ipxe?api_key={TOKEN_MARKER}\n"));
    let bridge = site.bridge(&["--log-level", "trace"]).await;
    let script = bridge.script(chained).await;
    assert!(script.contains(&format!("next.ipxe?api_key={TOKEN_MARKER}")), "{script}");
    let mut said = String::new();
    let faults = [
        None,
        Some(Fault::Status(401)),
        Some(Fault::Status(404)),
        Some(Fault::Status(500)),
        Some(Fault::CutAfter(50)),
        Some(Fault::Redirect(format!("http://127.0.0.1:1/x?api_key={TOKEN_MARKER}"))),
        Some(Fault::Body(
            format!("{{\"reason\":\"IPXE booting skipped. see http://x/?api_key={TOKEN_MARKER}\"}}").into(),
        )),
        Some(Fault::Body(
            format!("#!ipxe\nkernel http://x?api_key={TOKEN_MARKER}\n").into(),
        )),
    ];
    for fault in faults {
        for target in [Target::Script, Target::Kernel, Target::Initrd, Target::Rootfs] {
            site.upstream.set_fault(target, fault.clone(), None);
        }
        for path in [
            "/",
            "/inventory",
            "/ipxe-boot",
            "/boot.ipxe",
            "/openapi.json",
            "/readyz",
            "/boots",
            "/boots/52:54:00:cc:00:01",
            "/boots/52:54:00:cc:00:0a",
            "/hosts/52:54:00:cc:00:01",
            SCRIPT,
            "/ipxe-mac-boot/52:54:00:cc:00:02",
            "/ipxe-mac-boot/52:54:00:cc:00:09",
            "/ipxe-mac-boot/52:54:00:ff:00:01",
            "/explain/52:54:00:cc:00:01",
            "/explain/52:54:00:cc:00:02",
            "/ipxe-mac-proxy/52:54:00:cc:00:01",
            "/boot-artifacts/ipxeScript/a/lab",
            "/boot-artifacts/kernel/lab",
        ] {
            let answer = bridge.get(path).await;
            said.push_str(&format!("{path} {:?} {}\n", answer.headers, answer.text()));
        }
        for path in [
            "/boot-artifacts/kernel/a/lab",
            "/boot-artifacts/initrd/a/lab",
            "/boot-artifacts/rootfs/b/lab",
        ] {
            let response = bridge.send(Method::GET, path, &[]).await;
            let (status, headers) = (response.status(), response.headers().clone());
            let body = response.bytes().await.unwrap_or_default();
            said.push_str(&format!("{path} {headers:?}\n"));
            if status != 200 {
                said.push_str(&String::from_utf8_lossy(&body));
            }
        }
    }
    // Objects that cannot be used are reported too.
    site.write("bad.yaml", &format!("apiVersion: metal3.io/v1alpha1\nkind: BareMetalHost\nmetadata: {{name: x}}\nspec: {{bootMACAddress: [http://x/?api_key={TOKEN_MARKER}]}}\n"));
    let env = site
        .infra_env("c", "odd", "{}", false)
        .replace("    kernel: http", "    kernel: ftp");
    site.write("env-c-odd.yaml", &env);
    site.write("broken.yaml", &format!("x: [http://x/?api_key={TOKEN_MARKER}\n"));
    site.write(
        "doubled.yaml",
        &format!("http://x/?api_key={TOKEN_MARKER}: 1\nhttp://x/?api_key={TOKEN_MARKER}: 2\n"),
    );
    site.write("text.yaml", &format!("apiVersion: agent-install.openshift.io/v1beta1\nkind: InfraEnv\nmetadata: {{name: t}}\nstatus: {{bootArtifacts: \"http://x/?api_key={TOKEN_MARKER}\"}}\n"));
    eventually("they are", Duration::from_secs(2), async || {
        bridge.get("/inventory").await.json()["skipped"].as_array().unwrap().len() == 4
    })
    .await;
    said.push_str(bridge.get("/inventory").await.text());
    said.push_str(&bridge.metrics().await);
    let peer = reqwest::Client::builder().no_proxy().build().unwrap();
    let seen = peer
        .get(format!("{}/boots-seen-here?since=0", bridge.metrics_url))
        .send()
        .await
        .unwrap();
    said.push_str(&seen.text().await.unwrap());
    let mut stream = bridge.send(Method::GET, "/boots/stream", &[]).await;
    while !said.contains("data: ") {
        let piece = tokio::time::timeout(Duration::from_secs(5), stream.chunk()).await.unwrap();
        said.push_str(std::str::from_utf8(&piece.unwrap().unwrap()).unwrap());
    }
    let handed_over = "hands over to https://other.example.com/next.ipxe\"";
    assert!(said.contains(handed_over), "the reason is there without its secrets");
    said.push_str(&bridge.log());
    let upstream_port = site.upstream.addr().port().to_string();
    for secret in [
        TOKEN_MARKER,
        "api_key=",
        SECRET_MARKER,
        INTERNAL_URL,
        "pull-secret",
        &format!(":{upstream_port}"),
    ] {
        if let Some(at) = said.find(secret) {
            let start = said.floor_char_boundary(at.saturating_sub(300));
            panic!(
                "{secret} is in the output: …{}",
                &said[start..said.floor_char_boundary(at + 100)]
            );
        }
    }
    // Libraries that are asked to say everything say where they connect to, but no token either.
    let folder = tempfile::tempdir().unwrap();
    let cache = ["--cache-dir", folder.path().to_str().unwrap()];
    let loud = site
        .bridge(&[&["--log-level", "trace,hyper=trace"], &cache[..]].concat())
        .await;
    for target in [Target::Script, Target::Kernel, Target::Initrd] {
        site.upstream.set_fault(target, None, None);
    }
    for path in [SCRIPT, "/boot-artifacts/initrd/a/lab", "/boot-artifacts/kernel/a/lab"] {
        assert_eq!(loud.get(path).await.status, 200, "{path}");
    }
    let (log, cache) = (loud.log(), loud.get("/cache").await);
    assert!(log.contains("reqwest"), "libraries are loud");
    assert!(cache.text().contains("4.16"), "{}", cache.text());
    for secret in [TOKEN_MARKER, SECRET_MARKER, "api_key="] {
        assert!(!log.contains(secret) && !cache.text().contains(secret), "{secret}");
    }
    // The search can fail: where it was asked for, the token is there.
    let open = site.bridge(&["--script-proxy"]).await;
    site.upstream.set_fault(Target::Script, None, None);
    assert!(
        open.get("/ipxe-mac-proxy/52:54:00:cc:00:01")
            .await
            .text()
            .contains(TOKEN_MARKER)
    );
}

#[tokio::test]
async fn a_dead_collector_costs_nothing_and_a_live_one_gets_spans() {
    let site = Site::start().await;
    let folder = site.path().to_str().unwrap().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let mut bridge = Bridge::start_with(
        &["--manifests", &folder],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ],
    )
    .await;
    bridge.wait_ready().await;
    bridge.get(SCRIPT).await;
    let (mut stream, _) = tokio::time::timeout(Duration::from_secs(10), listener.accept())
        .await
        .unwrap()
        .unwrap();
    let mut request = vec![0; 4096];
    let length = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await.unwrap();
    assert!(
        String::from_utf8_lossy(&request[..length]).starts_with("POST /v1/traces HTTP/1.1"),
        "{:?}",
        &request[..length]
    );
    drop((stream, listener));
    assert_eq!(bridge.get(SCRIPT).await.status, 200);
    bridge.terminate();
    assert!(bridge.ended(Duration::from_secs(10)).await.success());
}

#[tokio::test]
async fn export_is_off_where_a_variable_says_so() {
    let site = Site::start().await;
    let folder = site.path().to_str().unwrap().to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    for off in [
        Some(("OTEL_SDK_DISABLED", "true")),
        Some(("OTEL_TRACES_EXPORTER", "none")),
        None,
    ] {
        let mut variables = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ];
        variables.extend(off);
        let mut bridge = Bridge::start_with(&["--manifests", &folder], &variables).await;
        bridge.wait_ready().await;
        assert_eq!(bridge.get(SCRIPT).await.status, 200);
        // What is left is exported at the end.
        bridge.terminate();
        bridge.ended(Duration::from_secs(10)).await;
        let asked = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
        assert_eq!(asked.is_ok(), off.is_none(), "{off:?}");
    }
}

/// Writes a certificate of the CA and its key; those of the CA itself if there is none yet.
fn certified(folder: &Path, name: &str, issuer: Option<&Issuer<'static, KeyPair>>) -> Issuer<'static, KeyPair> {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if issuer.is_none() {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let key = KeyPair::generate().unwrap();
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    Issuer::new(params, key)
}

#[tokio::test]
async fn a_collector_and_the_bridge_know_each_other_by_their_certificates() {
    let certificates = tempfile::tempdir().unwrap();
    let folder = certificates.path();
    let authority = certified(folder, "ca", None);
    certified(folder, "server", Some(&authority));
    certified(folder, "bridge", Some(&authority));
    let Some(collector) = Collector::start_with_tls(folder).await else {
        return;
    };
    let site = Site::start().await;
    let manifests = site.path().to_str().unwrap().to_owned();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    for protocol in ["http/protobuf", "grpc"] {
        for is_known in [false, true] {
            let name = format!("{protocol} {is_known}");
            let mut variables = collector.variables(protocol);
            variables.push(("OTEL_SERVICE_NAME", name.clone()));
            variables.push(("OTEL_EXPORTER_OTLP_CERTIFICATE", path("ca.crt")));
            if is_known {
                variables.push(("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", path("bridge.crt")));
                variables.push(("OTEL_EXPORTER_OTLP_CLIENT_KEY", path("bridge.key")));
            }
            let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let mut bridge = Bridge::start_with(&["--manifests", &manifests], &variables).await;
            bridge.wait_ready().await;
            assert_eq!(bridge.get(SCRIPT).await.status, 200);
            // What is left is exported at the end.
            bridge.terminate();
            assert!(bridge.ended(Duration::from_secs(10)).await.success());
            let has_come = |spans: &[Span]| spans.iter().any(|span| span.resource.get("service.name") == Some(&name));
            match is_known {
                true => _ = collector.until("its spans arrive", has_come).await,
                false => assert!(!has_come(&collector.spans()), "{name}"),
            }
        }
    }
}

#[tokio::test]
async fn half_an_identity_for_the_collector_is_refused_at_the_start() {
    let certificates = tempfile::tempdir().unwrap();
    certified(certificates.path(), "ca", None);
    let site = Site::start().await;
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ipxe-bridge"))
        .args(["server", "--manifests", site.path().to_str().unwrap()])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.path().join("ca.key"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("expected both, or neither"),
        "{said}"
    );
}
