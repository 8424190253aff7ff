//! The documents say what the code does: flags, problems, metrics, files, links.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory as _;
use ipxe_bridge::cli::{Cli, PYTHON_NAMES};
use ipxe_bridge::operator::kind::Kind;
use ipxe_bridge::operator::metrics::Metrics;
use ipxe_bridge::operator::reason::Reason;

use crate::support::bridge::{eventually, write};
use crate::support::site::Site;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of every table row of a document whose first cell is a single piece of code that begins so.
fn rows(text: &str, begin: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>())
        .filter(|cells| code(&cells[0]).is_some_and(|code| code.starts_with(begin)))
        .collect()
}

/// What stands between the backticks of a cell that holds nothing else.
fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`').filter(|code| !code.contains('`'))
}

/// The texts between `before` and the next `after`, none inside another.
fn between<'t>(mut text: &'t str, before: &str, after: &str) -> Vec<&'t str> {
    let mut found = Vec::new();
    while let Some((_, rest)) = text.split_once(before) {
        let Some((inner, rest)) = rest.split_once(after) else { break };
        found.push(inner);
        text = rest;
    }
    found
}

/// Flag, variable, name of the Python bridge and default of each flag of a command.
fn flags(command: &str) -> BTreeMap<String, [String; 3]> {
    let mut program = Cli::command();
    program.build();
    let command = program.find_subcommand(command).unwrap();
    let described = |argument: &clap::Arg| {
        let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        let python = PYTHON_NAMES.iter().find(|(_, id)| argument.get_id() == id);
        let python = python.filter(|_| command.get_name() == "server");
        let defaults = argument.get_default_values().iter().map(|value| value.to_string_lossy());
        (
            format!("--{}", argument.get_long().unwrap()),
            [
                variable.unwrap_or_default(),
                python.map(|(old, _)| (*old).to_owned()).unwrap_or_default(),
                defaults.collect::<Vec<_>>().join(","),
            ],
        )
    };
    let is_own = |argument: &&clap::Arg| !matches!(argument.get_id().as_str(), "help" | "version");
    command.get_arguments().filter(is_own).map(described).collect()
}

#[test]
fn the_page_of_settings_lists_every_flag_as_it_is() {
    let settings = read("docs/settings.md");
    let (servers, others) = settings.split_once("## Settings of the operator").unwrap();
    let (operators, netboots) = others.split_once("## Settings of the boot network").unwrap();
    let mut of_operator = flags("operator");
    // The table of the server has them.
    of_operator.retain(|flag, _| !flag.starts_with("--log-"));
    let mut of_netboot = flags("netboot");
    of_netboot.retain(|flag, _| !flag.starts_with("--log-"));
    for (text, defined) in [(servers, flags("server")), (operators, of_operator), (netboots, of_netboot)] {
        let plain = |cell: &String| code(cell).unwrap_or(cell).to_owned();
        let rows = rows(text, "--");
        let described: BTreeMap<String, [String; 3]> = rows
            .iter()
            .map(|cells| {
                assert_eq!(cells.len(), 5, "{cells:?}");
                assert!(!cells[4].is_empty(), "{} has no meaning", cells[0]);
                (plain(&cells[0]), [plain(&cells[1]), plain(&cells[2]), plain(&cells[3])])
            })
            .collect();
        assert_eq!(described, defined, "left: docs/settings.md, right: --help");
        assert_eq!(rows.len(), defined.len(), "docs/settings.md has a flag twice");
    }
}

#[test]
fn operations_lists_every_problem_with_its_status() {
    let source = read("src/server/api/problem.rs");
    let class = between(&source, "fn class(", "\n    }\n")[0];
    // Every class is written as (STATUS, "type", "Title").
    let mut defined = BTreeMap::new();
    for tuple in class.split("=>").skip(1) {
        let status = tuple
            .split("StatusCode::")
            .nth(1)
            .map(|rest| rest.split(',').next().unwrap().trim())
            .filter(|_| !tuple.trim_start().trim_start_matches(['{', '(', ' ', '\n']).starts_with('*'));
        let slug = tuple.split('"').nth(1).unwrap();
        defined.insert(slug.to_owned(), status.map(number));
    }
    assert!(defined.len() > 10, "{defined:?}");
    let prefix = "urn:ipxe-bridge:problem:";
    let described: BTreeMap<String, String> = rows(&read("docs/operations.md"), prefix)
        .into_iter()
        .map(|cells| (code(&cells[0]).unwrap()[prefix.len()..].to_owned(), cells[1].clone()))
        .collect();
    assert_eq!(
        described.keys().collect::<Vec<_>>(),
        defined.keys().collect::<Vec<_>>(),
        "left: docs/operations.md, right: problem.rs"
    );
    for (slug, status) in defined {
        if let Some(status) = status {
            assert_eq!(described[&slug], status.to_string(), "{slug}");
        }
    }
}

