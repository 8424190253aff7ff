//! The raw figures: a CSV file that says where they were measured.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Where and with what something was measured: name and value.
pub type Facts = Vec<(String, String)>;

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The day, as 2026-01-31.
    pub date: String,
    /// The commit of the bridge.
    pub commit: String,
    /// The row.
    pub row: String,
    /// Counted from 1.
    pub round: usize,
    /// The bridge or a peer.
    pub subject: String,
    /// What was measured.
    pub metric: String,
    /// In the metric's unit.
    pub value: f64,
}

/// All figures of one machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Record {
    /// The machine and the versions.
    pub facts: Facts,
    /// The figures.
    pub samples: Vec<Sample>,
}

const COLUMNS: &str = "date,commit,row,round,subject,metric,value";

impl Record {
    /// Reads a file; `None` if there is none.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(path)?;
        Self::parse(&text).map(Some).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut record = Self::default();
        let mut lines = text.lines();
        let columns = lines
            .by_ref()
            .find(|line| match line.strip_prefix("# ").and_then(|fact| fact.split_once(": ")) {
                Some((name, value)) => {
                    record.facts.push((name.to_owned(), value.to_owned()));
                    false
                }
                None => true,
            });
        ensure!(columns == Some(COLUMNS), "expected the columns {COLUMNS}, found {columns:?}");
        for line in lines {
            let cells: Vec<&str> = line.split(',').collect();
            let [date, commit, row, round, subject, metric, value] = cells[..] else {
                anyhow::bail!("not seven cells: {line}")
            };
            record.samples.push(Sample {
                date: date.to_owned(),
                commit: commit.to_owned(),
                row: row.to_owned(),
                round: round.parse()?,
                subject: subject.to_owned(),
                metric: metric.to_owned(),
                value: value.parse()?,
            });
        }
        Ok(record)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        // Writing to a String cannot fail.
        for (name, value) in &self.facts {
            let _ = writeln!(text, "# {name}: {value}");
        }
        let _ = writeln!(text, "{COLUMNS}");
        for sample in &self.samples {
            let Sample {
                date,
                commit,
                row,
                round,
                subject,
                metric,
                value,
            } = sample;
            let _ = writeln!(text, "{date},{commit},{row},{round},{subject},{metric},{value:.6}");
        }
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// The rows that were measured.
    pub fn rows(&self) -> BTreeSet<&str> {
        self.samples.iter().map(|sample| sample.row.as_str()).collect()
    }

    /// With the rows of another record in place of its own of these names, and without rows that are no more.
    pub fn merge(&mut self, newer: Self, known: &[&str]) {
        let replaced: BTreeSet<String> = newer.rows().into_iter().map(str::to_owned).collect();
        self.samples.retain(|sample| !replaced.contains(&sample.row));
        self.samples.extend(newer.samples);
        let place = |row: &str| known.iter().position(|known| *known == row);
        self.samples.retain(|sample| place(&sample.row).is_some());
        // Stable: rounds stay as they were measured.
        self.samples.sort_by_key(|sample| place(&sample.row));
        self.facts = newer.facts;
    }

    /// Figures of a row by round.
    pub fn figures(&self, row: &str, subject: &str, metric: &str) -> Vec<(usize, f64)> {
        let is_one = |sample: &&Sample| sample.row == row && sample.subject == subject && sample.metric == metric;
        let figures = self.samples.iter().filter(is_one);
        figures.map(|sample| (sample.round, sample.value)).collect()
    }
}
