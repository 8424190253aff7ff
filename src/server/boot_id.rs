//! The id of a boot in the addresses of its files, so that kernel, initrd and rootfs are known to belong to the script that named them, on
//! whichever replica they are asked for.
//!
//! ```text
//! ?b= base64url, without padding, of
//!   1 byte    which key signed it
//!   1 byte    1 if the trace is sampled
//!   4 bytes   when, in seconds since 1970, big-endian
//!   6 bytes   MAC address of the machine
//!   16 bytes  trace id
//!   8 bytes   id of the script's span
//!   8 bytes   the first of an HMAC-SHA256 over what comes before
//! ```
//!
//! 44 bytes, 62 characters with `?b=`. An id opens nothing: whoever forges one puts transfers into somebody else's trace. That is why it is
//! signed, and why half of a signature's usual length is enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use ring::hmac::{HMAC_SHA256, Key};
use ring::rand::{SecureRandom as _, SystemRandom};
use subtle::ConstantTimeEq as _;

use crate::boot::mac::MacAddr;

use super::cache::store::hex;
use super::files::Changes;

/// The name of the parameter.
pub const PARAMETER: &str = "b";
const SIGNED: usize = 36;
const SIGNATURE: usize = 8;
/// An id is good for a day: a machine that retries longer than that has another problem.
const VALID_SECONDS: i64 = 24 * 3600;
/// A key signs once every replica had the time to read it.
const DISTRIBUTION: i64 = 300;

/// Which boot a file is fetched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootId {
    /// The machine.
    pub mac: MacAddr,
    /// The trace of the boot.
    pub trace: [u8; 16],
    /// The span of the script.
    pub span: [u8; 8],
    /// Whether its spans are collected.
    pub is_sampled: bool,
    /// When the script was given, in seconds since 1970.
    pub issued: u32,
}

impl BootId {
    /// The trace id as traces and logs show it.
    pub fn trace_text(&self) -> String {
        hex(&self.trace)
    }
}

#[derive(Debug)]
struct DatedKey {
    since: Timestamp,
    number: u8,
    key: Key,
}

/// The keys that sign and verify. At least one.
#[derive(Debug)]
pub struct Keys(Vec<DatedKey>);

impl Keys {
    /// A key that only this process has.
    pub fn random() -> Self {
        Self(vec![DatedKey::new(Timestamp::UNIX_EPOCH, &random::<32>())])
    }

    /// The keys in a folder: each file holds a time (RFC 3339), a blank and at least 32 further characters. All verify; the newest that is
    /// older than five minutes signs, or the oldest if there is none.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or there is no file with a key. What is in a file is never repeated.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let shown = folder.display();
        let entries = fs::read_dir(folder).map_err(|error| format!("{shown} cannot be read: {error}"))?;
        let mut keys = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| format!("{shown} cannot be read: {error}"))?.path();
            // Dot files are Kubernetes' own (`..data` of a mounted Secret).
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) || path.is_dir() {
                continue;
            }
            match fs::read_to_string(&path).ok().as_deref().and_then(DatedKey::parse) {
                Some(key) => keys.push(key),
                None => {
                    tracing::warn!(file = %path.display(), "no key: expected a time, a blank and at least 32 further characters")
                }
            }
        }
        keys.sort_by_key(|key| key.since);
        match keys.is_empty() {
            true => Err(format!("{shown} holds no key")),
            false => Ok(Self(keys)),
        }
    }

    /// The id for an address.
    pub fn sign(&self, id: &BootId, now: Timestamp) -> String {
        let is_known_everywhere = |key: &&DatedKey| now.as_second() - key.since.as_second() >= DISTRIBUTION;
        // Sorted by age, and never empty.
        let key = self.0.iter().rev().find(is_known_everywhere).unwrap_or(&self.0[0]);
        let mut bytes = Vec::with_capacity(SIGNED + SIGNATURE);
        bytes.extend([key.number, u8::from(id.is_sampled)]);
        bytes.extend_from_slice(&id.issued.to_be_bytes());
        bytes.extend_from_slice(&id.mac.octets());
        bytes.extend_from_slice(&id.trace);
        bytes.extend_from_slice(&id.span);
        let signature = ring::hmac::sign(&key.key, &bytes);
        bytes.extend_from_slice(&signature.as_ref()[..SIGNATURE]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The boot that an address names; `None` if it is not ours, or too old.
    pub fn verify(&self, text: &str, now: Timestamp) -> Option<BootId> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, signature) = bytes.split_at_checked(SIGNED)?;
        let is_signed = |key: &&DatedKey| {
            let expected = || ring::hmac::sign(&key.key, signed);
            key.number == signed[0] && expected().as_ref()[..SIGNATURE].ct_eq(signature).into()
        };
        self.0.iter().find(is_signed)?;
        let issued = u32::from_be_bytes(signed[2..6].try_into().ok()?);
        let age = now.as_second() - i64::from(issued);
        // Clocks of replicas differ a little.
        if !(-60..VALID_SECONDS).contains(&age) {
            return None;
        }
        Some(BootId {
            issued,
            mac: MacAddr::from_octets(signed[6..12].try_into().ok()?)?,
            is_sampled: signed[1] == 1,
            trace: signed[12..28].try_into().ok()?,
            span: signed[28..36].try_into().ok()?,
        })
    }
}

