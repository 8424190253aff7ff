//! Environments and hosts: an InfraEnv and a BareMetalHost as the bridge sees them.

use super::artifact::{ArtifactKind, UpstreamUrl};
use super::mac::MacAddr;
use super::name::ObjectName;
use super::selector::Labels;

/// An InfraEnv: one discovery image and the script that boots it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Namespace and name.
    pub name: ObjectName,
    /// The UID that the cluster gave it; empty outside of one.
    pub uid: String,
    /// Creation time in seconds since 1970; older objects win conflicts.
    pub created: i64,
    /// Whether it serves machines that nothing else names.
    pub is_default: bool,
    /// Whether its owner wants upstream asked for every single machine (`spec.ipxeScriptType: BootOrderControl`).
    pub boot_order_control: bool,
    /// Where its artifacts are.
    pub artifacts: ArtifactUrls,
    /// What a person should know before trusting it.
    pub warnings: Vec<String>,
}

/// `InfraEnv.status.bootArtifacts`; an entry that is absent or empty upstream is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArtifactUrls {
    /// The kernel.
    pub kernel: Option<UpstreamUrl>,
    /// The initial RAM disk.
    pub initrd: Option<UpstreamUrl>,
    /// The root file system.
    pub rootfs: Option<UpstreamUrl>,
    /// The iPXE script.
    pub ipxe_script: Option<UpstreamUrl>,
}

impl ArtifactUrls {
    /// The address of one kind.
    pub fn get(&self, kind: ArtifactKind) -> Option<&UpstreamUrl> {
        match kind {
            ArtifactKind::Kernel => self.kernel.as_ref(),
            ArtifactKind::Initrd => self.initrd.as_ref(),
            ArtifactKind::Rootfs => self.rootfs.as_ref(),
            ArtifactKind::IpxeScript => self.ipxe_script.as_ref(),
        }
    }

    /// The kinds that have no address yet.
    pub fn missing(&self) -> Vec<ArtifactKind> {
        ArtifactKind::ALL
            .into_iter()
            .filter(|kind| self.get(*kind).is_none())
            .collect()
    }
}

/// A BareMetalHost with a boot MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Namespace and name.
    pub name: ObjectName,
    /// The UID that the cluster gave it; empty outside of one.
    pub uid: String,
    /// Creation time in seconds since 1970; older objects win conflicts.
    pub created: i64,
    /// The network card it boots from.
    pub mac: MacAddr,
    /// All its labels.
    pub labels: Labels,
    /// The environment its label names, always in its own namespace; `None` without the label.
    pub environment: Option<ObjectName>,
}
