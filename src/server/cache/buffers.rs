//! Buffers for reading files that the page cache holds.
//!
//! They begin at a page boundary: reading from the page cache into a buffer beside one costs a multiple of the CPU time (glibc puts
//! large blocks 16 bytes behind a boundary). They are used again: fresh pages have to be cleared by the kernel first.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Bytes of a buffer.
pub const SIZE: usize = 256 * 1024;
const PAGE: usize = 4096;
/// Buffers that are kept for later: 16 MiB.
const KEPT: usize = 64;

static POOL: Mutex<VecDeque<Vec<u8>>> = Mutex::new(VecDeque::new());

/// A buffer of [`SIZE`] bytes that goes back to the pool.
#[derive(Debug)]
pub struct Buffer {
    block: Vec<u8>,
    start: usize,
    length: usize,
}

impl Buffer {
    /// One from the pool, or a new one.
    pub fn take() -> Self {
        let pooled = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
        let block = pooled.unwrap_or_else(|| vec![0; SIZE + PAGE]);
        // `usize::MAX` is what it may answer where it cannot tell; an unaligned buffer is slow and not wrong.
        let start = match block.as_ptr().align_offset(PAGE) {
            start if start <= PAGE => start,
            _ => 0,
        };
        Self { block, start, length: 0 }
    }

    /// The room in it.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.block[self.start..self.start + SIZE]
    }

    /// The first bytes of it.
    pub fn filled(mut self, length: usize) -> Bytes {
        self.length = length.min(SIZE);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.block[self.start..self.start + self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push_back(std::mem::take(&mut self.block));
        }
    }
}
