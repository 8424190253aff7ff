//! Artifacts whose bytes are known from their position, so that every download can be checked for next to nothing.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::upstream::{Content, Words};

/// One mebibyte.
pub const MIB: u64 = 1024 * 1024;

/// A file of random bytes.
#[derive(Debug, Clone)]
pub struct Object {
    /// Where it is.
    pub path: PathBuf,
    /// How many bytes it has.
    pub length: u64,
    /// What they are.
    pub words: Words,
}

impl Object {
    /// Makes the file, unless it is there from an earlier run. It is on disk when this returns: writing it back later would be in the way.
    pub fn make(folder: &Path, name: &str, length: u64, seed: u64) -> anyhow::Result<Self> {
        let content = Content::random(length, seed);
        let words = content.words().context("random content has words")?;
        let path = folder.join(name);
        let object = Self { path, length, words };
        if fs::metadata(&object.path).is_ok_and(|there| there.len() == length) {
            return Ok(object);
        }
        fs::create_dir_all(folder)?;
        let part = object.path.with_extension("part");
        let mut file = File::create(&part).with_context(|| format!("{} cannot be written", part.display()))?;
        for start in (0..length).step_by(MIB as usize) {
            file.write_all(&content.read(start..length.min(start + MIB))?)?;
        }
        file.sync_all()?;
        fs::rename(part, &object.path)?;
        Ok(object)
    }
}

/// How closely bytes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Every byte: about 0.2 s of CPU time a GB.
    Every,
    /// One word of each page, less than a thousandth of that: wrong places, wrong files and pages that were never written are seen.
    EveryPage,
}

impl Check {
    /// Whether these bytes are the ones at this position.
    pub fn agrees(self, words: Words, position: u64, bytes: &[u8]) -> bool {
        let gap = (position.next_multiple_of(8) - position) as usize;
        if bytes.len() < gap {
            return same(words, position, bytes);
        }
        let (head, rest) = bytes.split_at(gap);
        let first = position.div_ceil(8);
        let (whole, tail) = rest.as_chunks::<8>();
        let step = match self {
            Self::Every => 1,
            Self::EveryPage => 512,
        };
        let mut numbered = (first..).zip(whole).step_by(step);
        let end = position + (bytes.len() - tail.len()) as u64;
        same(words, position, head)
            && numbered.all(|(number, word)| words.at(number).to_le_bytes() == *word)
            && same(words, end, tail)
    }
}

/// Less than a word.
fn same(words: Words, position: u64, bytes: &[u8]) -> bool {
    let word = words.at(position / 8).to_le_bytes();
    let at = (position % 8) as usize;
    word.get(at..at + bytes.len()) == Some(bytes)
}
