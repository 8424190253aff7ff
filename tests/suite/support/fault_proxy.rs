//! A proxy before the API server that is slow, refuses, or is away, and counts what goes through.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use poem::listener::{Acceptor as _, Listener as _, TcpListener};
use poem::{Body, Endpoint, Request, Response, Server};

/// What the proxy does to requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Every answer comes this much later.
    Delay(Duration),
    /// One in two requests that are no watch gets this status.
    Status(u16),
    /// Every request is cut, and so are watches.
    Down,
}

/// A running proxy; it ends with the runtime of its test.
pub struct FaultProxy {
    shared: Arc<Shared>,
    url: String,
}

struct Shared {
    upstream: String,
    client: reqwest::Client,
    state: Mutex<State>,
    changed: tokio::sync::watch::Sender<Fault>,
}

#[derive(Default)]
struct State {
    turn: u64,
    counts: BTreeMap<String, u64>,
}

impl FaultProxy {
    /// A proxy before the API server of a kubeconfig.
    pub async fn start(kubeconfig: &Path) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder()
            .no_proxy()
            .danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        let shared = Arc::new(Shared {
            upstream: server(kubeconfig),
            client,
            state: Mutex::default(),
            changed: tokio::sync::watch::Sender::new(Fault::None),
        });
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
        let address = *acceptor.local_addr()[0].as_socket_addr().unwrap();
        tokio::spawn(Server::new_with_acceptor(acceptor).run(Proxy(shared.clone())));
        Self {
            shared,
            url: format!("http://{address}"),
        }
    }

    /// The same kubeconfig, by way of the proxy.
    pub fn kubeconfig(&self, kubeconfig: &Path) -> PathBuf {
        let text = fs::read_to_string(kubeconfig)
            .unwrap()
            .replace(&self.shared.upstream, &self.url);
        let path = kubeconfig.with_extension("proxied");
        fs::write(&path, text).unwrap();
        path
    }

    pub fn set(&self, fault: Fault) {
        self.shared.changed.send_replace(fault);
    }

    /// Requests so far, by method.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.shared.state.lock().unwrap().counts.clone()
    }

    /// All requests so far.
    pub fn total(&self) -> u64 {
        self.counts().values().sum()
    }
}

/// The address in a kubeconfig.
fn server(kubeconfig: &Path) -> String {
    let text = fs::read_to_string(kubeconfig).unwrap();
    let rest = text.split_once("https://").unwrap().1;
    format!("https://{}", rest.split(['\'', '"', ',', '\n']).next().unwrap())
}

struct Proxy(Arc<Shared>);

impl Endpoint for Proxy {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let shared = &self.0;
        let query = request.uri().path_and_query().unwrap().as_str().to_owned();
        let is_watch = query.contains("watch=true") || query.contains("watch=1");
        let is_hit = {
            let mut state = shared.state.lock().unwrap();
            *state.counts.entry(request.method().to_string()).or_default() += 1;
            state.turn += u64::from(!is_watch);
            // As good as chance (the finalizer of MurmurHash3): a strict turn could hit the same request each time.
            let mixed = (state.turn ^ (state.turn >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
            (mixed >> 40).is_multiple_of(2)
        };
        let mut faults = shared.changed.subscribe();
        let fault = *faults.borrow_and_update();
        match fault {
            Fault::Down => return Err(poem::Error::from_status(http::StatusCode::BAD_GATEWAY)),
            Fault::Delay(delay) => tokio::time::sleep(delay).await,
            Fault::Status(code) if !is_watch && is_hit => return Ok(refusal(code)),
            Fault::Status(_) | Fault::None => {}
        }
        let method = request.method().clone();
        let mut headers = request.headers().clone();
        headers.remove(http::header::HOST);
        let body = request.into_body().into_vec().await?;
        let sent = shared
            .client
            .request(method, format!("{}{query}", shared.upstream))
            .headers(headers)
            .body(body)
            .send();
        let answer = sent
            .await
            .map_err(|error| poem::Error::new(error, http::StatusCode::BAD_GATEWAY))?;
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            if !["transfer-encoding", "content-length", "connection"].contains(&name.as_str()) {
                response = response.header(name, value);
            }
        }
        // A watch ends when the proxy goes down, in the middle of its answer.
        let down = async move {
            let _ = faults.wait_for(|fault| *fault == Fault::Down).await;
        };
        let stream = answer.bytes_stream().map_err(std::io::Error::other);
        Ok(response.body(Body::from_bytes_stream(futures::StreamExt::take_until(
            stream,
            Box::pin(down),
        ))))
    }
}

/// An answer as the API server gives it.
fn refusal(code: u16) -> Response {
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "message": "made up by a test",
        "reason": match code { 429 => "TooManyRequests", 409 => "Conflict", _ => "InternalError" },
    });
    let mut response = Response::builder()
        .status(http::StatusCode::from_u16(code).unwrap())
        .content_type("application/json");
    if code == 429 {
        response = response.header("Retry-After", "1");
    }
    response.body(status.to_string())
}
