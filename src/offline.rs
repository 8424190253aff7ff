//! Commands for a folder of YAML without a server: what a machine would boot, and what is wrong. Made for the checks of a pull request.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use serde::Serialize;

use crate::boot::artifact::PublicUrl;
use crate::boot::decision::{Boot, Decision};
use crate::boot::inventory::Inventory;
use crate::boot::local_disk::LocalDisk;
use crate::boot::mac::MacAddr;
use crate::boot::policy::Policy;
use crate::boot::render;
use crate::server::manifests::{self, Place};
use crate::server::sources;

/// What files and folders hold.
#[derive(Debug)]
pub struct Files {
    /// Their objects, joined.
    pub inventory: Inventory,
    /// Where each object is written, by kind, namespace and name (`IpxeHostOverride lab/rescue`).
    places: BTreeMap<String, Place>,
}

impl Files {
    /// Reads files and folders. Fails if one of them cannot be read at all.
    pub fn read(paths: &[PathBuf]) -> std::io::Result<Self> {
        let (mut items, mut places) = (Vec::new(), BTreeMap::new());
        for path in paths {
            let read = match path.as_os_str() == "-" {
                true => manifests::read_text("standard input", std::io::read_to_string(std::io::stdin())?),
                false => manifests::read_once(path)?,
            };
            items.extend(read.items.into_values());
            places.extend(read.places);
        }
        let inventory = Inventory::join(sources::observed(items.iter()));
        Ok(Self { inventory, places })
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The file, and the line at which the object or the mistake begins.
    #[serde(flatten)]
    place: Option<Place>,
    /// The object, if one could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    /// What is wrong and what would be right.
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong with objects, their scripts, and among them, in a stable order.
pub fn lint(files: &Files) -> Vec<Finding> {
    let Files { inventory, places } = files;
    let of_object = |object: &str, message: String| Finding {
        place: places.get(object).cloned(),
        object: Some(object.to_owned()),
        message,
    };
    let mut findings = Vec::new();
    for skipped in inventory.skipped() {
        findings.push(match Place::parse(&skipped.object) {
            Some(place) => Finding {
                place: Some(place),
                object: None,
                message: skipped.cause.clone(),
            },
            None => of_object(&format!("{} {}", skipped.kind, skipped.object), skipped.cause.clone()),
        });
    }
    for conflict in inventory.conflicts() {
        for object in &conflict.objects {
            let others: Vec<&str> = conflict
                .objects
                .iter()
                .filter(|other| *other != object)
                .map(String::as_str)
                .collect();
            let (subject, outcome) = (&conflict.subject, &conflict.outcome);
            findings.push(of_object(
                object,
                format!("{subject} is claimed by {} too: {outcome}", others.join(", ")),
            ));
        }
    }
    for (name, reach) in inventory.all_overrides() {
        let object = format!("IpxeHostOverride {name}");
        if let Err(cause) = inventory.servable(reach) {
            findings.push(of_object(&object, cause));
        }
        let mistakes = inventory.script_mistakes(reach).into_iter();
        findings.extend(mistakes.map(|mistake| of_object(&object, format!("its script, {mistake}"))));
    }
    findings.sort();
    findings.dedup();
    findings
}

/// What a machine would boot at this second since 1970, and why. An environment's script is the service's to tell, so for an
/// environment only its name and the changes to its command line are said. With default settings.
pub fn render(inventory: &Inventory, mac: MacAddr, bridge: &PublicUrl, now: i64) -> String {
    let decision = inventory.decide(mac, Policy::default(), now);
    let mut text = "# with the default settings of a bridge\n".to_owned();
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
    text + &outcome(&decision, bridge)
}

fn outcome(decision: &Decision, bridge: &PublicUrl) -> String {
    match &decision.boot {
        Boot::Environment(environment, _) if decision.arguments.is_empty() => format!("# boots InfraEnv {}\n", environment.name),
        Boot::Environment(environment, _) => format!(
            "# boots InfraEnv {}, kernel arguments {}\n",
            environment.name, decision.arguments
        ),
        Boot::NotYet(awaited) => format!("# waits: {awaited}\n"),
        _ => match render::own_script(decision, LocalDisk::default(), (bridge, None)) {
            Some(script) => script,
            None => "# boots nothing from the network\n".to_owned(),
        },
    }
}