impl DatedKey {
    fn new(since: Timestamp, secret: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, secret);
        Self {
            since,
            number: digest.as_ref()[0],
            key: Key::new(HMAC_SHA256, secret),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (since, secret) = text.trim().split_once(' ')?;
        (secret.len() >= 32).then_some(())?;
        Some(Self::new(since.parse().ok()?, secret.as_bytes()))
    }
}

/// Bytes that nobody can guess.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Only where the system has no source of randomness at all. Then ids are not secret, and nothing depends on that but traces.
        tracing::error!("this system gives no random bytes");
    }
    bytes
}

/// Reads the keys again when their files change; what cannot be read leaves the earlier ones.
pub async fn follow(folder: PathBuf, period: Duration, keys: Arc<ArcSwap<Keys>>) {
    let mut changes = Changes::below(std::slice::from_ref(&folder), period);
    loop {
        changes.next().await;
        match Keys::read(&folder) {
            Ok(read) => keys.store(Arc::new(read)),
            Err(why) => tracing::error!(why, "the new keys of boots are not used, the old ones go on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(issued: u32) -> BootId {
        BootId {
            mac: "52:54:00:cc:00:01".parse().expect("valid"),
            trace: random(),
            span: random(),
            is_sampled: true,
            issued,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("valid")
    }

    #[test]
    fn an_id_is_short_and_comes_back_unless_it_was_changed_or_is_old() {
        let keys = Keys::random();
        let id = id(1_000_000);
        let text = keys.sign(&id, at(1_000_000));
        assert_eq!(text.len() + "?b=".len(), 62);
        assert_eq!(keys.verify(&text, at(1_000_100)), Some(id));
        assert_eq!(keys.verify(&text, at(1_000_000 + VALID_SECONDS)), None, "too old");
        assert_eq!(keys.verify(&text, at(999_000)), None, "from the future");
        assert_eq!(Keys::random().verify(&text, at(1_000_100)), None, "of somebody else");
        for index in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'Q' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert_eq!(keys.verify(&changed, at(1_000_100)), None, "{changed}");
        }
        for text in ["", "x", "!!", &text[..40]] {
            assert_eq!(keys.verify(text, at(1_000_100)), None);
        }
    }

    #[test]
    fn keys_are_exchanged_with_an_overlap() {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = "0123456789abcdef0123456789abcdef";
        let write = |name: &str, since: i64, secret: &str| {
            fs::write(folder.path().join(name), format!("{} {secret}\n", at(since))).expect("written");
            Keys::read(folder.path()).expect("keys")
        };
        assert!(Keys::read(folder.path()).is_err());
        let first = write("a", 1_000_000, secret);
        let id = id(2_000_000);
        let by_first = first.sign(&id, at(2_000_000));
        // A new one is known to this replica, and not yet used.
        let both = write("b", 2_000_000, "another key of more than thirty-two characters");
        assert_eq!(both.sign(&id, at(2_000_100)), by_first);
        let by_second = both.sign(&id, at(2_000_400));
        assert_ne!(by_second, by_first);
        for text in [&by_first, &by_second] {
            assert_eq!(both.verify(text, at(2_000_500)), Some(id));
        }
        assert_eq!(first.verify(&by_second, at(2_000_500)), None);
        fs::write(folder.path().join("c"), "short").expect("written");
        assert!(Keys::read(folder.path()).is_ok(), "one bad file does not stop the others");
    }
}
