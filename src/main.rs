//! Parses the command line, starts telemetry, runs one command.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use ipxe_bridge::cache_folder;
use ipxe_bridge::cli::{CacheAction, Cli, Command, NetbootArgs, OperatorArgs, ServerArgs};
use ipxe_bridge::explain;
use ipxe_bridge::migrate;
use ipxe_bridge::netboot::{self, Netboot};
use ipxe_bridge::offline;
use ipxe_bridge::operator;
use ipxe_bridge::server::{self, Server};
use ipxe_bridge::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Many small blocks for every request, from several threads: docs/decisions/0019-allocator.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// After so many steps of tasks a busy thread looks for new connections. A step of a transfer moves up to half a megabyte, so the
/// runtime's own interval of 61 would make a script wait for tens of milliseconds while something big is on its way.
const EVENT_INTERVAL: u32 = 4;

fn main() -> ExitCode {
    match run(Cli::from_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // The first use of TLS would panic without a provider; a second call is no harm.
    rustls::crypto::ring::default_provider().install_default().ok();
    match cli.command {
        Command::Server(args) => {
            raise_file_limit();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .event_interval(EVENT_INTERVAL)
                .build()?;
            let guard = runtime.block_on(async { telemetry::start(&cli.log) })?;
            let result = runtime.block_on(serve(*args));
            // The last spans may need the runtime.
            drop(guard);
            // A thread that reads from a file system that hangs must not hold up the end.
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        }
        Command::Operator(args) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let _guard = runtime.block_on(async { telemetry::start(&cli.log) })?;
            runtime.block_on(operate(args))
        }
        Command::Netboot(args) => {
            raise_file_limit();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            let _guard = runtime.block_on(async { telemetry::start(&cli.log) })?;
            runtime.block_on(answer_boot_network(*args))
        }
        Command::Render { files, mac, uri } => {
            let now = jiff::Timestamp::now().as_second();
            print(&offline::render(&offline::Files::read(&files)?.inventory, mac, &uri, now))
        }
        Command::Explain(args) => print(&explain::explain(&args, jiff::Timestamp::now().as_second())?),
        Command::Lint { files, json } => lint(&files, json),
        Command::Cache { action, cache_dir } => look_into_cache(&action, &cache_dir),
        Command::ConvertHostFiles { directory, namespace } => convert_host_files(&directory, &namespace),
        Command::Crd => {
            for definition in ipxe_bridge::crd::all() {
                print(&format!("---\n{}", serde_saphyr::to_string(&definition)?))?;
            }
            Ok(())
        }
        Command::Openapi => print(&format!("{}\n", server::api::spec()?)),
    }
}

/// Prints a text as it is. Whoever reads only its beginning, as `head` does, is not told of an error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Prints what is wrong, and fails if anything is.
fn lint(files: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let findings = offline::lint(&offline::Files::read(files)?);
    for finding in &findings {
        match json {
            true => print(&format!("{}\n", serde_json::to_string(finding)?))?,
            false => print(&format!("{finding}\n"))?,
        }
    }
    let some = if findings.len() == 1 { "finding" } else { "findings" };
    anyhow::ensure!(findings.is_empty(), "{} {some}", findings.len());
    Ok(())
}

/// Lists, verifies or prunes a cache's folder.
fn look_into_cache(action: &CacheAction, folder: &Path) -> anyhow::Result<()> {
    match action {
        CacheAction::Ls { json } => {
            for line in cache_folder::list(folder)? {
                match json {
                    true => print(&format!("{}\n", serde_json::to_string(&line)?))?,
                    false => print(&format!("{line}\n"))?,
                }
            }
            Ok(())
        }
        CacheAction::Verify => {
            let mut damaged = 0;
            for (line, result) in cache_folder::verify(folder)? {
                let word = match result {
                    Ok(true) => "whole".to_owned(),
                    Ok(false) => "DAMAGED".to_owned(),
                    Err(error) => format!("UNREADABLE ({error})"),
                };
                damaged += usize::from(word != "whole");
                print(&format!("{word}  {line}\n"))?;
            }
            anyhow::ensure!(
                damaged == 0,
                "{damaged} damaged; a server fetches them again by itself when it starts"
            );
            Ok(())
        }
        CacheAction::Prune { unused_for } => {
            for line in cache_folder::prune(folder, *unused_for, SystemTime::now())? {
                print(&format!("removed  {line}\n"))?;
            }
            Ok(())
        }
    }
}

/// Prints the overrides; what was not converted is told on standard error, and fails the command.
fn convert_host_files(directory: &Path, namespace: &str) -> anyhow::Result<()> {
    let converted = migrate::read(directory, namespace).with_context(|| format!("{} cannot be read", directory.display()))?;
    for host_override in &converted.overrides {
        print(&format!("---\n{}", serde_saphyr::to_string(host_override)?))?;
    }
    for left in &converted.left {
        eprintln!("not converted: {left}");
    }
    anyhow::ensure!(converted.left.is_empty(), "{} files were not converted", converted.left.len());
    Ok(())
}

/// Runs the server until SIGTERM or Ctrl-C, then lets downloads finish; a second signal ends it at once.
async fn serve(args: ServerArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked_to_end = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let drain = args.drain_timeout;
    let (interfaces, programs, uri, host) = (args.netboot.clone(), args.boot_programs.clone(), args.uri.clone(), args.host);
    let server = Server::start(args).await?;
    let netboot = match interfaces.is_empty() {
        true => None,
        false => Some(Netboot::start(netboot::Settings::beside(interfaces, server.address, uri, programs, host)).await?),
    };
    asked_to_end().await;
    if let Some(netboot) = netboot {
        netboot.stop().await;
    }
    tracing::info!("no new connections; downloads in progress have {drain:?} to finish");
    tokio::select! {
        complete = server.stop() => match complete {
            true => tracing::info!("the end"),
            false => tracing::warn!("the time is over, downloads were cut"),
        },
        () = asked_to_end() => tracing::warn!("asked a second time, connections are cut"),
    }
    Ok(())
}

/// Runs the operator until SIGTERM or Ctrl-C.
async fn operate(args: OperatorArgs) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let end = CancellationToken::new();
    let asked = end.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    operator::run(args, end).await
}

/// Answers machines of the boot network until SIGTERM or Ctrl-C.
async fn answer_boot_network(args: NetbootArgs) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let netboot = Netboot::start(args.into()).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    netboot.stop().await;
    tracing::info!("the end");
    Ok(())
}

/// Every connection is a file descriptor, and the usual limit of 1024 is below the number of machines of some racks.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}
