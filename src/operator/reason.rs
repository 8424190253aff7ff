//! Why a condition is as it is: a closed list, each with a row in `docs/operations.md`.

use strum::{Display, EnumString, VariantArray};

/// Why a condition is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display, EnumString, VariantArray)]
pub enum Reason {
    /// Everything is as the spec wants it.
    AsExpected,
    /// Pods answer machines.
    PodsReady,
    /// No pod answers machines.
    NoReadyPods,
    /// The spec wants no pods.
    ScaledToZero,
    /// New pods are starting, or old ones going.
    RollingOut,
    /// Something that the pods need and another program makes is not there yet: a certificate, a bundle of certificates.
    Waiting,
    /// The router or the load balancer has not given the bridge an address yet.
    AddressPending,
    /// Machines have no address for the bridge.
    UriMissing,
    /// The spec asks for a kind that this cluster does not have.
    ApiMissing,
    /// The namespace for the pods is not there, or is going away.
    NamespaceMissing,
    /// A ConfigMap or Secret that the spec names is not there.
    ReferenceMissing,
    /// Neither spec nor operator name an image.
    ImageUnknown,
    /// The spec holds something that its schema cannot check.
    InvalidSpec,
    /// An object of this name belongs to somebody else.
    NameTaken,
    /// The API server refused an object.
    Refused,
    /// The operator lacks a right.
    Forbidden,
    /// A pod cannot start.
    PodsFailing,
    /// The cluster does not let the pod on the boot network have the node's network.
    NetbootRefused,
    /// New pods did not become ready in time.
    RolloutStuck,
    /// The router refused the Route.
    RouteRefused,
    /// A pod cannot use its artifact cache: machines boot, but each one's files are fetched for it alone.
    CacheTrouble,
    /// The API server fails again and again.
    ApiServerTrouble,
}

/// Something about a bridge that is not as the spec wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Why.
    pub reason: Reason,
    /// What to do, for the person who reads the status.
    pub message: String,
}

impl Finding {
    /// A finding.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// Whether nothing will change until a person does something.
    pub fn needs_person(&self) -> bool {
        !matches!(
            self.reason,
            Reason::Waiting
                | Reason::AddressPending
                | Reason::PodsFailing
                | Reason::RolloutStuck
                | Reason::CacheTrouble
                | Reason::ApiServerTrouble
        )
    }

    /// Whether pods with the new settings could not start.
    pub fn stops_pods(&self) -> bool {
        matches!(
            self.reason,
            Reason::Waiting | Reason::ReferenceMissing | Reason::ImageUnknown | Reason::InvalidSpec
        )
    }
}
