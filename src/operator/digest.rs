//! Short texts that differ when values differ.

use ring::digest::{SHA256, digest};
use serde::Serialize;

/// The first 16 hexadecimal digits of the SHA-256 of the value's JSON; the same in every build. Empty if there is no JSON of it.
pub fn of(value: &impl Serialize) -> String {
    let Ok(json) = serde_json::to_vec(value) else {
        return String::new();
    };
    let hash = digest(&SHA256, &json);
    hash.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
