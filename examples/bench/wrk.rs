//! wrk, Debian's: the load program for scripts.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::lab::Lab;
use crate::program::{Program, cpu_of_ended};
use crate::row::Figures;

/// Connections at once.
pub const CONNECTIONS: u32 = 64;

/// Asks for every path in turn, in an order that no file system or cache likes; the totals in one line at the end.
const SCRIPT: &str = r#"
local paths, number, threads = {}, 0, 0
function setup(thread) thread:set("offset", threads * 4999); threads = threads + 1 end
function init(arguments)
  for path in io.lines(arguments[1]) do paths[#paths + 1] = wrk.format("GET", path) end
  number = offset
end
function request() number = (number + 7919) % #paths; return paths[number + 1] end
function done(summary, latency)
  local errors = summary.errors
  print("totals", summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout)
end
"#;

/// Whether connections are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    /// For all requests.
    Kept,
    /// For one request.
    Once,
}

/// Requests a second, and what each costs the server and wrk.
pub async fn run(
    lab: &Lab,
    address: SocketAddr,
    paths: &[String],
    connections: Connections,
    time: Duration,
    server: &Program,
) -> anyhow::Result<Figures> {
    let folder = lab.folder("wrk")?;
    let (script, list) = (folder.join("script.lua"), folder.join("paths"));
    fs::write(&script, SCRIPT)?;
    fs::write(&list, paths.join("\n"))?;
    let mut command = Command::new(lab.wrk.as_ref().context("no wrk")?);
    command
        .args([
            "--threads",
            "2",
            "--connections",
            &CONNECTIONS.to_string(),
            "--timeout",
            "60s",
        ])
        .args(["--duration", &format!("{}s", time.as_secs()), "--script"])
        .arg(script);
    if connections == Connections::Once {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!("http://{address}/")).arg("--").arg(list);
    let (before, own) = (server.cpu()?, cpu_of_ended()?);
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await??;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "wrk: {}{text}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (cpu, own) = (server.cpu()? - before, cpu_of_ended()? - own);
    let totals = text.lines().find_map(|line| line.strip_prefix("totals"));
    let totals: Vec<f64> = totals
        .with_context(|| format!("wrk said no totals: {text}"))?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let [requests, microseconds, p50, p99, errors] = totals[..] else {
        anyhow::bail!("wrk's totals: {totals:?}")
    };
    ensure!(errors == 0.0, "{errors} of {requests} requests failed");
    ensure!(requests > 0.0, "no request was answered");
    Ok(vec![
        ("requests", requests / (microseconds / 1e6)),
        ("request-cpu", cpu * 1e6 / requests),
        ("request-load-cpu", own * 1e6 / requests),
        ("p50", p50 / 1e3),
        ("p99", p99 / 1e3),
    ])
}
