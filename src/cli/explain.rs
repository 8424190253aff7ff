//! Flags of `ipxe-bridge explain`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::boot::artifact::PublicUrl;
use crate::boot::mac::MacAddr;
use crate::boot::policy::{BootPolicy, UnknownHosts};

use super::value::word;

/// What is to be explained, and who is asked.
#[derive(Debug, Clone, Args)]
pub struct ExplainArgs {
    /// MAC address of the machine, with colons, hyphens, dots or bare
    pub mac: MacAddr,
    /// MAC addresses of its other cards, with commas between: the first that is known counts if the one above is not
    #[arg(long, value_delimiter = ',', value_name = "MAC")]
    pub nics: Vec<MacAddr>,
    /// Address of the bridge that is asked
    #[arg(long, env = "IPXE_BRIDGE_URI", default_value = "http://127.0.0.1:9876")]
    pub url: PublicUrl,
    /// Certificates (PEM) to trust for an https address, beside the system's
    #[arg(long, value_name = "FILE", conflicts_with = "files")]
    pub ca: Option<PathBuf>,
    /// Files and folders of YAML to decide from, in place of a running bridge; - is standard input
    #[arg(short = 'f', long = "file", alias = "manifests", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// With --file: when the disk boots in place of the environment
    #[arg(long, default_value_t, value_parser = word::<BootPolicy>, requires = "files")]
    pub boot_policy: BootPolicy,
    /// With --file: what a machine gets that nothing names
    #[arg(long, default_value_t, value_parser = word::<UnknownHosts>, requires = "files")]
    pub unknown_hosts: UnknownHosts,
    /// Form of the answer
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// Forms of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: the answer of `GET /explain/{mac}`.
    Json,
}

impl Output {
    /// Whether it is for programs.
    pub fn is_json(self) -> bool {
        self == Self::Json
    }
}
