//! The layers of docs/architecture.md: who may use whom, and what stays pure.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let wanted = |path: &PathBuf| {
        let below = path.strip_prefix(&root).unwrap();
        below.starts_with(folder) || below == Path::new(&format!("{folder}.rs"))
    };
    let files: Vec<_> = files
        .into_iter()
        .filter(wanted)
        .map(|path| (path.clone(), code(&fs::read_to_string(&path).unwrap())))
        .collect();
    assert!(!files.is_empty(), "no files in {folder}");
    files
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            // Unit tests in files of their own.
            true if path.ends_with("tests") => {}
            true => collect(&path, files),
            false if path.ends_with("tests.rs") => {}
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
}

/// The text without its comments and its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

fn forbid(folder: &str, words: &[&str]) {
    for (path, code) in sources(folder) {
        for word in words {
            assert!(!code.contains(word), "{} must not use {word}", path.display());
        }
    }
}

#[test]
fn the_domain_is_pure() {
    let io = [
        "async ",
        ".await",
        "tokio",
        "reqwest",
        "poem",
        "kube",
        "k8s_openapi",
        "hyper",
        "tracing",
        "std::fs",
        "std::env",
        "std::net",
        "std::time",
    ];
    forbid("boot", &io);
    forbid("boot", &["crate::server", "crate::cli", "crate::crd", "crate::telemetry"]);
    forbid("crd", &["async ", ".await", "tokio", "reqwest", "poem", "crate::"]);
    forbid("server/validator", &["async ", ".await", "tokio", "crate::"]);
    for file in ["offer", "packet", "architecture", "programs", "transfer", "script"] {
        let words = ["async ", ".await", "tokio", "std::fs", "std::env", "Instant::now", "tracing"];
        forbid(&format!("netboot/{file}"), &words);
    }
    for file in ["plan", "build", "address", "arguments", "reference", "reason", "report/pods"] {
        forbid(
            &format!("operator/{file}"),
            &[
                "async ",
                ".await",
                "tokio",
                "Client",
                "Api<",
                "tracing",
                "std::env",
                "Timestamp::now",
            ],
        );
    }
}

#[test]
fn layers_use_what_is_below_them() {
    forbid("cli", &["crate::server", "crate::crd", "crate::telemetry", "tokio"]);
    forbid(
        "operator",
        &["crate::boot", "crate::telemetry", "crate::migrate", "crate::offline"],
    );
    // Only its own pages are served as the server serves: by the same accept loop.
    for file in [
        "plan",
        "build",
        "apply",
        "observe",
        "report",
        "reconcile",
        "children",
        "address",
        "arguments",
    ] {
        forbid(&format!("operator/{file}"), &["crate::server"]);
    }
    forbid(
        "netboot",
        &["crate::server", "crate::operator", "crate::crd", "crate::telemetry", "kube::"],
    );
    forbid("telemetry", &["crate::server", "crate::boot", "crate::crd"]);
    forbid("server/api", &["kube::", "k8s_openapi", "crate::crd", "tokio::fs", "std::fs"]);
}

#[test]
fn nothing_gives_up_but_main() {
    forbid("", &[".unwrap()", "panic!(", "unsafe "]);
}
