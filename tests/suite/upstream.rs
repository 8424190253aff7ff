//! The sample upstream answers as the real services were recorded to answer, and fails as it is told to.

mod artifacts;
mod faults;
mod recordings;
mod sample_site;

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
