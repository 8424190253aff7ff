//! `ipxe-bridge explain`: why a machine boots what it boots, asked of a running bridge, or decided here from files.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use poem_openapi::types::{ParseFromJSON as _, ToJSON as _};

use crate::boot::artifact::PublicUrl;
use crate::boot::decision::Boot;
use crate::boot::kernel_arguments::ArgumentEdits;
use crate::boot::local_disk::LocalDisk;
use crate::boot::policy::Policy;
use crate::boot::render;
use crate::cli::ExplainArgs;
use crate::offline::Files;
use crate::server::api::inventory::explanation::{Explained, Explanation};

/// Longest time that a bridge may take: it may have to ask upstream for the script.
const LIMIT: Duration = Duration::from_secs(30);

/// The explanation, as text for people or as JSON.
///
/// # Errors
///
/// If a file or folder cannot be read, or the bridge gives no answer or none that this version understands.
pub fn explain(args: &ExplainArgs, now: i64) -> anyhow::Result<String> {
    let explanation = match args.files.is_empty() {
        true => ask(args)?,
        false => decide(args, now)?,
    };
    let note = match args.files.is_empty() {
        true => "",
        false => "\nDecided from files with the default settings of a bridge but for the policies.\n",
    };
    Ok(match args.output.is_json() {
        true => format!("{}\n", serde_json::to_string_pretty(&explanation.to_json())?),
        false => format!("{explanation}{note}"),
    })
}

fn ask(args: &ExplainArgs) -> anyhow::Result<Explanation> {
    let mut client = reqwest::blocking::Client::builder().timeout(LIMIT);
    if let Some(file) = &args.ca {
        let read = |file: &PathBuf| Ok::<_, anyhow::Error>(reqwest::Certificate::from_pem_bundle(&std::fs::read(file)?)?);
        client =
            client.tls_certs_merge(read(file).with_context(|| format!("--ca {}: expected certificates (PEM)", file.display()))?);
    }
    let nics: Vec<String> = args.nics.iter().map(ToString::to_string).collect();
    let nics = if nics.is_empty() {
        String::new()
    } else {
        format!("?nics={}", nics.join(","))
    };
    let address = format!("{}/explain/{}{nics}", args.url, args.mac);
    let answer = client.build()?.get(&address).send();
    let answer = answer.with_context(|| format!("no bridge answers at {}: set --url, or ask files with --file", args.url))?;
    let (status, body) = (answer.status(), answer.bytes()?);
    let body: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    if !status.is_success() {
        let detail = body
            .as_ref()
            .and_then(|problem| problem["detail"].as_str())
            .unwrap_or("no reason");
        anyhow::bail!("{} answers {status}: {detail}", args.url);
    }
    Explanation::parse_from_json(body)
        .map_err(|_| anyhow::anyhow!("what answers at {} is no ipxe-bridge of this version", args.url))
}

fn decide(args: &ExplainArgs, now: i64) -> anyhow::Result<Explanation> {
    for path in args.files.iter().filter(|path| path.as_os_str() != "-") {
        anyhow::ensure!(path.exists(), "--file {}: there is no such file or folder", path.display());
    }
    let inventory = Files::read(&args.files)?.inventory;
    let policy = Policy {
        boot: args.boot_policy,
        unknown: args.unknown_hosts,
    };
    let decision = inventory.decide_for_machine(args.mac, &args.nics, policy, now);
    let bridge: &PublicUrl = &args.url;
    let (script, problem) = match &decision.boot {
        Boot::Environment(environment, _) => {
            let why = format!(
                "the script of InfraEnv {} is the service's to tell: ask a running bridge",
                environment.name
            );
            (None, Some(why))
        }
        Boot::NotYet(awaited) => (None, Some(format!("{awaited}; the machine is told to ask again"))),
        _ => match render::own_script(&decision, LocalDisk::default(), (bridge, None)) {
            Some(script) => (Some(script), None),
            None => (None, Some("the machine goes on to its next boot device".to_owned())),
        },
    };
    let explained = Explained {
        inventory: &inventory,
        decision: &decision,
        policy,
        of_bridge: &ArgumentEdits::default(),
        now,
    };
    Ok(explained.view(script, None, problem))
}
