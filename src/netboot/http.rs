//! Boot programs over HTTP, and the pages about this program: small answers from memory, to GET and HEAD.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::state::State;
use super::ways::{Fetch, now};
use crate::boot::way::Protocol;

/// A request's head has to be there by then; an idle connection is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that takes no byte for this long is gone.
const STALL: Duration = Duration::from_secs(60);
const CONNECTIONS: usize = 1024;
/// The folder of boot programs in a URL.
const PROGRAMS: &str = "/boot-programs/";

/// What a listener answers.
#[derive(Debug, Clone, Copy)]
pub enum Pages {
    /// Boot programs, and scripts that name this address.
    Programs(Ipv4Addr),
    /// Probes and metrics.
    Metrics,
}

/// Accepts connections until the end.
pub async fn serve(listener: TcpListener, pages: Pages, state: Arc<State>, end: CancellationToken) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            biased;
            () = end.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let (state, end) = (state.clone(), end.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let response = answer(&request, peer.ip(), pages, &state);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut stream = Box::pin(TimeoutStream::new(stream));
            stream.as_mut().set_write_timeout_pinned(Some(STALL));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = end.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                },
            }
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, client: IpAddr, pages: Pages, state: &State) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let is_head = request.method() == Method::HEAD;
    if !is_head && request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    }
    match pages {
        Pages::Programs(address) => program(path, is_head, client, address, state),
        Pages::Metrics => match path {
            "/livez" | "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match state.missing() {
                missing if missing.is_empty() => text(StatusCode::OK, "ok\n"),
                missing => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{}\n", missing.join(", "))),
            },
            "/metrics" => metrics(state),
            _ => text(StatusCode::NOT_FOUND, "/livez, /readyz and /metrics are here\n"),
        },
    }
}

fn program(path: &str, is_head: bool, client: IpAddr, address: Ipv4Addr, state: &State) -> Response<Full<Bytes>> {
    if !state.settings.is_client(client) {
        state.metrics.download(None, "not-allowed", 0);
        return text(StatusCode::FORBIDDEN, "this address may not fetch boot programs\n");
    }
    let name = path.strip_prefix(PROGRAMS).or_else(|| path.strip_prefix('/')).unwrap_or(path);
    let Some((bytes, platform)) = state.file(name, address, client) else {
        state.metrics.download(None, "not-found", 0);
        tracing::info!(%client, path = %path.escape_default(), "HTTP: no such file");
        return text(StatusCode::NOT_FOUND, "no such file\n");
    };
    let length = bytes.len();
    state.metrics.download(
        platform,
        if is_head { "size-only" } else { "sent" },
        if is_head { 0 } else { length as u64 },
    );
    if !is_head {
        if platform.is_some() {
            state.ways.fetched(Fetch {
                client,
                by: Protocol::Http,
                asked: now(),
                took: None,
                bytes: length as u64,
            });
        }
        tracing::info!(%client, file = name, size = length, "HTTP: sent");
    }
    let kind = if name.ends_with(".efi") {
        "application/efi"
    } else {
        "application/octet-stream"
    };
    let mut response = Response::new(Full::new(if is_head { Bytes::new() } else { bytes }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}

fn metrics(state: &State) -> Response<Full<Bytes>> {
    let mut page = String::new();
    if let Err(error) = encode(&mut page, &state.registry()) {
        tracing::error!(%error, "the metrics cannot be written");
        return text(StatusCode::INTERNAL_SERVER_ERROR, "");
    }
    let mut response = text(StatusCode::OK, &page);
    let kind = header::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}
