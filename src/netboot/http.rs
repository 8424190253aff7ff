//! Boot programs over HTTP, and the pages about this program: small answers from memory, to GET and HEAD.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::{Frame, Incoming, SizeHint};
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
/// A file is handed to the connection in pieces of this size: what was not taken was not sent.
const PIECE: usize = 64 * 1024;
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

/// Bytes from memory, and whoever is to be told how many of them went out.
struct Body {
    rest: Bytes,
    length: usize,
    then: Option<Box<dyn FnOnce(usize) + Send>>,
}

impl Body {
    fn of(bytes: Bytes) -> Self {
        Self {
            length: bytes.len(),
            rest: bytes,
            then: None,
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let size = self.rest.len().min(PIECE);
        Poll::Ready((size > 0).then(|| Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then(self.length - self.rest.len());
        }
    }
}

fn answer(request: &Request<Incoming>, client: IpAddr, pages: Pages, state: &Arc<State>) -> Response<Body> {
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

fn program(path: &str, is_head: bool, client: IpAddr, address: Ipv4Addr, state: &Arc<State>) -> Response<Body> {
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
    let mut body = Body::of(if is_head { Bytes::new() } else { bytes });
    if is_head {
        state.metrics.download(platform, "size-only", 0);
    } else {
        let (state, name, asked) = (state.clone(), name.to_owned(), now());
        body.then = Some(Box::new(move |sent| {
            let is_whole = sent == length;
            let outcome = if is_whole { "sent" } else { "aborted" };
            state.metrics.download(platform, outcome, sent as u64);
            // Only programs: the script beside them is no step of its own.
            if platform.is_some() && is_whole {
                state.ways.fetched(Fetch {
                    client,
                    by: Protocol::Http,
                    asked,
                    took: u32::try_from(now() - asked).ok(),
                    bytes: length as u64,
                });
            }
            tracing::info!(%client, file = name, sent, size = length, "HTTP: {outcome}");
        }));
    }
    let kind = if name.ends_with(".efi") {
        "application/efi"
    } else {
        "application/octet-stream"
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, length.into());
    response
}

fn metrics(state: &State) -> Response<Body> {
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

fn text(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::of(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}
