//! What it is measured on, and with which versions.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::record::Facts;

/// The machine and the versions of all programs that take part. The bridge's own is not among them: it is what changes.
pub fn facts(lab: &Lab) -> Result<Facts> {
    let mut facts = vec![
        ("processor".to_owned(), processor()?),
        ("memory".to_owned(), memory()?),
        (
            "kernel".to_owned(),
            fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        ),
        // What a byte costs on loopback depends on it: with bbr several times as much as with cubic.
        (
            "congestion control".to_owned(),
            fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?
                .trim()
                .to_owned(),
        ),
    ];
    let mut fact =
        |name: &str, value: Option<String>| facts.push((name.to_owned(), value.unwrap_or_else(|| "not there".to_owned())));
    fact(
        "nginx",
        lab.nginx
            .as_deref()
            .and_then(|nginx| said(nginx, "-V", &["nginx/", "OpenSSL "])),
    );
    fact("wrk", lab.wrk.as_deref().and_then(|wrk| said(wrk, "-v", &["wrk "])));
    fact("matchbox", lab.matchbox.as_deref().and_then(|_| matchbox()));
    fact("rustc", said(Path::new("rustc"), "--version", &["rustc "]));
    Ok(facts)
}

/// The commit that is measured, and whether it was changed.
pub fn commit() -> String {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.ok()
        .filter(|text| !text.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}

fn processor() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(": ")?.1.trim())
    };
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    let (vendor, family, model) = (value("vendor_id"), value("cpu family"), value("model\t"));
    let name = value("model name").context("no model name")?;
    let detail = [vendor, family, model].map(Option::unwrap_or_default).join(" ");
    Ok(format!("{name} ({detail}), {cores} cores"))
}

fn memory() -> Result<String> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.strip_suffix("kB"));
    let kibibytes: f64 = line.context("no MemTotal")?.trim().parse()?;
    Ok(format!("{:.0} GiB", kibibytes / f64::from(1 << 20)))
}

/// The words behind the beginnings in what a program says about itself.
fn said(program: &Path, flag: &str, beginnings: &[&str]) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let word = |beginning: &&str| {
        let (_, rest) = text.split_once(*beginning)?;
        Some(format!("{beginning}{}", rest.split_whitespace().next()?))
    };
    let words: Vec<String> = beginnings.iter().filter_map(word).collect();
    Some(words.join(", "))
}

/// matchbox itself does not know how it was built.
fn matchbox() -> Option<String> {
    let text = include_str!("../../tests/tools/matchbox/go.mod");
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("github.com/poseidon/matchbox "))?;
    Some(line.split_whitespace().next()?.to_owned())
}
