//! `make bench`: measures the bridge against its peers on one machine, and writes `docs/benchmarks.md` and its raw figures.
//!
//! Each row of the table is a [`row::Row`] in a file below `rows`. In every round of a row all its subjects are measured one after the
//! other, in turns forwards and backwards, so that what a machine does by itself hits all of them. Everything is on loopback.

mod bridge;
mod download;
mod lab;
mod machine;
mod matchbox;
mod nginx;
mod object;
mod probe;
mod program;
mod record;
mod report;
mod row;
mod rows;
mod site;
mod statistics;
#[path = "../upstream/service.rs"]
mod upstream;
mod wrk;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context as _;
use clap::Parser;

use lab::Lab;
use record::{Record, Sample};
use report::Reasons;
use row::{Figures, Row, describe};

/// Measures the bridge against its peers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Beginnings of the names of the rows to measure [default: all]
    rows: Vec<String>,

    /// List the rows and end
    #[arg(long)]
    list: bool,

    /// How often each row is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// The program to measure
    #[arg(long, default_value = "target/release/ipxe-bridge")]
    bridge: PathBuf,

    /// Folder with peers that were built
    #[arg(long, default_value = "")]
    tools: PathBuf,

    /// Folder to work in: about 6 GB, on the disk that is to be measured
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,

    /// Folder of benchmarks.md, benchmarks.csv and benchmarks-reasons.yaml
    #[arg(long, default_value = "docs")]
    documents: PathBuf,

    /// Only write the document anew from the figures that are there
    #[arg(long)]
    render: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let rows = rows::all();
    if arguments.list {
        for row in &rows {
            println!("{:20} {}", row.name, row.what);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let reasons = report::reasons(&arguments.documents.join("benchmarks-reasons.yaml"), &rows)?;
    if arguments.render {
        let record = Record::read(&arguments.documents.join("benchmarks.csv"))?.context("there are no figures yet")?;
        fs::write(
            arguments.documents.join("benchmarks.md"),
            report::document(&record, &rows, &reasons),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_wanted = |row: &Row| arguments.rows.is_empty() || arguments.rows.iter().any(|name| row.name.starts_with(name));
    if let Some(unknown) = arguments
        .rows
        .iter()
        .find(|name| !rows.iter().any(|row| row.name.starts_with(*name)))
    {
        anyhow::bail!("no row begins with {unknown:?}; there are: {}", names(&rows).join(", "));
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    // As many threads as cores: downloads wait for the network only.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&arguments, &rows, is_wanted, &reasons))
}

fn names(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(|row| row.name.as_str()).collect()
}

async fn run(arguments: &Arguments, rows: &[Row], is_wanted: impl Fn(&Row) -> bool, reasons: &Reasons) -> anyhow::Result<ExitCode> {
    let lab = Rc::new(Lab::new(
        arguments.bridge.clone(),
        &arguments.tools,
        arguments.folder.clone(),
    )?);
    let mut measured = Record {
        facts: machine::facts(&lab)?,
        samples: Vec::new(),
    };
    for (name, value) in &measured.facts {
        println!("{name}: {value}");
    }
    println!("bridge: {}", machine::commit());
    for program in lab.missing(&["nginx", "wrk", "matchbox"]) {
        println!("SKIPPED: everything with {program}, which is not here (tests/tools/install.sh bench says why)");
    }
    let begin = Instant::now();
    let mut failed = Vec::new();
    for row in rows.iter().filter(|row| is_wanted(row)) {
        println!("\n==> {} ({}), {} s so far", row.name, row.what, begin.elapsed().as_secs());
        let missing = lab.missing(row.needs);
        if !missing.is_empty() {
            println!("    SKIPPED: it needs {}", missing.join(" and "));
            if std::env::var_os("CI").is_some() {
                failed.push(row.name.as_str());
            }
            continue;
        }
        match measure(row, &lab, arguments.rounds).await {
            Ok(samples) => measured.samples.extend(samples),
            Err(error) => {
                println!("    FAILED: {error:#}");
                failed.push(row.name.as_str());
            }
        }
        for target in &row.targets {
            let outcome = report::outcome(&measured, row, target);
            let verdict = match (outcome.measured, outcome.is_met) {
                (Some(spread), Some(is_met)) => {
                    let verdict = if is_met { "met" } else { "MISSED" };
                    format!("{:.3} ({:.3}-{:.3}): {verdict}", spread.median, spread.low, spread.high)
                }
                _ => "SKIPPED, not measured".to_owned(),
            };
            println!("    {} {}: {verdict}", outcome.what, outcome.wanted);
        }
    }
    println!("\nall of it took {} s", begin.elapsed().as_secs());
    if measured.samples.is_empty() {
        println!("nothing was measured");
        return Ok(ExitCode::FAILURE);
    }
    let folder = destination(arguments, &measured, rows, &failed)?;
    write(&folder, measured, rows, reasons)?;
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// All rounds of a row.
async fn measure(row: &Row, lab: &Rc<Lab>, rounds: usize) -> anyhow::Result<Vec<Sample>> {
    let mut scenario = (row.start)(lab.clone()).await.context("it could not be prepared")?;
    let mut samples = Vec::new();
    let (date, commit) = (jiff::Zoned::now().date().to_string(), machine::commit());
    for round in 1..=rounds {
        let mut subjects = scenario.subjects();
        if round % 2 == 0 {
            subjects.reverse();
        }
        for subject in subjects {
            let figures = scenario
                .measure(subject)
                .await
                .with_context(|| format!("round {round}, {subject}"))?;
            println!("    round {round}, {subject}: {}", line(&figures)?);
            samples.extend(figures.into_iter().map(|(metric, value)| Sample {
                date: date.clone(),
                commit: commit.clone(),
                row: row.name.clone(),
                round,
                subject: subject.to_owned(),
                metric: metric.to_owned(),
                value,
            }));
        }
    }
    Ok(samples)
}

fn line(figures: &Figures) -> anyhow::Result<String> {
    let mut words = Vec::new();
    for (metric, value) in figures {
        let (_, unit) = describe(metric).with_context(|| format!("the metric {metric} has no description"))?;
        words.push(format!("{metric} {value:.3} {unit}"));
    }
    Ok(words.join(", "))
}

/// The documents tell of one machine, and of rows that all succeeded; anything else stays in the working folder.
fn destination(arguments: &Arguments, measured: &Record, rows: &[Row], failed: &[&str]) -> anyhow::Result<PathBuf> {
    let there = Record::read(&arguments.documents.join("benchmarks.csv"))?;
    let is_whole = measured.rows().len() == rows.len();
    let why = if !failed.is_empty() {
        format!("these rows failed: {}", failed.join(", "))
    } else if arguments.rounds < 5 {
        "there were fewer than five rounds".to_owned()
    } else if !is_whole && there.is_some_and(|there| there.facts != measured.facts) {
        "the other rows were measured on another machine or with other versions: measure all".to_owned()
    } else {
        return Ok(arguments.documents.clone());
    };
    println!("the documents stay as they are: {why}");
    let folder = arguments.folder.join("documents");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn write(folder: &std::path::Path, measured: Record, rows: &[Row], reasons: &Reasons) -> anyhow::Result<()> {
    let figures = folder.join("benchmarks.csv");
    let mut record = Record::read(&figures)?.unwrap_or_default();
    record.merge(measured, &names(rows));
    record.write(&figures)?;
    let document = folder.join("benchmarks.md");
    fs::write(&document, report::document(&record, rows, reasons))?;
    println!("written: {} and {}", document.display(), figures.display());
    Ok(())
}