/// The number of a status by the name of its constant.
fn number(name: &str) -> u16 {
    (100..600)
        .filter_map(|code| http::StatusCode::from_u16(code).ok())
        .find(|status| {
            let words = status.canonical_reason().unwrap_or_default();
            words.to_uppercase().replace([' ', '-'], "_") == name
        })
        .unwrap_or_else(|| panic!("{name} is no status"))
        .as_u16()
}

#[test]
fn overrides_lists_every_reason() {
    use strum::VariantArray as _;
    let text = read("docs/overrides.md");
    let table = text.split("| Reason |").nth(1).unwrap().split("\n\n").next().unwrap();
    let written: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let reasons: Vec<String> = ipxe_bridge::boot::standing::Reason::VARIANTS
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(written, reasons.iter().map(String::as_str).collect());
}

#[test]
fn operations_lists_every_reason_of_a_bridge() {
    use strum::VariantArray as _;
    let text = read("docs/operations.md");
    let section = between(&text, "\n## Conditions of a bridge\n", "\n## ")[0];
    let (conditions, reasons) = section.split_once("| Reason |").unwrap();
    let described: Vec<String> = rows(reasons, "")
        .iter()
        .map(|cells| code(&cells[0]).unwrap().to_owned())
        .collect();
    let defined: Vec<String> = Reason::VARIANTS.iter().map(ToString::to_string).collect();
    assert_eq!(described, defined, "left: docs/operations.md, right: reason.rs");
    for cells in rows(reasons, "") {
        assert!(cells.len() == 3 && !cells[1].is_empty(), "{cells:?}");
    }
    use ipxe_bridge::crd::bridge::condition_types::{AVAILABLE, DEGRADED, PROGRESSING, READY, STALLED};
    let described: Vec<String> = rows(conditions, "")
        .iter()
        .map(|cells| code(&cells[0]).unwrap().to_owned())
        .collect();
    assert_eq!(described, [READY, AVAILABLE, PROGRESSING, DEGRADED, STALLED]);
}

#[test]
fn operations_lists_every_metric_of_the_operator() {
    let metrics = Metrics::default();
    metrics.reconciled("ok");
    metrics.wrote(Kind::Service);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics.registry()).unwrap();
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let written: BTreeMap<String, String> = kinds
        .map(|(name, kind)| {
            (
                format!("{name}{}", if kind == "counter" { "_total" } else { "" }),
                kind.to_owned(),
            )
        })
        .collect();
    let described: BTreeMap<String, String> = rows(&read("docs/operations.md"), "ipxe_bridge_operator_")
        .into_iter()
        .map(|cells| (code(&cells[0]).unwrap().to_owned(), cells[1].clone()))
        .collect();
    assert_eq!(
        described, written,
        "left: docs/operations.md, right: /metrics of the operator"
    );
}

#[test]
fn network_lists_every_metric_of_the_boot_network() {
    use ipxe_bridge::netboot::metrics::Metrics;
    let metrics = Metrics::default();
    metrics.packet(None, "malformed");
    metrics.transfer(None, "complete", 1);
    metrics.download(None, "sent", 1);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &metrics.registry(true, Some((1, 1.0)), 1)).unwrap();
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let written: BTreeMap<String, String> = kinds
        .map(|(name, kind)| {
            (
                format!("{name}{}", if kind == "counter" { "_total" } else { "" }),
                kind.to_owned(),
            )
        })
        .collect();
    let described: BTreeMap<String, String> = rows(&read("docs/network.md"), "ipxe_bridge_netboot_")
        .into_iter()
        .map(|cells| (code(&cells[0]).unwrap().to_owned(), cells[1].clone()))
        .collect();
    assert_eq!(described, written, "left: docs/network.md, right: netboot/metrics.rs");
}

