//! The bytes of an artifact: a file, bytes in memory, or pseudo-random bytes computed from their position.
//!
//! Any range can be read without holding the rest, so a test can compare a download of gigabytes piece by piece.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::SystemTime;

use bytes::Bytes;
use sha2::{Digest, Sha256};

/// How many bytes are read or computed at once.
pub const CHUNK: u64 = 64 * 1024;

/// The bytes of one build of an artifact.
#[derive(Debug, Clone)]
pub struct Content {
    source: Source,
    build: u64,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Bytes(Bytes),
    Random { length: u64, seed: u64 },
}

impl Content {
    /// The bytes of a file, read when they are asked for.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::of(Source::File(path.into()))
    }

    /// These bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self::of(Source::Bytes(bytes.into()))
    }

    /// `length` bytes that look random and are the same for the same seed, on every machine.
    pub fn random(length: u64, seed: u64) -> Self {
        Self::of(Source::Random { length, seed })
    }

    fn of(source: Source) -> Self {
        Self { source, build: 0 }
    }

    /// The same length with other bytes, as after an OS image update behind an unchanged URL.
    pub fn at_build(&self, build: u64) -> Self {
        Self {
            source: self.source.clone(),
            build,
        }
    }

    /// Which build these bytes are; the first is 0.
    pub fn build(&self) -> u64 {
        self.build
    }

    /// Random content becomes different bytes for another version or architecture; files and given bytes stay as they are.
    pub fn variant(&self, version: &str, arch: &str) -> Self {
        let mut variant = self.clone();
        if let Source::Random { seed, .. } = &mut variant.source {
            for byte in version.bytes().chain([b'/']).chain(arch.bytes()) {
                *seed = mix(*seed ^ u64::from(byte));
            }
        }
        variant
    }

    /// How many bytes there are.
    pub fn length(&self) -> io::Result<u64> {
        match &self.source {
            Source::File(path) => Ok(std::fs::metadata(path)?.len()),
            Source::Bytes(bytes) => Ok(bytes.len() as u64),
            Source::Random { length, .. } => Ok(*length),
        }
    }

    /// When the file was last changed; `None` for content that is no file.
    pub fn modified(&self) -> io::Result<Option<SystemTime>> {
        match &self.source {
            Source::File(path) => std::fs::metadata(path)?.modified().map(Some),
            Source::Bytes(_) | Source::Random { .. } => Ok(None),
        }
    }

    /// The bytes of a range, which must lie inside the content.
    pub fn read(&self, range: Range<u64>) -> io::Result<Vec<u8>> {
        if range.start > range.end || range.end > self.length()? {
            return Err(io::Error::other("range outside the content"));
        }
        let size = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
        let mut buffer = vec![0; size];
        match &self.source {
            Source::File(path) => File::open(path)?.read_exact_at(&mut buffer, range.start)?,
            Source::Bytes(bytes) => {
                let start = usize::try_from(range.start).map_err(io::Error::other)?;
                buffer.copy_from_slice(&bytes[start..start + size]);
            }
            Source::Random { seed, .. } => {
                // The seed takes the build in, so no mask is needed below.
                fill(&mut buffer, range.start, Words::of(*seed, self.build));
                return Ok(buffer);
            }
        }
        // Given bytes get a mask per build: never zero after the first, so that every byte differs from the build before.
        let mask = u8::try_from(self.build % 255).unwrap_or(0);
        if mask != 0 {
            buffer.iter_mut().for_each(|byte| *byte ^= mask);
        }
        Ok(buffer)
    }

    /// What random content consists of; `None` for other content.
    pub fn words(&self) -> Option<Words> {
        match self.source {
            Source::Random { seed, .. } => Some(Words::of(seed, self.build)),
            Source::File(_) | Source::Bytes(_) => None,
        }
    }

    /// The byte at a position.
    pub fn byte_at(&self, position: u64) -> io::Result<u8> {
        let byte = self.read(position..position.saturating_add(1))?;
        byte.first()
            .copied()
            .ok_or_else(|| io::Error::other("position outside the content"))
    }

    /// SHA-256 of the whole, in lower-case hexadecimal.
    pub fn sha256(&self) -> io::Result<String> {
        let length = self.length()?;
        let mut hash = Sha256::new();
        let mut position = 0;
        while position < length {
            let end = length.min(position + CHUNK);
            hash.update(self.read(position..end)?);
            position = end;
        }
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Random content as words of eight bytes, the lowest byte first: each depends on the seed and its number only, so that one that arrives
/// can be compared without the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    seed: u64,
}

impl Words {
    fn of(seed: u64, build: u64) -> Self {
        Self { seed: mix(seed ^ build) }
    }

    /// The word of this number, at eight times that position.
    pub fn at(self, number: u64) -> u64 {
        mix(self.seed.wrapping_add(number))
    }
}

/// Fills a buffer with what belongs at `start`.
fn fill(buffer: &mut [u8], start: u64, words: Words) {
    let mut position = start;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = words.at(position / 8).to_le_bytes();
        // Below eight, so the cast cannot lose anything.
        let skip = (position % 8) as usize;
        let take = rest.len().min(8 - skip);
        let (now, later) = rest.split_at_mut(take);
        now.copy_from_slice(&word[skip..skip + take]);
        position += take as u64;
        rest = later;
    }
}

/// SplitMix64's output function: neighbouring inputs give unrelated outputs.
pub fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Several contents one after the other: what one answer sends.
#[derive(Debug, Clone)]
pub struct Blob {
    parts: Vec<(Content, u64)>,
}

impl Blob {
    /// Joins contents in order. Lengths are taken now, so that the length of an answer and its body agree.
    pub fn join(contents: impl IntoIterator<Item = Content>) -> io::Result<Self> {
        let parts = contents
            .into_iter()
            .map(|content| content.length().map(|length| (content, length)))
            .collect::<io::Result<_>>()?;
        Ok(Self { parts })
    }

    /// How many bytes there are together.
    pub fn length(&self) -> u64 {
        self.parts.iter().map(|(_, length)| length).sum()
    }

    /// The next bytes from `position`, at most `limit` and at most [`CHUNK`]; empty at the end.
    pub async fn read(&self, position: u64, limit: u64) -> io::Result<Bytes> {
        let mut start = position;
        for (content, length) in &self.parts {
            if start < *length {
                let end = length.min(&(start + limit.min(CHUNK))).to_owned();
                let content = content.clone();
                let read = move || content.read(start..end);
                // A disk may block; the memory may not be worth a thread, but one rule is easier to keep.
                let bytes = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
                return Ok(bytes.into());
            }
            start -= length;
        }
        Ok(Bytes::new())
    }
}
