//! A decision as the API shows it.

use poem_openapi::Object;
use poem_openapi::types::Example;

use crate::boot::decision::{Boot, Decision};
use crate::boot::kernel_arguments::ArgumentEdits;

/// Why a machine boots what it boots.
#[derive(Debug, Object)]
#[oai(example)]
pub struct Explanation {
    /// The machine.
    mac: String,
    /// What it boots: `Environment`, `Script`, `Chain`, `File`, `LocalDisk`, `Shell`, `Nothing`, `NotYet` or `Stop`.
    boot: String,
    /// The environment, if one boots.
    environment: Option<String>,
    /// Every rule in order; the last one decided.
    steps: Vec<StepView>,
    /// Changes to the kernel's command line, in the order in which they are made; empty unless an environment boots.
    kernel_arguments: Vec<ArgumentsView>,
    /// What upstream answered, if it had the last word.
    upstream: Option<String>,
    /// The exact script that the machine would get now.
    script: Option<String>,
    /// Why there is no script, if there is none.
    problem: Option<String>,
}

/// One change of a kernel's command line.
#[derive(Debug, Object)]
struct ArgumentsView {
    /// Who makes it.
    origin: String,
    /// What it does.
    change: String,
}

impl ArgumentsView {
    /// The environment's own line comes first, then the bridge's changes, then the override's.
    fn all(decision: &Decision, of_bridge: &ArgumentEdits) -> Vec<Self> {
        let Boot::Environment(environment, _) = &decision.boot else {
            return Vec::new();
        };
        let view = |origin: String, change: String| Self { origin, change };
        let own = view(format!("InfraEnv {}", environment.name), "the line in its script".to_owned());
        let of_bridge = (!of_bridge.is_empty()).then(|| view("--kernel-arguments".to_owned(), of_bridge.to_string()));
        let of_override = decision.by_override.as_ref().filter(|_| !decision.arguments.is_empty());
        let of_override = of_override.map(|by| view(format!("IpxeHostOverride {}", by.name), decision.arguments.to_string()));
        [Some(own), of_bridge, of_override].into_iter().flatten().collect()
    }
}

/// One rule and what came of it.
#[derive(Debug, Object)]
struct StepView {
    /// The rule.
    rule: String,
    /// Whether it applied.
    applied: bool,
    /// What was found.
    detail: String,
}

impl Explanation {
    /// A decision, and the script it leads to or why there is none.
    pub fn of(
        decision: &Decision,
        of_bridge: &ArgumentEdits,
        script: Option<String>,
        upstream: Option<String>,
        problem: Option<String>,
    ) -> Self {
        let environment = match &decision.boot {
            Boot::Environment(environment, _) => Some(environment.name.to_string()),
            _ => None,
        };
        Self {
            mac: decision.mac.to_string(),
            boot: decision.boot.name().to_owned(),
            environment,
            steps: decision
                .steps
                .iter()
                .map(|step| StepView {
                    rule: step.rule.to_string(),
                    applied: step.applied,
                    detail: step.detail.clone(),
                })
                .collect(),
            kernel_arguments: ArgumentsView::all(decision, of_bridge),
            upstream,
            script,
            problem,
        }
    }
}

impl Example for Explanation {
    fn example() -> Self {
        let step = |rule: &str, applied, detail: &str| StepView {
            rule: rule.to_owned(),
            applied,
            detail: detail.to_owned(),
        };
        Self {
            mac: "52:54:00:cc:00:01".to_owned(),
            boot: "LocalDisk".to_owned(),
            environment: None,
            steps: vec![
                step("Override", false, "no override names this MAC address"),
                step(
                    "BareMetalHost",
                    true,
                    "BareMetalHost lab/server-1 wants InfraEnv lab/discovery",
                ),
                step(
                    "BootPolicy",
                    true,
                    "UntilInstalled: Agent lab/1d0c52b4 is in state installed, so its disk boots",
                ),
            ],
            kernel_arguments: vec![],
            upstream: None,
            script: Some("#!ipxe\nexit 1\n".to_owned()),
            problem: None,
        }
    }
}
