//! The initrd of one request: the stock archive with a fresh Ignition file behind it.
//!
//! No two are alike, as with the real service: it signs a token anew for every request and packs it into the Ignition
//! (assisted-service `internal/ignition/discovery.go`, `internal/gencrypto/token.go`; assisted-image-service
//! `internal/handlers/initrd.go`). The kernel accepts several archives in one initrd, so a real one still boots.

use std::fmt::Write;
use std::io;

use super::content::{Blob, Content, mix};

/// Stands before every secret in an initrd: whoever finds it outside an initrd has found a leak.
pub const SECRET_MARKER: &str = "IGNITION-SECRET-";

/// The size of the Ignition text; the real one is about 3.5 KB.
const TEXT: usize = 3_500;

/// The stock initrd and a fresh archive with `config.ign`.
///
/// Two requests in a row always differ in length too: the real service does that in about one of six, and between `HEAD` and `GET`.
pub fn fresh(stock: &Content, environment: &str, nonce: u64, serial: u64) -> io::Result<Blob> {
    let extra = match serial % 4 {
        1 => 4,
        3 => 8,
        _ => 0,
    };
    // The kernel looks for the next archive at a multiple of four and skips zeros before it.
    let gap = stock.length()?.next_multiple_of(4) - stock.length()?;
    let mut tail = vec![0; usize::try_from(gap).map_err(io::Error::other)?];
    let text = ignition(environment, mix(nonce ^ serial), TEXT + extra);
    member(&mut tail, "config.ign", 0o100_600, text.as_bytes());
    member(&mut tail, "TRAILER!!!", 0, &[]);
    Blob::join([stock.clone(), Content::bytes(tail)])
}

/// An Ignition text of the given length in which everything that follows the marker is new.
fn ignition(environment: &str, nonce: u64, length: usize) -> String {
    let end = "\"}}\n";
    let mut text = format!("{{\"ignition\":{{\"version\":\"3.1.0\"}},\"sample\":{{\"secret\":\"{SECRET_MARKER}{environment}-");
    let mut word = nonce;
    while text.len() + end.len() < length {
        word = mix(word);
        // Writing to a String cannot fail.
        let _ = write!(text, "{word:016x}");
    }
    text.truncate(length - end.len());
    text.push_str(end);
    text
}

/// One member of a `newc` archive (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
fn member(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let start = archive.len();
    let fields = [
        1,              // inode
        mode as usize,  //
        0,              // owner
        0,              // group
        1,              // links
        0,              // time of change
        data.len(),     //
        0,              // device, major
        0,              // device, minor
        0,              // special file, major
        0,              // special file, minor
        name.len() + 1, // with the zero behind it
        0,              // checksum, unused here
    ];
    archive.extend_from_slice(b"070701");
    for field in fields {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    pad(archive, start);
    archive.extend_from_slice(data);
    pad(archive, start);
}

fn pad(archive: &mut Vec<u8>, start: usize) {
    let size = (archive.len() - start).next_multiple_of(4);
    archive.resize(start + size, 0);
}
