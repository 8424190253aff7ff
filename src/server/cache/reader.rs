//! The body of an answer from a held artifact: what is there at once, the rest as it comes, and upstream where the disk fails.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use opentelemetry::trace::SpanContext;
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::watch;

use crate::boot::artifact::UpstreamUrl;
use crate::server::sendfile::{MAX_PART, Parts, Source};
use crate::server::trace;
use crate::server::transfer::Transfer;
use crate::server::upstream::Upstream;

use super::buffers::{Buffer, SIZE};
use super::held::{Failure, Held, Progress};

/// Distance of the places that are looked at to tell whether a part is in memory. The kernel reads ahead in such steps.
const PROBE: usize = 128 * 1024;

/// A part of a held artifact on its way to a machine.
#[derive(Debug)]
pub struct Reader {
    held: Arc<Held>,
    news: watch::Receiver<Progress>,
    /// Position of the next byte.
    next: u64,
    /// Position behind the last.
    end: u64,
    upstream: Arc<Upstream>,
    url: UpstreamUrl,
    /// Whether the last part was in memory; then the next most likely is, and its end alone is looked at.
    was_in_memory: bool,
    /// Where the rest comes from once the disk failed.
    rest: Option<Box<Transfer>>,
}

impl Reader {
    /// From a position to before another.
    pub fn new(held: Arc<Held>, (next, end): (u64, u64), upstream: Arc<Upstream>, url: UpstreamUrl) -> Self {
        Self {
            news: held.watch(),
            held,
            next,
            end,
            upstream,
            url,
            was_in_memory: false,
            rest: None,
        }
    }

    /// The span that fills the file, until it is whole.
    pub fn fill(&self) -> Option<SpanContext> {
        trace::context(&self.held.fill())
    }

    /// The next piece of at most so many bytes; `None` at the end. With a queue of parts the piece may be a stand-in.
    ///
    /// # Errors
    ///
    /// If neither disk nor upstream gives the rest. Nothing else can be said then but to cut the connection.
    pub async fn piece(&mut self, at_most: usize, parts: Option<&Parts>) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(rest) = &mut self.rest {
                return rest.piece().await;
            }
            if self.next == self.end {
                return Ok(None);
            }
            // Seen before it is looked at, so that no change is missed.
            let progress = self.news.borrow_and_update().clone();
            let here = self.held.available().min(self.end).saturating_sub(self.next);
            if here > 0 {
                let length = usize::try_from(here).unwrap_or(usize::MAX).min(at_most);
                let read = match parts {
                    // A file that is still being written goes faster by way of a buffer.
                    Some(parts) if progress == Progress::Complete => self.part(length.min(MAX_PART), parts).await,
                    _ => self.read(length.min(SIZE)).await,
                };
                match read {
                    Ok(piece) => {
                        self.next += piece.len() as u64;
                        return Ok(Some(piece));
                    }
                    Err(error) => self.turn_to_upstream(&error.to_string()).await,
                }
                continue;
            }
            match progress {
                Progress::Failed(Failure::Disk(why)) => self.turn_to_upstream(&why).await,
                Progress::Failed(Failure::Upstream(why)) => return Err(io::Error::other(why)),
                _ if self.news.changed().await.is_err() => return Err(io::Error::other("the fill was given up")),
                _ => {}
            }
        }
    }

    /// A boot must not fail for a disk.
    async fn turn_to_upstream(&mut self, why: &str) {
        tracing::warn!(artifact = %self.held.kind, at = self.next, why, "the cache cannot give the rest, it comes from upstream");
        let validator = self.held.build.validator.clone();
        let part = (self.next, self.end);
        self.rest = Some(Box::new(Transfer::rest(
            self.upstream.clone(),
            self.url.clone(),
            validator,
            part,
        )));
    }

    /// Has the kernel send the bytes from the page cache, into which they are read first where they are not.
    async fn part(&mut self, length: usize, parts: &Parts) -> io::Result<Bytes> {
        self.was_in_memory = self.is_in_memory(length)?;
        if !self.was_in_memory {
            let (file, position) = (self.held.file().clone(), self.next);
            blocking(move || {
                let mut buffer = Buffer::take();
                for offset in (0..length).step_by(SIZE) {
                    let room = &mut buffer.room()[..SIZE.min(length - offset)];
                    std::os::unix::fs::FileExt::read_exact_at(&*file, room, position + offset as u64)?;
                }
                Ok(())
            })
            .await?;
        }
        let source: Source = self.held.clone();
        Ok(parts.send(source, self.next, length))
    }

    fn is_in_memory(&self, length: usize) -> io::Result<bool> {
        let mut byte = [0];
        let first = if self.was_in_memory { length } else { 0 };
        for offset in (first..length).step_by(PROBE).chain([length - 1]) {
            match read_now(&self.held, &mut byte, self.next + offset as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    async fn read(&self, length: usize) -> io::Result<Bytes> {
        let mut buffer = Buffer::take();
        let read = match read_now(&self.held, &mut buffer.room()[..length], self.next) {
            Ok(read) => read,
            // Not in memory, or the file system cannot tell: the disk is waited for elsewhere.
            Err(_) => {
                let (file, position) = (self.held.file().clone(), self.next);
                let (read, filled) = blocking(move || {
                    let read = std::os::unix::fs::FileExt::read_at(&*file, &mut buffer.room()[..length], position)?;
                    Ok((read, buffer))
                })
                .await?;
                buffer = filled;
                read
            }
        };
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => Ok(buffer.filled(read)),
        }
    }
}

/// Reads what can be read without waiting for a disk (`RWF_NOWAIT`).
fn read_now(held: &Held, room: &mut [u8], position: u64) -> Result<usize, Errno> {
    let mut rooms = [io::IoSliceMut::new(room)];
    rustix::io::preadv2(held, &mut rooms, position, ReadWriteFlags::NOWAIT)
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(read).await.map_err(io::Error::other)?
}
