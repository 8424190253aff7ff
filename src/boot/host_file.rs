//! Per-host scripts from a directory, kept for people who come from the Python bridge.

use super::mac::MacAddr;

/// A file named after a MAC address, whose content that machine gets unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// The file's name as it is on disk.
    pub file: String,
    /// The machine.
    pub mac: MacAddr,
    /// The script, to the byte.
    pub script: String,
}
