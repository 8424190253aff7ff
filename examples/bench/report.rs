//! The document: a table of targets, and one of all figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::record::Record;
use crate::row::{BRIDGE, Bound, Row, Target, describe};
use crate::statistics::Spread;

/// Why targets are missed: by row, then by metric. Written by people, from profiles.
pub type Reasons = BTreeMap<String, BTreeMap<String, String>>;

/// Reads the reasons; one for a row or metric that is not there is a mistake.
pub fn reasons(path: &Path, rows: &[Row]) -> Result<Reasons> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let reasons: Option<Reasons> = serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
    let reasons = reasons.unwrap_or_default();
    for (name, metrics) in &reasons {
        let row = rows.iter().find(|row| row.name == *name);
        let row = row.with_context(|| format!("{}: there is no row {name}", path.display()))?;
        for metric in metrics.keys() {
            let is_there = row.targets.iter().any(|target| target.metric == metric);
            ensure!(is_there, "{}: the row {name} has no target for {metric}", path.display());
        }
    }
    Ok(reasons)
}

/// A target and what came out.
pub struct Outcome {
    /// The metric, and the peer.
    pub what: String,
    /// What is to be reached.
    pub wanted: String,
    /// The median and its spread; `None` if it was not measured.
    pub measured: Option<Spread>,
    /// Whether the median is within it.
    pub is_met: Option<bool>,
}

/// What came out of a target: the median of the rounds, and of their ratios where there is a peer.
pub fn outcome(record: &Record, row: &Row, target: &Target) -> Outcome {
    let (name, unit) = describe(target.metric).unwrap_or((target.metric, ""));
    let own = record.figures(&row.name, BRIDGE, target.metric);
    let values: Vec<f64> = match target.peer {
        None => own.iter().map(|(_, value)| *value).collect(),
        Some(peer) => {
            let peers: BTreeMap<usize, f64> = record.figures(&row.name, peer, target.metric).into_iter().collect();
            own.iter()
                .filter_map(|(round, value)| Some(value / peers.get(round)?))
                .collect()
        }
    };
    let (sign, bound) = match target.bound {
        Bound::AtLeast(bound) => ("≥", bound),
        Bound::AtMost(bound) => ("≤", bound),
    };
    let unit = if target.peer.is_some() { "×" } else { unit };
    let measured = Spread::of(values);
    Outcome {
        what: match target.peer {
            Some(peer) => format!("{name} ÷ {peer}"),
            None => name.to_owned(),
        },
        wanted: format!("{sign} {bound} {unit}").trim_end().to_owned(),
        // As it is shown, so that the table does not contradict itself.
        is_met: measured.map(|spread| target.bound.is_met(rounded(spread.median))),
        measured,
    }
}

/// The document.
pub fn document(record: &Record, rows: &[Row], reasons: &Reasons) -> String {
    let mut facts = String::new();
    for (name, value) in &record.facts {
        // Writing to a String cannot fail.
        let _ = writeln!(facts, "| {name} | {value} |");
    }
    include_str!("document.template")
        .replace("{facts}", facts.trim_end())
        .replace("{targets}", targets(record, rows, reasons).trim_end())
        .replace("{figures}", figures(record, rows).trim_end())
}

fn targets(record: &Record, rows: &[Row], reasons: &Reasons) -> String {
    let mut text = String::new();
    for row in rows {
        let mut head = format!("`{}`: {}", row.name, row.what);
        for target in &row.targets {
            let outcome = outcome(record, row, target);
            let (measured, met) = match (outcome.measured, outcome.is_met) {
                (Some(spread), Some(is_met)) => (shown(spread), if is_met { "yes" } else { "**no**" }),
                _ => ("not measured".to_owned(), ""),
            };
            let reason = reasons.get(&row.name).and_then(|metrics| metrics.get(target.metric));
            let reason = match (outcome.is_met, reason) {
                (Some(false), Some(reason)) => reason.trim(),
                (Some(false), None) => "not yet known",
                _ => "",
            };
            let _ = writeln!(
                text,
                "| {head} | {} | {} | {measured} | {met} | {reason} |",
                outcome.what, outcome.wanted
            );
            head.clear();
        }
    }
    text
}

fn figures(record: &Record, rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let samples = || record.samples.iter().filter(|sample| sample.row == row.name);
        let mut named = Vec::new();
        for sample in samples() {
            let one = (sample.metric.as_str(), sample.subject.as_str());
            if !named.contains(&one) {
                named.push(one);
            }
        }
        let when = samples()
            .next_back()
            .map(|sample| format!("{}, {}", sample.date, sample.commit));
        let mut head = format!("`{}` ({})", row.name, when.unwrap_or_default());
        for (metric, subject) in named {
            let values = record.figures(&row.name, subject, metric);
            let rounds = values.len();
            let Some(spread) = Spread::of(values.into_iter().map(|(_, value)| value).collect()) else {
                continue;
            };
            let (name, unit) = describe(metric).unwrap_or((metric, ""));
            let _ = writeln!(
                text,
                "| {head} | {subject} | {name} | {} | {unit} | {rounds} |",
                shown(spread)
            );
            head.clear();
        }
    }
    text
}

fn shown(Spread { median, low, high }: Spread) -> String {
    format!("{} ({}–{})", number(median), number(low), number(high))
}

/// Three significant digits, and no more than two places.
fn rounded(value: f64) -> f64 {
    number(value).parse().unwrap_or(value)
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        medium if medium >= 10.0 => format!("{value:.1}"),
        small if small >= 0.1 || small == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
