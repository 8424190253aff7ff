//! The program under test as a process of its own, asked over real sockets.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use reqwest::{Client, Method, Response, StatusCode};
use tempfile::TempDir;

use super::process::Leashed;

/// A running `ipxe-bridge server`.
pub struct Bridge {
    process: Leashed,
    folder: TempDir,
    /// `http://127.0.0.1:PORT`
    pub url: String,
    /// The same over TLS, with `--tls-port`.
    pub tls_url: Option<String>,
    /// `http://127.0.0.1:PORT` of the metrics.
    pub metrics_url: String,
    client: Client,
}

/// An answer that was read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The last word of a problem's type, for example `bad-mac-address`.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status.as_u16());
        assert!(!problem["detail"].as_str().unwrap().is_empty() && !problem["title"].as_str().unwrap().is_empty());
        problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }

    pub fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

/// The program with these arguments and no settings from the environment of the test.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ipxe-bridge"));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

impl Bridge {
    /// Starts a server on free ports; it need not be ready yet.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    /// Starts a server with variables set.
    pub async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let folder = tempfile::Builder::new().prefix("bridge-").tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = command(&["server"]);
        // What a test says comes last and wins.
        for (flag, value) in [
            ("--host", "127.0.0.1"),
            ("--port", "0"),
            ("--metrics-port", "0"),
            ("--log-format", "json"),
            ("--log-level", "debug"),
        ] {
            if !arguments.contains(&flag) {
                command.args([flag, value]);
            }
        }
        command.args(arguments).envs(variables.iter().copied());
        command.stdout(Stdio::from(log.try_clone().unwrap())).stderr(Stdio::from(log));
        let process = Leashed::spawn(&mut command, folder.path()).unwrap();
        let mut bridge = Self {
            process,
            folder,
            url: String::new(),
            tls_url: None,
            metrics_url: String::new(),
            client: Client::builder()
                .no_proxy()
                .danger_accept_invalid_certs(true)
                .build()
                .unwrap(),
        };
        eventually("the server listens", Duration::from_secs(20), async || {
            assert!(bridge.process.ended().is_none(), "the server ended: {}", bridge.log());
            bridge.log().contains("/metrics")
        })
        .await;
        let log = bridge.log();
        let after = |start: &str| -> Vec<String> {
            log.lines()
                .filter_map(|line| Some(line.split_once(start)?.1.split(['"', '/']).next()?.to_owned()))
                .collect()
        };
        bridge.metrics_url = format!("http://{}", after("metrics are at http://")[0]);
        let (http, https) = (after("answered at http://"), after("answered at https://"));
        bridge.tls_url = https.first().map(|address| format!("https://{address}"));
        bridge.url = http
            .first()
            .map(|address| format!("http://{address}"))
            .or(bridge.tls_url.clone())
            .unwrap();
        bridge
    }

    /// Starts a server and waits until it is ready.
    pub async fn ready(arguments: &[&str]) -> Self {
        let bridge = Self::start(arguments).await;
        bridge.wait_ready().await;
        bridge
    }

    pub async fn wait_ready(&self) {
        eventually("the server is ready", Duration::from_secs(30), async || {
            self.get("/readyz").await.status == 200
        })
        .await;
    }

    /// The port machines use.
    pub fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Everything it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    pub async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let response = self.send(method, path, headers).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.unwrap().to_vec();
        Answer { status, headers, body }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }

    /// The script of a machine, which must be served.
    pub async fn script(&self, mac: &str) -> String {
        let answer = self.get(&format!("/ipxe-mac-boot/{mac}")).await;
        assert_eq!(answer.status, 200, "{mac}: {}", answer.text());
        answer.text().to_owned()
    }

    /// Whether the machine's script, if there is one, holds this text.
    pub async fn script_has(&self, mac: &str, text: &str) -> bool {
        let answer = self.get(&format!("/ipxe-mac-boot/{mac}")).await;
        answer.status == 200 && answer.text().contains(text)
    }

    pub async fn metrics(&self) -> String {
        let answer = self.client.get(format!("{}/metrics", self.metrics_url)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self, within: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.ended() {
                return status;
            }
            assert!(start.elapsed() < within, "the server did not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Resident memory in MiB: now and at its highest.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("last lines of the server's log:");
            tail.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Waits until something is true; the test fails when it takes longer than the limit. Gives how long it took.
#[track_caller]
pub fn eventually(what: &str, within: Duration, mut check: impl AsyncFnMut() -> bool) -> impl Future<Output = Duration> {
    let place = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            if check().await {
                return start.elapsed();
            }
            assert!(start.elapsed() < within, "{place}: not within {within:?}: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A script without the ids of its boot, which are others each time.
pub fn without_ids(script: &str) -> String {
    let mut pieces = script.split("?b=");
    let first = pieces.next().unwrap().to_owned();
    pieces.fold(first, |text, piece| {
        let end = piece.find([' ', '\n']).unwrap_or(piece.len());
        assert_eq!(end, 59, "{piece}");
        text + &piece[end..]
    })
}

/// Writes a file so that a reader never sees half of it.
pub fn write(path: &Path, text: impl AsRef<[u8]>) -> PathBuf {
    let aside = path.with_extension("tmp");
    fs::write(&aside, text).unwrap();
    fs::rename(&aside, path).unwrap();
    path.to_owned()
}
