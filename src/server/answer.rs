//! From a decision to the script a machine gets: upstream is asked where the decision says so.

use std::sync::Arc;

use crate::boot::artifact::{PublicUrl, UpstreamUrl};
use crate::boot::decision::{Ask, Boot, Decision};
use crate::boot::environment::Environment;
use crate::boot::inventory::Inventory;
use crate::boot::mac::MacAddr;
use crate::boot::render;
use crate::boot::script::{BootScript, ScriptError, UpstreamScript};

use super::context::Context;
use super::trouble::Trouble;
use super::upstream::{ScriptAnswer, UpstreamError};

/// A script and what was decided on the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The script.
    pub script: String,
    /// What it boots, by the name of [`Boot`]: upstream may have had the last word.
    pub boots: &'static str,
    /// What upstream added to the decision, if it had the last word.
    pub upstream: Option<String>,
}

/// What upstream says about one machine.
enum Word {
    /// Its script.
    Script(Arc<BootScript>),
    /// It is to boot its disk.
    Disk(String),
    /// Several hosts have its MAC address.
    Doubled(String),
}

impl Context {
    /// The script for a decision; with the id of a boot in the addresses of its files, if it is one.
    pub async fn answer(
        &self,
        inventory: &Inventory,
        decision: &Decision,
        bridge: &PublicUrl,
        boot: Option<&str>,
    ) -> Result<Answer, Trouble> {
        let local_disk = self.settings.local_disk;
        match &decision.boot {
            Boot::Environment(environment, ask) => {
                let word = self.ask(environment, *ask, decision.mac).await.map_err(Trouble::Upstream)?;
                match word {
                    Word::Script(script) => {
                        let script = render::environment_script(
                            &script,
                            Some(decision.mac),
                            decision.origin(),
                            &environment.name,
                            (bridge, boot),
                            &[&self.settings.kernel_arguments, &decision.arguments],
                        );
                        let script = script.map_err(|error| Trouble::Upstream(error.into()))?;
                        Ok(Answer {
                            script,
                            boots: decision.boot.name(),
                            upstream: None,
                        })
                    }
                    Word::Disk(reason) => {
                        let reason = format!("the service says: {reason}");
                        let script = render::local_disk_script(decision.mac, &reason, local_disk);
                        Ok(Answer {
                            script: script.ok_or_else(|| Trouble::NothingToBoot(reason.clone()))?,
                            boots: "LocalDisk",
                            upstream: Some(reason),
                        })
                    }
                    Word::Doubled(reason) => {
                        let why = doubled(inventory, environment, decision.mac, &reason);
                        Ok(Answer {
                            script: render::stop_script(decision.mac, &why),
                            boots: "Stop",
                            upstream: Some(why),
                        })
                    }
                }
            }
            Boot::NotYet(awaited) => Err(Trouble::NotYet(awaited.clone())),
            Boot::Nothing => Err(Trouble::NothingToBoot(decision.reason().to_owned())),
            Boot::File(_)
            | Boot::Script(_)
            | Boot::Template(_)
            | Boot::Chain(_)
            | Boot::LocalDisk(_)
            | Boot::Shell
            | Boot::Stop(_) => render::own_script(decision, local_disk, (bridge, boot))
                .map(|script| Answer {
                    script,
                    boots: decision.boot.name(),
                    upstream: None,
                })
                .ok_or_else(|| Trouble::NothingToBoot(decision.reason().to_owned())),
        }
    }

    /// The environment's script without any machine's MAC address, with the bridge's addresses.
    pub async fn environment_script(&self, environment: &Environment, bridge: &PublicUrl) -> Result<String, Trouble> {
        let url = script_url(environment)?.with_parameter("ipxe_script_type", None);
        let script = match self.scripts.get(&self.upstream, &url).await.map_err(Trouble::Upstream)? {
            UpstreamScript::Boot(script) => script,
            UpstreamScript::Redirect => {
                return Err(Trouble::Upstream(
                    ScriptError::Command {
                        command: "kernel",
                        found: 0,
                    }
                    .into(),
                ));
            }
        };
        render::environment_script(
            &script,
            None,
            "its own script",
            &environment.name,
            (bridge, None),
            &[&self.settings.kernel_arguments],
        )
        .map_err(|error| Trouble::Upstream(error.into()))
    }

    async fn ask(&self, environment: &Environment, ask: Ask, mac: MacAddr) -> Result<Word, UpstreamError> {
        let Some(url) = &environment.artifacts.ipxe_script else {
            // The decision waits for environments without a script address.
            return Err(UpstreamError::Contradiction("no script address"));
        };
        if ask == Ask::ForEnvironment {
            // Without this parameter and without a MAC address upstream gives the boot script itself, whatever the environment's type.
            let plain = url.with_parameter("ipxe_script_type", None);
            if let UpstreamScript::Boot(script) = self.scripts.get(&self.upstream, &plain).await? {
                return Ok(Word::Script(Arc::new(script)));
            }
        }
        // Never the address in a redirect script: it may lack the path prefix that the environment's own has.
        match self
            .upstream
            .script(&url.with_parameter("mac", Some(&mac.to_string())))
            .await?
        {
            ScriptAnswer::Skipped(reason) => Ok(Word::Disk(reason)),
            ScriptAnswer::Doubled(reason) => Ok(Word::Doubled(reason)),
            ScriptAnswer::Script(body) => match UpstreamScript::parse(&body)? {
                UpstreamScript::Boot(script) => Ok(Word::Script(Arc::new(script))),
                UpstreamScript::Redirect => Err(ScriptError::Command {
                    command: "kernel",
                    found: 0,
                }
                .into()),
            },
        }
    }

    /// Upstream's script for one machine as it is, token included.
    pub async fn unchanged_script(&self, environment: &Environment, mac: MacAddr) -> Result<Vec<u8>, Trouble> {
        let url = script_url(environment)?.with_parameter("mac", Some(&mac.to_string()));
        match self.upstream.script(&url).await.map_err(Trouble::Upstream)? {
            ScriptAnswer::Script(body) => Ok(body),
            ScriptAnswer::Skipped(reason) => Err(Trouble::NothingToBoot(format!("the service says: {reason}"))),
            ScriptAnswer::Doubled(reason) => Err(Trouble::NotYet(format!("the service says: {reason}"))),
        }
    }
}

fn script_url(environment: &Environment) -> Result<&UpstreamUrl, Trouble> {
    let missing = || Trouble::NoArtifact(format!("InfraEnv {} has no ipxeScript yet", environment.name));
    environment.artifacts.ipxe_script.as_ref().ok_or_else(missing)
}

/// Names the hosts that upstream only counts.
fn doubled(inventory: &Inventory, environment: &Environment, mac: MacAddr, reason: &str) -> String {
    let agents: Vec<String> = inventory
        .agents(mac)
        .unwrap_or_default()
        .iter()
        .filter(|agent| agent.name.namespace() == environment.name.namespace())
        .map(|agent| agent.name.to_string())
        .collect();
    match agents.is_empty() {
        true => format!("the service says: {reason}"),
        false => format!(
            "the service has several hosts with this MAC address: Agents {}",
            agents.join(" and ")
        ),
    }
}
