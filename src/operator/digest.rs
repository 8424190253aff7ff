//! Short texts that differ when values differ.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// The first 16 hexadecimal digits of the SHA-256 of the value's JSON; the same in every build. Empty if there is no JSON of it.
pub fn of(value: &impl Serialize) -> String {
    let json = serde_json::to_vec(value).unwrap_or_default();
    Sha256::digest(json)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
