//! Commands for a folder of YAML without a server: what a machine would boot, and what is wrong. Made for the checks of a pull request.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::boot::decision::{Boot, Decision};
use crate::boot::host_override::Action;
use crate::boot::inventory::Inventory;
use crate::boot::local_disk::LocalDisk;
use crate::boot::mac::MacAddr;
use crate::boot::policy::Policy;
use crate::boot::render;
use crate::boot::script_check;
use crate::server::{manifests, sources};

/// The inventory of files and folders.
pub fn inventory(paths: &[PathBuf]) -> std::io::Result<Inventory> {
    let mut items = Vec::new();
    for path in paths {
        items.extend(manifests::read_once(path)?.into_values());
    }
    Ok(Inventory::join(sources::observed(items.iter())))
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The object or file with its line.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with objects, their scripts, and among them, in a stable order.
pub fn lint(inventory: &Inventory) -> Vec<Finding> {
    let finding = |place: String, message: String| Finding { place, message };
    let skipped = inventory
        .skipped()
        .iter()
        .map(|skipped| finding(skipped.object.clone(), skipped.cause.clone()));
    let conflicts = inventory.conflicts().iter().map(|conflict| {
        finding(
            conflict.objects.join(", "),
            format!("{}: {}", conflict.subject, conflict.outcome),
        )
    });
    let mut findings: Vec<Finding> = skipped.chain(conflicts).collect();
    for (name, (host_override, _)) in inventory.all_overrides() {
        if let Some(Action::Script(script)) = &host_override.action {
            let mistakes = script_check::mistakes(script).into_iter();
            findings.extend(mistakes.map(|mistake| finding(format!("IpxeHostOverride {name}"), format!("spec.script: {mistake}"))));
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// What a machine would boot at this second since 1970, and why. An environment's script is the service's to tell, so for an
/// environment only its name and the changes to its command line are said.
pub fn render(inventory: &Inventory, mac: MacAddr, now: i64) -> String {
    let decision = inventory.decide(mac, Policy::default(), now);
    let mut text = String::new();
    for step in &decision.steps {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# {} {}: {}",
            if step.applied { "+" } else { "-" },
            step.rule,
            step.detail
        );
    }
    text + &outcome(&decision)
}

fn outcome(decision: &Decision) -> String {
    match &decision.boot {
        Boot::Environment(environment, _) if decision.arguments.is_empty() => format!("# boots InfraEnv {}\n", environment.name),
        Boot::Environment(environment, _) => format!(
            "# boots InfraEnv {}, kernel arguments {}\n",
            environment.name, decision.arguments
        ),
        Boot::NotYet(awaited) => format!("# waits: {awaited}\n"),
        _ => match render::own_script(decision, LocalDisk::default()) {
            Some(script) => script,
            None => "# boots nothing from the network\n".to_owned(),
        },
    }
}
