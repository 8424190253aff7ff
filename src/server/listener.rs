//! The accept loop around an application: limits for connections, headers, handshakes and stalled readers; an end that cuts no
//! download.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use poem::http::uri::Scheme;
use poem::web::{LocalAddr, RemoteAddr};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::api::App;
use super::metrics::Metrics;
use super::sendfile::{FileStream, Parts};

/// A machine that has sent no complete request head by then is gone; also the longest an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head. Longer paths than the application looks at still get its answer, up to this.
const MAX_HEAD: usize = 96 * 1024;

/// What a listener allows.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once, over all listeners that share it.
    pub connections: Arc<Semaphore>,
    /// Longest time in which a client takes no byte.
    pub stall: Duration,
    /// How long transfers may go on after the end was asked for.
    pub drain: Duration,
}

/// The certificate of a listener; can be exchanged while it works.
pub type Tls = Arc<ArcSwap<ServerConfig>>;

/// Accepts connections until the token is cancelled, then lets the open ones finish. Whether they all could.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    app: App,
    limits: Limits,
    metrics: Arc<Metrics>,
    end: CancellationToken,
) -> bool {
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = end.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Most likely no file descriptors: the next attempt at once would fail too and burn a core.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        // After the accept: listeners share the permits, and one that waits for a connection must not hold any.
        let permit = tokio::select! {
            biased;
            () = end.cancelled() => break,
            // Never closed.
            Ok(permit) = limits.connections.clone().acquire_owned() => permit,
        };
        let connection = Connection {
            app: app.clone(),
            tls: tls.as_ref().map(|tls| TlsAcceptor::from(tls.load_full())),
            stall: limits.stall,
            watcher: graceful.watcher(),
        };
        let metrics = metrics.clone();
        metrics.connections.inc();
        tokio::spawn(async move {
            if let Err(error) = connection.run(stream).await {
                tracing::debug!(error = %Chain(&*error), "a connection ended early");
            }
            metrics.connections.dec();
            drop(permit);
        });
    }
    drop(listener);
    tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_ok()
}

struct Connection {
    app: App,
    tls: Option<TlsAcceptor>,
    stall: Duration,
    watcher: hyper_util::server::graceful::Watcher,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Connection {
    async fn run(self, stream: TcpStream) -> Result<(), Error> {
        // Scripts are small: waiting for more to send would only delay them.
        stream.set_nodelay(true)?;
        let addresses = (stream.local_addr()?, stream.peer_addr()?);
        match self.tls.clone() {
            None => {
                let (stream, parts) = FileStream::new(stream);
                let mut stream = Box::pin(TimeoutStream::new(stream));
                stream.as_mut().set_write_timeout_pinned(Some(self.stall));
                self.http(stream, addresses, Scheme::HTTP, Some(parts)).await
            }
            Some(acceptor) => {
                let mut stream = Box::pin(TimeoutStream::new(stream));
                stream.as_mut().set_write_timeout_pinned(Some(self.stall));
                let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
                self.http(stream, addresses, Scheme::HTTPS, None).await
            }
        }
    }

    async fn http<S>(
        self,
        stream: S,
        (local, peer): (std::net::SocketAddr, std::net::SocketAddr),
        scheme: Scheme,
        parts: Option<Parts>,
    ) -> Result<(), Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let app = self.app;
        let service = service_fn(move |mut request: http::Request<Incoming>| {
            let app = app.clone();
            if let Some(parts) = &parts {
                request.extensions_mut().insert(parts.clone());
            }
            let (local, peer) = (LocalAddr(local.into()), RemoteAddr(peer.into()));
            let request = poem::Request::from((request, local, peer, scheme.clone()));
            async move {
                // The application turns every error into an answer itself.
                let response = app.call(request).await.unwrap_or_else(|error| error.into_response());
                Ok::<http::Response<BoxBody<Bytes, io::Error>>, Infallible>(response.into())
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service);
        Ok(self.watcher.watch(connection).await?)
    }
}

/// An error and its causes in one line.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
