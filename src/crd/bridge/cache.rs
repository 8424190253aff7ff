//! Where the pods keep kernels and root file systems.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Switch;

/// The artifact cache of the pods.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// `Enabled`: each pod fetches a kernel or root file system once and keeps it. `Disabled`: each machine's files are fetched for it alone.
    #[serde(default = "Switch::enabled")]
    pub mode: Switch,
    /// Bytes that the cache of one pod may hold: `5Gi`, `500M`. A build of an image takes about 1.2 GB. What was not used for longest goes first.
    #[serde(default = "size")]
    #[schemars(length(max = 16), regex(pattern = r"^[1-9][0-9]{0,14}(k|M|G|T|Ki|Mi|Gi|Ti)?$"))]
    pub size: String,
    /// `Enabled`: new builds are fetched as soon as an InfraEnv shows them, so that the first machine is as fast as the others.
    #[serde(default = "Switch::disabled")]
    pub prefetch: Switch,
    /// A volume of the bridge's namespace that keeps the cache when pods go. One pod uses it at a time: with `spec.replicas: 1`. Default: room
    /// on the pod's node (`emptyDir`), which goes with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<VolumeClaim>,
    /// Group that may write the volume, where its files belong to root. Leave it out on OpenShift, which sets one by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            mode: Switch::Enabled,
            size: size(),
            prefetch: Switch::Disabled,
            persistent_volume_claim: None,
            fs_group: None,
        }
    }
}

fn size() -> String {
    "5Gi".to_owned()
}

/// A PersistentVolumeClaim.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaim {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub claim_name: String,
}
