//! What the tests stand on: a real API server, real firmware in QEMU, and the rule for machines that lack the tools for them.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot be set up must fail where it happens"
)]

pub mod bridge;
pub mod bundle;
pub mod collector;
pub mod control_plane;
pub mod disk;
pub mod fault_proxy;
pub mod images;
pub mod lab;
pub mod node;
pub mod olm;
pub mod olm_v1;
pub mod operator;
pub mod process;
pub mod pxe;
pub mod qemu;
pub mod site;

use std::env;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// The value, or `None` when this machine cannot run the test: the caller then returns.
///
/// Under `CI` or `IPXE_BRIDGE_TEST_ALL` a missing tool is a failure, so a skipped test can never look green there.
pub fn require<T>(what: &str, found: Result<T, String>) -> Option<T> {
    let strict = ["CI", "IPXE_BRIDGE_TEST_ALL"]
        .iter()
        .any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    match found {
        Ok(value) => Some(value),
        Err(cause) if strict => panic!("{what} is needed: {cause}"),
        Err(cause) => {
            let test = std::thread::current();
            let test = test.name().unwrap_or("a test");
            // Not eprintln!: the test harness hides what a passing test prints with it.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {what} is needed: {cause}");
            None
        }
    }
}

/// The folder that `tests/tools/install.sh TARGET` prints, after it built or installed what was missing.
pub fn tools(target: &str) -> Result<PathBuf, String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/install.sh");
    let output = Command::new("bash")
        .args([script, target])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit()) // its progress lines: the first run takes minutes
        .output()
        .map_err(|e| format!("{script} {target}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{script} {target} ended with {}, its reason is above", output.status));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// A loopback port that nothing listens on.
///
/// Below the range that the kernel hands out by itself: a server that is stopped finds its port still free when it comes back.
pub fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time start at different places.
    let start = std::process::id().wrapping_mul(97) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((start + step) % u32::from(COUNT)).unwrap();
        if TcpListener::bind(("127.0.0.1", FIRST + offset)).is_ok() {
            return FIRST + offset;
        }
    }
    panic!("no free port on 127.0.0.1 in {FIRST}..{}", FIRST + COUNT);
}
