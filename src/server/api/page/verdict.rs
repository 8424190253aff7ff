//! A decision in words for a person.

use crate::boot::decision::{Ask, Boot, Decision};

/// What a machine boots, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// What it boots.
    pub boots: String,
    /// Why.
    pub because: String,
    /// Whether a person has to do something before it boots.
    pub is_trouble: bool,
}

impl Verdict {
    /// Of a decision, before upstream is asked.
    pub fn of(decision: &Decision) -> Self {
        let by = decision.by_override.as_ref();
        let of_override = |what: &str| by.map_or(what.to_owned(), |by| format!("{what} of IpxeHostOverride {}", by.name));
        let (boots, because) = match &decision.boot {
            Boot::Environment(environment, Ask::ForEnvironment) => (format!("InfraEnv {}", environment.name), None),
            Boot::Environment(environment, Ask::ForHost) => {
                (format!("InfraEnv {}, unless the service says disk", environment.name), None)
            }
            Boot::File(file) => (format!("Host file {}", file.file), None),
            Boot::Script(_) | Boot::Template(_) => (of_override("Script"), None),
            Boot::Chain(_) => (of_override("Another server's script"), None),
            Boot::LocalDisk(_) => ("Its own disk".to_owned(), None),
            Boot::Shell => ("The iPXE shell".to_owned(), None),
            Boot::Nothing => ("Nothing: on to its next boot device".to_owned(), None),
            Boot::NotYet(awaited) => ("Waits".to_owned(), Some(awaited)),
            Boot::Stop(why) => ("Stops with a message".to_owned(), Some(why)),
        };
        Self {
            boots,
            because: because.map_or(decision.reason(), String::as_str).to_owned(),
            is_trouble: because.is_some(),
        }
    }
}
