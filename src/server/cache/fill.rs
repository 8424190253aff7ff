//! A fill: bytes of a new build go from upstream to the disk, and their digest is made on the way. No client owns it; those who wait
//! read what is there.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use rustix::io::{pwritev, retry_on_intr};
use tokio::sync::mpsc;
use tracing::Instrument as _;

use crate::server::transfer::Transfer;

use super::held::{Failure, Held, Progress};
use super::store::{Store, hex};

/// Pieces that may wait for the disk.
const QUEUE: usize = 32;
/// Bytes that are written, hashed and told of together at the most. More would no longer be in the processor's cache when they are hashed: at
/// 1 MiB a fill took a third longer.
const BATCH: usize = 256 * 1024;

/// How a fill ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All bytes are on the disk.
    Complete,
    /// All bytes can be read, but will be gone with the process.
    NotKept(String),
    /// It broke off.
    Failed(Failure),
}

/// Takes an artifact from upstream to its file.
pub async fn run(held: Arc<Held>, transfer: Transfer, store: Arc<Store>) -> Outcome {
    let span = held.fill();
    let outcome = fetch(held.clone(), transfer, store).instrument(span.clone()).await;
    held.filled();
    let word = match &outcome {
        Outcome::Complete => "complete",
        Outcome::NotKept(_) => "not kept",
        Outcome::Failed(_) => {
            span.record("otel.status_code", "ERROR");
            "failed"
        }
    };
    span.record("ipxe_bridge.outcome", word);
    outcome
}

async fn fetch(held: Arc<Held>, mut transfer: Transfer, store: Arc<Store>) -> Outcome {
    let (pieces, queue) = mpsc::channel(QUEUE);
    let target = held.clone();
    let writer = tokio::task::spawn_blocking(move || write(&target, &store, queue));
    let mut upstream = None;
    loop {
        match transfer.piece().await {
            Ok(Some(piece)) => {
                // An upstream that is faster than everything else must not keep a thread to itself.
                tokio::task::yield_now().await;
                // A writer that ended says why.
                if pieces.send(piece).await.is_err() {
                    break;
                }
            }
            Ok(None) => break,
            Err(error) => {
                upstream = Some(error.to_string());
                break;
            }
        }
    }
    // This also gives back the place among the transfers from upstream while the disk is still busy.
    drop((transfer, pieces));
    let written = writer.await;
    let outcome = match (written, upstream) {
        (Ok(Ok(None)), _) => Outcome::Complete,
        (Ok(Ok(Some(why))), _) => Outcome::NotKept(why),
        (Ok(Err(_)), Some(why)) => Outcome::Failed(Failure::Upstream(why)),
        (Ok(Err(error)), None) => Outcome::Failed(Failure::Disk(error.to_string())),
        (Err(error), _) => Outcome::Failed(Failure::Disk(error.to_string())),
    };
    held.advance(match &outcome {
        Outcome::Complete | Outcome::NotKept(_) => Progress::Complete,
        Outcome::Failed(failure) => Progress::Failed(failure.clone()),
    });
    outcome
}

/// Writes what comes until all of it is there, and makes it durable; why not, if that alone failed.
fn write(held: &Held, store: &Store, mut queue: mpsc::Receiver<Bytes>) -> io::Result<Option<String>> {
    let mut digest = Context::new(&SHA256);
    let mut position = 0;
    let mut batch = Vec::new();
    while let Some(first) = queue.blocking_recv() {
        // Readers are told at once when nothing more is waiting: the first byte of a slow upstream is worth it.
        let mut length = first.len();
        batch.push(first);
        while length < BATCH
            && let Ok(piece) = queue.try_recv()
        {
            length += piece.len();
            batch.push(piece);
        }
        write_all(held.file(), &batch, position)?;
        for piece in batch.drain(..) {
            digest.update(&piece);
        }
        position += length as u64;
        held.advance(Progress::Filling(position));
    }
    if position < held.build.length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let committed = held.commit(store, hex(digest.finish().as_ref()));
    Ok(committed.err().map(|error| error.to_string()))
}

/// Writes pieces behind one another. One call for many: the page cache holds what comes together in larger units, which are cheaper to send.
fn write_all(file: &File, pieces: &[Bytes], mut position: u64) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces
        .iter()
        .filter(|piece| !piece.is_empty())
        .map(|piece| IoSlice::new(piece))
        .collect();
    let mut slices = slices.as_mut_slice();
    while !slices.is_empty() {
        let written = retry_on_intr(|| pwritev(file, slices, position))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        position += written as u64;
        IoSlice::advance_slices(&mut slices, written);
    }
    Ok(())
}
