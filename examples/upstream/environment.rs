//! The environments the services know, their tokens and their hosts.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

/// An InfraEnv as the services keep it.
#[derive(Debug, Clone, Default)]
pub struct EnvironmentSpec {
    /// The id in its URLs, which is not the uid of the Kubernetes object.
    pub id: String,
    /// The only token that opens it, without an end of validity (assisted-service `internal/gencrypto/token.go`).
    pub token: String,
    /// The OpenShift version of its OS image, such as `4.19`.
    pub version: String,
    /// `x86_64`, `arm64`, `ppc64le` or `s390x`.
    pub arch: String,
    /// Whether its script URL asks for boot-order control.
    pub boot_order_control: bool,
    /// Appended to the kernel line, joined with blanks and otherwise as they are.
    pub kernel_arguments: Vec<String>,
    /// The hosts that registered from its image.
    pub hosts: Vec<HostSpec>,
}

/// A host that registered.
#[derive(Debug, Clone, Default)]
pub struct HostSpec {
    /// The host's id, which is also the name of its Agent.
    pub id: String,
    /// The MAC addresses in its inventory, as it reported them.
    pub macs: Vec<String>,
    /// Such as `known` or `installing-in-progress`.
    pub state: String,
    /// The installation stage, such as `Rebooting`; empty before an installation.
    pub stage: String,
}

/// What the services say about an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// It is there.
    Present,
    /// Deleted, and its token is still cached.
    Deleted,
    /// Deleted for longer, and its token is refused.
    Forgotten,
}

/// An environment with what changes about it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As it was given.
    pub spec: EnvironmentSpec,
    /// Whether it is still there.
    pub existence: Existence,
    /// The database's time of the last change.
    pub updated: SystemTime,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Directory {
    entries: Vec<Entry>,
}

/// Why a request with a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// 401, no token at all.
    NoToken,
    /// 401 with this message.
    BadToken(String),
    /// 404: a token for something else, or an id that never was one.
    Foreign,
    /// 404: deleted.
    Deleted,
}

impl Directory {
    /// Adds an environment or replaces the one of the same id.
    pub fn put(&mut self, spec: EnvironmentSpec, now: SystemTime) {
        self.entries.retain(|entry| entry.spec.id != spec.id);
        self.entries.push(Entry {
            spec,
            existence: Existence::Present,
            updated: now,
        });
    }

    /// The environment of this id, whether deleted or not.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.spec.id == id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: &str) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.spec.id == id)
    }

    /// Whether there is an OS image for this version and architecture.
    pub fn has_image(&self, version: &str, arch: &str) -> bool {
        self.entries
            .iter()
            .any(|entry| entry.spec.version == version && entry.spec.arch == arch)
    }

    /// Whether the token opens the environment (assisted-service `pkg/auth/local_authenticator.go`,
    /// `docs/enhancements/local-auth-token-resource-scoping.md`).
    pub fn check_token(&self, id: &str, token: Option<&str>) -> Result<(), Refusal> {
        let token = token.filter(|token| !token.is_empty()).ok_or(Refusal::NoToken)?;
        if token.split('.').count() != 3 {
            return Err(Refusal::BadToken(
                "Failed to parse token: token contains an invalid number of segments\n".to_owned(),
            ));
        }
        // Text of the Go library for a signature that does not fit.
        let owner = self
            .entries
            .iter()
            .find(|entry| entry.spec.token == token)
            .ok_or_else(|| Refusal::BadToken("Failed to parse token: crypto/ecdsa: verification error\n".to_owned()))?;
        match owner.existence {
            Existence::Forgotten => Err(Refusal::BadToken(format!("infraEnv {} does not exist", owner.spec.id))),
            _ if owner.spec.id != id => Err(Refusal::Foreign),
            Existence::Deleted => Err(Refusal::Deleted),
            Existence::Present => Ok(()),
        }
    }
}

impl Entry {
    /// Moves the time of the last change on, by at least the second that a header can show.
    pub fn touch(&mut self, now: SystemTime) {
        self.updated = now.max(self.updated + Duration::from_secs(1));
    }
}

impl EnvironmentSpec {
    /// Whether a machine with this MAC gets a script, or else the status and the reason
    /// (assisted-service `internal/bminventory/inventory_v2_handlers.go`, `canServeHostIPXEScript`).
    ///
    /// Only the all-lower and the all-upper form of the text as given are looked for in the inventories, so a MAC with hyphens,
    /// dots or without separators finds nobody.
    pub fn boot_refusal(&self, mac: &str) -> Option<(u16, String)> {
        let spellings = BTreeSet::from([mac.to_lowercase(), mac.to_uppercase()]);
        let found: Vec<_> = self
            .hosts
            .iter()
            .filter(|host| host.macs.iter().any(|mac| spellings.contains(mac)))
            .collect();
        let host = match found.as_slice() {
            [] => return None,
            [host] => host,
            several => {
                let reason = format!(
                    "IPXE booting skipped. Unexpected number of hosts {} with mac {mac}",
                    several.len()
                );
                return Some((500, reason));
            }
        };
        let why = match (host.state.as_str(), host.stage.as_str()) {
            ("installed", _) => "is already installed".to_owned(),
            ("installing-in-progress", stage @ ("Rebooting" | "Waiting for ignition" | "Configuring" | "Joined" | "Done")) => {
                format!("is in stage {stage}")
            }
            _ => return None,
        };
        let reason = format!(
            "IPXE booting skipped. InfraEnv {}: host {} having mac {mac} {why}",
            self.id, host.id
        );
        Some((404, reason))
    }
}
