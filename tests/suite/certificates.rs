//! Certificates: the server's own, which change, and upstream's, which are verified.

use std::time::Duration;

use crate::support::bridge::{eventually, write};
use crate::support::site::Site;
use crate::upstream_service::Options;

const SCRIPT: &str = "/ipxe-mac-boot/52:54:00:cc:00:01";

#[tokio::test(flavor = "multi_thread")]
async fn https_beside_http_and_certificates_that_change() {
    let site = Site::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let issue = |name: &str, until: jiff::civil::Date| {
        let mut wanted = rcgen::CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let (month, day) = (until.month().unsigned_abs(), until.day().unsigned_abs());
        wanted.not_after = rcgen::date_time_ymd(until.year().into(), month, day);
        let own = rcgen::KeyPair::generate().unwrap();
        let made = wanted.self_signed(&own).unwrap();
        write(&key, own.serialize_pem());
        write(&certificate, made.pem());
        made.pem()
    };
    let second_of = |day: jiff::civil::Date| day.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
    let far = jiff::civil::date(2040, 1, 1);
    let first = issue("first.example.com", far);
    let files = [
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let bridge = site.bridge(&[&files[..], &["--tls-port", "0"]].concat()).await;
    let tls_url = bridge.tls_url.clone().unwrap();
    let trusts = async |pem: &str| {
        let ca = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().unwrap();
        client
            .get(format!("{tls_url}{SCRIPT}"))
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200)
    };
    let ends = async |day| {
        let line = format!("ipxe_bridge_certificate_expiry_timestamp_seconds {}\n", second_of(day));
        bridge.metrics().await.contains(&line)
    };
    assert!(ends(far).await, "{}", bridge.metrics().await);
    assert!(!bridge.get("/").await.text().contains("The certificate of this server"));
    assert!(
        trusts(&first).await && bridge.get(SCRIPT).await.status == 200,
        "both ports answer"
    );
    let own = reqwest::Client::builder()
        .no_proxy()
        .danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let script = own
        .get(format!("{tls_url}{SCRIPT}"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        script.contains(&format!("kernel --name kernel {tls_url}/boot-artifacts/")),
        "addresses keep the scheme: {script}"
    );

    for broken in [
        "",
        "nonsense",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        write(&certificate, broken);
        eventually("the broken one is refused", Duration::from_secs(3), async || {
            bridge.log().matches("the new certificate is not used").count() > 0
        })
        .await;
        assert!(trusts(&first).await, "the old one goes on");
    }
    let soon = jiff::Zoned::now().date() + jiff::Span::new().days(3);
    let second = issue("second.example.com", soon);
    eventually("the new one is used", Duration::from_secs(3), async || trusts(&second).await).await;
    assert!(!trusts(&first).await);
    assert!(ends(soon).await, "{}", bridge.metrics().await);
    assert!(bridge.get("/").await.text().contains("The certificate of this server"));

    let only = site.bridge(&files).await;
    assert!(
        only.url.starts_with("https://") && only.tls_url.is_some(),
        "without --tls-port the port itself is TLS"
    );
    assert_eq!(only.get(SCRIPT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn upstreams_certificate_is_verified() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let site = Site::with(Options {
        tls: Some(config.into()),
        ..Options::default()
    })
    .await;
    site.environment(
        "a",
        "lab",
        "pxe-bridge-default.infraenvs.agent-install.openshift.io: 'true'",
        false,
    );
    let bridge = site.bridge(&[]).await;
    let answer = bridge.get(SCRIPT).await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (503, "upstream-unavailable")
    );
    assert!(
        answer.detail().contains("signed by nobody this bridge trusts (--upstream-ca"),
        "{}",
        answer.detail()
    );

    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    write(&ca, other.cert.pem());
    let bridge = site.bridge(&["--upstream-ca", ca.to_str().unwrap()]).await;
    assert_eq!(bridge.get(SCRIPT).await.status, 503);
    write(&ca, made.cert.pem());
    eventually("the new bundle is read", Duration::from_secs(3), async || {
        bridge.get(SCRIPT).await.status == 200
    })
    .await;
    assert_eq!(bridge.get("/boot-artifacts/kernel/a/lab").await.status, 200);
}
