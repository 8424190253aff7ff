//! One small request on a connection of its own, as iPXE makes it, timed on a thread that does nothing else.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::row::Figures;
use crate::statistics::percentile;

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub text: String,
    /// From before the connection to the last byte.
    pub took: Duration,
}

/// Asks and waits.
pub fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::with_capacity(4096);
    stream.read_to_end(&mut bytes)?;
    let took = start.elapsed();
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(end) = response.parse(&bytes)? else {
        anyhow::bail!("half an answer of {address}{path}");
    };
    Ok(Answer {
        status: response.code.unwrap_or_default(),
        text: String::from_utf8(bytes.split_off(end))?,
        took,
    })
}

/// Requests at fixed times on a thread of their own: one that takes long holds up the next, and that counts as its latency.
#[derive(Debug)]
pub struct Metronome {
    end: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<f64>>>,
}

impl Metronome {
    /// Starts asking for these paths in turn; every answer must be a success.
    pub fn start(address: SocketAddr, paths: Vec<String>, period: Duration) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = end.clone();
        let thread = std::thread::spawn(move || {
            let mut milliseconds = Vec::new();
            let mut due = Instant::now();
            for path in paths.iter().cycle() {
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let answer = get(address, path)?;
                ensure!(answer.status == 200, "{path}: status {}", answer.status);
                milliseconds.push(due.elapsed().as_secs_f64() * 1e3);
                due += period;
            }
            Ok(milliseconds)
        });
        Self { end, thread }
    }

    /// Ends, and gives the latencies in milliseconds.
    pub fn stop(self) -> anyhow::Result<Vec<f64>> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().ok().context("the probe failed")?
    }
}

/// Median and p99 of latencies in milliseconds.
pub fn latencies(mut milliseconds: Vec<f64>) -> anyhow::Result<Figures> {
    Ok(vec![
        ("p50", percentile(&mut milliseconds, 0.5)?),
        ("p99", percentile(&mut milliseconds, 0.99)?),
        ("samples", milliseconds.len() as f64),
    ])
}
