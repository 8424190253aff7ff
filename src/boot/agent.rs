//! What an Agent of the Assisted Service says about its machine: still to be installed, or booting from its own disk?
//!
//! Source of the words: assisted-service `models/host_stage.go`, `internal/host/common.go`, `internal/host/statemachine.go`.

use std::fmt;

use super::mac::MacAddr;
use super::name::ObjectName;

/// An Agent as far as booting is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Namespace and name; the name is the host's UUID.
    pub name: ObjectName,
    /// The UID that the cluster gave it; empty outside of one.
    pub uid: String,
    /// When it was made, in seconds since 1970: of two Agents with one MAC the newer counts.
    pub created: i64,
    /// Every network card that the machine reported.
    pub macs: Vec<MacAddr>,
    /// How far its installation is.
    pub progress: Progress,
}

/// State and stage of an installation, as upstream spells them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// `status.debugInfo.state`, for example `installing-in-progress`; empty when not reported.
    pub state: String,
    /// `status.progress.currentStage`, for example `Writing image to disk`; empty when not reported.
    pub stage: String,
}

impl Progress {
    /// Whether the machine has its system on disk and must boot it: from here on the discovery image would undo work.
    ///
    /// A superset of what assisted-service answers itself (`canServeHostIPXEScript`): it also covers hosts that wait for a person
    /// because they booted the discovery image by mistake, and finished day-2 nodes.
    pub fn boots_from_disk(&self) -> bool {
        match self.state.as_str() {
            "installed" | "added-to-existing-cluster" | "installing-pending-user-action" => true,
            "installing-in-progress" => matches!(
                self.stage.as_str(),
                "Rebooting" | "Waiting for ignition" | "Configuring" | "Joined" | "Done"
            ),
            _ => false,
        }
    }
}

/// On one line, whatever the words are: it becomes a part of lines of the log.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.state.as_str(), self.stage.as_str()) {
            ("", _) => f.write_str("no state yet"),
            (state, "") => write!(f, "state {}", state.escape_debug()),
            (state, stage) => write!(f, "state {}, stage {}", state.escape_debug(), stage.escape_debug()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_that_are_none_stay_on_their_line() {
        let odd = super::Progress {
            state: "installed".to_owned(),
            stage: "Done\n\x1b[31mINFO another line".to_owned(),
        };
        assert_eq!(odd.to_string(), r"state installed, stage Done\n\u{1b}[31mINFO another line");
    }

    use super::*;

    fn boots_from_disk(state: &str, stage: &str) -> bool {
        Progress {
            state: state.to_owned(),
            stage: stage.to_owned(),
        }
        .boots_from_disk()
    }

    #[test]
    fn a_finished_machine_boots_from_disk() {
        for state in ["installed", "added-to-existing-cluster", "installing-pending-user-action"] {
            for stage in ["", "Done", "Rebooting", "Writing image to disk"] {
                assert!(boots_from_disk(state, stage), "{state} {stage}");
            }
        }
        for stage in ["Rebooting", "Waiting for ignition", "Configuring", "Joined", "Done"] {
            assert!(boots_from_disk("installing-in-progress", stage), "{stage}");
        }
    }

    #[test]
    fn a_machine_before_its_reboot_boots_the_discovery_image() {
        for stage in [
            "",
            "Starting installation",
            "Installing",
            "Writing image to disk",
            "Copying registry data to disk",
            "Waiting for control plane",
            "Waiting for bootkube",
            "Waiting for controller",
            "Failed",
        ] {
            assert!(!boots_from_disk("installing-in-progress", stage), "{stage}");
        }
        for state in [
            "",
            "discovering",
            "known",
            "known-unbound",
            "insufficient",
            "disconnected",
            "disabled",
            "pending-for-input",
            "binding",
            "unbinding",
            "unbinding-pending-user-action",
            "preparing-for-installation",
            "preparing-failed",
            "preparing-successful",
            "installing",
            "error",
            "cancelled",
            "resetting",
            "resetting-pending-user-action",
            "reclaiming",
            "reclaiming-rebooting",
        ] {
            // An error after the reboot still wants the discovery image: the state decides, the stage is what was reached.
            for stage in ["", "Rebooting", "Done"] {
                assert!(!boots_from_disk(state, stage), "{state} {stage}");
            }
        }
    }
}