#[tokio::test]
async fn operations_lists_every_metric() {
    let site = Site::start().await;
    let cache = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = write(&cache.path().join("tls.crt"), made.cert.pem());
    let key = write(&cache.path().join("tls.key"), made.signing_key.serialize_pem());
    let tls = [
        "--tls-port",
        "0",
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    let folder = cache.path().join("cache");
    std::fs::create_dir(&folder).unwrap();
    let bridge = site
        .bridge(&[&["--cache-dir", folder.to_str().unwrap()], &tls[..]].concat())
        .await;
    // Counters with labels are there from their first count on.
    assert_eq!(bridge.get("/ipxe-mac-boot/52-54-00-cc-00-01").await.status, 200);
    assert_eq!(bridge.get("/boot-artifacts/kernel/a/lab").await.status, 200);
    eventually("the transfer is counted", Duration::from_secs(5), async || {
        bridge.metrics().await.contains("_transfers_total{")
    })
    .await;
    let text = bridge.metrics().await;
    let written: BTreeMap<String, [String; 2]> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| {
            let name = format!("{name}{}", if kind == "counter" { "_total" } else { "" });
            let series = format!("{name}{}{{", if kind == "histogram" { "_count" } else { "" });
            let sample = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or_default();
            let labels = sample
                .split('}')
                .next()
                .unwrap()
                .split(',')
                .filter_map(|label| Some(label.split_once('=')?.0));
            let labels = labels.map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            (name, [kind.to_owned(), labels])
        })
        .collect();
    let described: BTreeMap<String, [String; 2]> = rows(&read("docs/operations.md"), "ipxe_bridge_")
        .into_iter()
        .filter(|cells| !cells[0].starts_with("`ipxe_bridge_operator_"))
        .map(|cells| (code(&cells[0]).unwrap().to_owned(), [cells[1].clone(), cells[2].clone()]))
        .collect();
    assert_eq!(described, written, "left: docs/operations.md, right: /metrics");

    // One that nothing above counted would be missing on both sides.
    let registry: String = [
        read("src/server/metrics.rs"),
        read("src/server/upstream.rs"),
        read("src/server/api/metrics.rs"),
        read("src/build_info.rs"),
    ]
    .concat()
    .split_whitespace()
    .collect();
    let calls = ["register(\"", "register_with_unit(\"", "gauge(\"", "bytes(\""];
    let names: Vec<&str> = calls.iter().flat_map(|call| between(&registry, call, "\"")).collect();
    assert_eq!(names.len(), described.len(), "{names:?}");
}

/// Every tracked or new file of the project that is text.
fn files() -> Vec<(PathBuf, String)> {
    fn list(folder: &Path, paths: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || ["target", ".git", ".cache"].contains(&name.as_str()) {
                continue;
            }
            match path.is_dir() {
                true => list(&path, paths),
                false => paths.push(path),
            }
        }
    }
    let mut paths = Vec::new();
    list(&root(), &mut paths);
    paths.sort();
    let text = |path: PathBuf| fs::read_to_string(&path).ok().map(|text| (path, text));
    paths.into_iter().filter_map(text).collect()
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut links = 0;
    for (path, text) in files() {
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        for target in between(&text, "](", ")") {
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            assert!(file.exists(), "{}: {target} does not exist", path.display());
            let has = |anchor: &str| {
                let text = fs::read_to_string(&file).unwrap();
                text.lines().any(|line| line.starts_with('#') && self::anchor(line) == anchor)
            };
            assert!(
                anchor.is_empty() || has(anchor),
                "{}: {target} has no such heading",
                path.display()
            );
        }
    }
    assert!(links > 10, "only {links} links were found");
}

/// The anchor of a heading, as code hosts make it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn no_file_names_the_machine_it_was_written_on_or_a_registry() {
    // Put together here, so that this file does not hold them itself.
    let host = |parts: &[&str]| parts.join(".");
    let unwanted = [
        ["/wo", "rk/"].concat(),
        host(&["crates", "io/"]),
        host(&["index", "crates", "io"]),
        host(&["static", "crates", "io"]),
        host(&["proxy", "golang", "org"]),
        host(&["sum", "golang", "org"]),
        host(&["registry", "npmjs", "org"]),
        host(&["registry", "yarnpkg", "com"]),
    ];
    for (path, text) in files() {
        let shown = path.strip_prefix(root()).unwrap().display().to_string();
        // Its format names the registry of every crate.
        if shown == "Cargo.lock" {
            continue;
        }
        for unwanted in &unwanted {
            let line = text.lines().position(|line| line.contains(unwanted));
            assert!(line.is_none(), "{shown} line {}: {unwanted}", line.unwrap_or_default() + 1);
        }
    }
}

#[test]
fn the_code_map_names_files_that_exist_and_leaves_none_out() {
    let text = read("docs/architecture.md");
    let map = text.split("## Code map").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut named = BTreeSet::new();
    for line in map.lines().filter(|line| line.starts_with("| `")) {
        let first = line.trim_start_matches("| ").split(" | ").next().unwrap();
        let mut folder = PathBuf::new();
        for name in between(first, "`", "`") {
            // A bare name stands in the folder of the one before.
            let path = if Path::new(name).starts_with("src") || !folder.starts_with("src") {
                PathBuf::from(name)
            } else {
                folder.join(name)
            };
            assert!(
                root().join(&path).exists(),
                "docs/architecture.md: {} does not exist",
                path.display()
            );
            folder = path.parent().unwrap().to_owned();
            named.insert(path);
        }
    }
    for (path, _) in files() {
        let path = path.strip_prefix(root()).unwrap().to_owned();
        // Unit tests may have files of their own.
        let is_test = path.ends_with("tests.rs") || path.iter().any(|part| part == "tests");
        if path.starts_with("src") && !is_test {
            assert!(named.contains(&path), "docs/architecture.md leaves out {}", path.display());
        }
    }
}
