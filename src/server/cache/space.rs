//! How many bytes of the disk are taken, so that what comes next can be weighed against the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that all held artifacts take together.
#[derive(Debug, Clone, Default)]
pub struct Space(Arc<AtomicU64>);

impl Space {
    /// Bytes.
    pub fn used(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes room for so many bytes.
    pub fn take(&self, bytes: u64) -> Room {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Room {
            space: self.clone(),
            bytes: AtomicU64::new(bytes),
        }
    }
}

/// A part of the space, until it is given back.
#[derive(Debug)]
pub struct Room {
    space: Space,
    bytes: AtomicU64,
}

impl Room {
    /// Gives it back before its end.
    pub fn give_back(&self) {
        self.space
            .0
            .fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back();
    }
}
