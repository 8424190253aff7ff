//! The load program for downloads: many connections on a few threads, each thread with one buffer that stays in its cache.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::ready;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::object::{Check, Object};
use crate::program::{Program, own_cpu};
use crate::row::Figures;
use crate::upstream::Words;

/// Small enough for the cache of a core.
const BUFFER: usize = 128 * 1024;
/// The longest head of an answer that is read.
const HEAD: usize = 16 * 1024;
/// No byte for so long ends a download.
const STALL: Duration = Duration::from_secs(60);
/// How long the connections get to come up to speed.
const RAMP: Duration = Duration::from_millis(500);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// A file behind an address, and what is expected of it.
#[derive(Debug, Clone)]
pub struct Source {
    /// The server.
    pub address: SocketAddr,
    /// Path and query.
    pub path: String,
    /// TLS with these settings.
    pub tls: Option<Arc<ClientConfig>>,
    /// The bytes; more may follow them if the length is open.
    pub words: Words,
    /// How many of them there are.
    pub length: u64,
    /// Whether something that is unknown may follow.
    pub is_open: bool,
}

/// When a download's bytes came, from before it connected.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// The first byte of the body.
    pub first: Duration,
    /// The last.
    pub last: Duration,
}

impl Source {
    /// An object at a server.
    pub fn new(address: SocketAddr, path: &str, object: &Object) -> Self {
        Self {
            address,
            path: path.to_owned(),
            tls: None,
            words: object.words,
            length: object.length,
            is_open: false,
        }
    }

    /// Downloads it over a connection of its own, and fails if anything about it is wrong. What arrives is counted as it does.
    pub async fn download(&self, check: Check, counter: &AtomicU64) -> anyhow::Result<Timing> {
        let start = Instant::now();
        let stream = TcpStream::connect(self.address).await.context("no connection")?;
        stream.set_nodelay(true)?;
        let timing = match &self.tls {
            None => self.exchange(stream, start, check, counter).await,
            Some(tls) => {
                let stream = TlsConnector::from(tls.clone())
                    .connect(ServerName::from(self.address.ip()), stream)
                    .await
                    .context("no TLS")?;
                self.exchange(stream, start, check, counter).await
            }
        };
        timing.with_context(|| format!("http://{}{}", self.address, self.path))
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite,
        start: Instant,
        check: Check,
        counter: &AtomicU64,
    ) -> anyhow::Result<Timing> {
        let mut stream = pin!(stream);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.path, self.address
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut body = Body {
            source: self,
            check,
            head: Vec::new(),
            total: None,
            position: 0,
        };
        let mut first = None;
        loop {
            let read = poll_fn(|context| {
                SCRATCH.with_borrow_mut(|scratch| {
                    let mut buffer = ReadBuf::new(scratch);
                    ready!(stream.as_mut().poll_read(context, &mut buffer))?;
                    let before = body.position;
                    body.take(buffer.filled())?;
                    counter.fetch_add(body.position - before, Ordering::Relaxed);
                    std::task::Poll::Ready(anyhow::Ok(buffer.filled().len()))
                })
            });
            let length = tokio::time::timeout(STALL, read).await.context("stalled")??;
            if body.position > 0 && first.is_none() {
                first = Some(start.elapsed());
            }
            if body.total == Some(body.position) {
                break;
            }
            ensure!(length > 0, "cut after {} bytes", body.position);
        }
        Ok(Timing {
            first: first.context("no byte")?,
            last: start.elapsed(),
        })
    }
}

/// An answer as far as it has come.
struct Body<'s> {
    source: &'s Source,
    check: Check,
    head: Vec<u8>,
    /// The length that the head says.
    total: Option<u64>,
    position: u64,
}

impl Body<'_> {
    fn take(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.total.is_some() {
            return self.compare(bytes);
        }
        self.head.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = response.parse(&self.head)? else {
            ensure!(self.head.len() < HEAD, "the head does not end");
            return Ok(());
        };
        let code = response.code.unwrap_or_default();
        ensure!(code == 200, "status {code}: {}", String::from_utf8_lossy(&self.head[end..]));
        let length = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length: u64 = std::str::from_utf8(length.context("no length")?.value)?.parse()?;
        let Source {
            length: expected,
            is_open,
            ..
        } = *self.source;
        let fits = if is_open { length >= expected } else { length == expected };
        ensure!(fits, "length {length}, expected {expected}");
        self.total = Some(length);
        let rest = self.head.split_off(end);
        self.compare(&rest)
    }

    fn compare(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let left = self.source.length.saturating_sub(self.position);
        let known = bytes.get(..usize::try_from(left).unwrap_or(usize::MAX)).unwrap_or(bytes);
        if !self.check.agrees(self.source.words, self.position, known) {
            bail!(
                "wrong bytes between {} and {}",
                self.position,
                self.position + known.len() as u64
            );
        }
        self.position += bytes.len() as u64;
        Ok(())
    }
}

/// So many clients at once, once each, every byte or page checked.
pub async fn storm(source: &Source, clients: usize, check: Check) -> anyhow::Result<Vec<Timing>> {
    let mut downloads = JoinSet::new();
    for _ in 0..clients {
        let source = source.clone();
        downloads.spawn(async move { source.download(check, &AtomicU64::new(0)).await });
    }
    downloads.join_all().await.into_iter().collect()
}

/// So many clients at once, one download after the other for the time of the window: throughput, and what it costs the server and this
/// process.
pub async fn saturate(source: &Source, clients: usize, window: Duration, server: &Program) -> anyhow::Result<Figures> {
    let counter = Arc::new(AtomicU64::new(0));
    let mut downloads = JoinSet::new();
    for _ in 0..clients {
        let (source, counter) = (source.clone(), counter.clone());
        downloads.spawn(async move {
            loop {
                if let Err(error) = source.download(Check::EveryPage, &counter).await {
                    return error;
                }
            }
        });
    }
    let look = || anyhow::Ok((Instant::now(), counter.load(Ordering::Relaxed), server.cpu()?, own_cpu()?));
    let measured = async {
        tokio::time::sleep(RAMP).await;
        let before = look()?;
        tokio::time::sleep(window).await;
        anyhow::Ok((before, look()?))
    };
    let (before, after) = tokio::select! {
        measured = measured => measured?,
        Some(error) = downloads.join_next() => return Err(error?),
    };
    // Cut in the middle: only whole windows count.
    downloads.shutdown().await;
    let gigabytes = (after.1 - before.1) as f64 / 1e9;
    ensure!(gigabytes > 0.0, "nothing arrived");
    let (cpu, load) = ((after.2 - before.2) / gigabytes, (after.3 - before.3) / gigabytes);
    Ok(vec![
        ("throughput", gigabytes / (after.0 - before.0).as_secs_f64()),
        ("cpu", cpu),
        ("load-cpu", load),
        ("all-cpu", cpu + load),
    ])
}
