//! Parts of files that go from the page cache to a socket without a copy in this process (`sendfile(2)`).
//!
//! An HTTP library hands bytes to a connection, not files. So the body of an answer puts the part of the file into the connection's
//! queue, and gives the library a stand-in of the same length: a piece of a block whose address is known. The connection recognises the
//! stand-in by its address and sends the part in its place.
//!
//! Invariants: a stand-in is only made for a connection that has a queue, which only plain HTTP has; parts and stand-ins are in the same
//! order and of the same length; a stand-in without its part cuts the connection.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The largest part, in bytes.
pub const MAX_PART: usize = 2 << 20;

/// What all stand-ins are pieces of. Never read, so its zeros take no memory.
static STAND_IN: LazyLock<Bytes> = LazyLock::new(|| Bytes::from(vec![0; MAX_PART]));

/// Something whose descriptor is a file.
pub type Source = Arc<dyn AsFd + Send + Sync>;

struct Part {
    source: Source,
    position: u64,
    left: usize,
}

/// The parts that a connection is about to send.
#[derive(Clone, Default)]
pub struct Parts(Arc<Mutex<VecDeque<Part>>>);

impl Parts {
    /// Has a part of a file sent where the returned bytes stand. At most [`MAX_PART`].
    pub fn send(&self, source: Source, position: u64, length: usize) -> Bytes {
        let left = length.min(MAX_PART);
        if left > 0 {
            self.lock().push_back(Part { source, position, left });
        }
        STAND_IN.slice(..left)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parts").field(&self.lock().len()).finish()
    }
}

fn is_stand_in(bytes: &[u8]) -> bool {
    STAND_IN.as_ptr_range().contains(&bytes.as_ptr())
}

/// A connection that sends parts of files.
#[derive(Debug)]
pub struct FileStream {
    stream: TcpStream,
    parts: Parts,
}

impl FileStream {
    /// A connection, and the queue of its parts.
    pub fn new(stream: TcpStream) -> (Self, Parts) {
        let parts = Parts::default();
        let queue = parts.clone();
        (Self { stream, parts }, queue)
    }

    /// Sends of the first part what the socket takes, at most this many bytes.
    fn poll_part(&self, context: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let mut parts = self.parts.lock();
            let Some(part) = parts.front_mut() else {
                return Poll::Ready(Err(io::Error::other("a stand-in without a part of a file")));
            };
            let mut position = part.position;
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let count = length.min(part.left);
                Ok(rustix::fs::sendfile(&self.stream, &part.source, Some(&mut position), count)?)
            });
            match sent {
                Ok(0) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file got shorter"))),
                Ok(sent) => {
                    part.position = position;
                    part.left -= sent;
                    if part.left == 0 {
                        parts.pop_front();
                    }
                    return Poll::Ready(Ok(sent));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for FileStream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for FileStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let ordinary = pieces.iter().take_while(|piece| !is_stand_in(piece)).count();
        // A library may hand over empty pieces in between.
        if let (true, Some(stand_in)) = (pieces[..ordinary].iter().all(|piece| piece.is_empty()), pieces.get(ordinary)) {
            return self.poll_part(context, stand_in.len());
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, &pieces[..ordinary])
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
