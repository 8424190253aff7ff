//! From a spec and what was observed to a plan: defaults filled in, contradictions found. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};

use crate::crd::bridge::{InsecurePolicy, IpxeBridge, IpxeBridgeSpec, Mode, RouteTermination, ServiceType, Switch};

use super::address::{self, Addresses};
use super::kind::Kind;
use super::name;
use super::reason::{Finding, Reason};
use super::reference::{Reference, Store, references, tls_secret};

/// Pods of a bridge that says nothing about it: one may go while the other answers.
const REPLICAS: i32 = 2;

/// What the operator itself contributes to every bridge.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's own namespace, for bridges that name none.
    pub namespace: String,
    /// The image that belongs to this operator.
    pub image: Option<String>,
}

/// Whether the cluster has a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Presence {
    /// It did not say yet.
    #[default]
    Unknown,
    /// It does not.
    Absent,
    /// It does.
    Present,
}

/// What a plan needs to know of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Which kinds the cluster has; a kind that is left out is there.
    pub kinds: BTreeMap<Kind, Presence>,
    /// What the referenced ConfigMaps and Secrets hold.
    pub references: BTreeMap<Reference, Content>,
    /// Whether something else than the operator sets the Deployment's replicas.
    pub replicas_are_foreign: bool,
    /// Where the cluster published the bridge.
    pub addresses: Addresses,
}

/// What a ConfigMap or Secret holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// It is not there.
    Missing,
    /// It is there, without the key.
    Empty,
    /// It is there; the text changes with its data.
    Version(String),
}

/// What is to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Name of the bridge.
    pub bridge: String,
    /// The owner of everything.
    pub owner: OwnerReference,
    /// Where it runs.
    pub namespace: String,
    /// The spec; where a field below says the same, that one counts.
    pub spec: IpxeBridgeSpec,
    /// The image; `None` stops the pods.
    pub image: Option<String>,
    /// Number of pods; `None` where something else decides.
    pub replicas: Option<i32>,
    /// Address for machines, if one is known.
    pub uri: Option<String>,
    /// Address that the pods write into scripts; without it that of each request.
    pub server_uri: Option<String>,
    /// Secret with the pods' certificate.
    pub tls_secret: Option<String>,
    /// The Route, if one is wanted and possible.
    pub route: Option<RoutePlan>,
    /// Whether there is to be a Certificate.
    pub certificate: bool,
    /// Whether there is to be a ServiceMonitor.
    pub service_monitor: bool,
    /// Whether there are to be alerts.
    pub prometheus_rule: bool,
    /// Changes with the content of what the pods mount.
    pub config: Option<String>,
    /// What is not as the spec wants it.
    pub findings: Vec<Finding>,
}

/// How the Route works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoutePlan {
    /// Where TLS ends.
    pub termination: RouteTermination,
    /// What becomes of plain HTTP; `None` where there is nothing else.
    pub insecure: Option<InsecurePolicy>,
}

impl RoutePlan {
    /// Whether machines get answers over plain HTTP.
    pub fn serves_http(self) -> bool {
        self.termination == RouteTermination::None || self.insecure == Some(InsecurePolicy::Allow)
    }
}

impl Plan {
    /// Whether pods with these settings could start. If not, those that run stay as they are.
    pub fn can_run(&self) -> bool {
        !self.findings.iter().any(Finding::stops_pods)
    }

    /// Whether the pods serve plain HTTP.
    pub fn plain_http(&self) -> bool {
        self.spec.tls.as_ref().is_none_or(|tls| tls.plain_http == Switch::Enabled)
    }

    /// Fills in what the spec leaves open, and finds what stands against it.
    pub fn new(bridge: &IpxeBridge, settings: &Settings, observed: &Observed) -> Self {
        let spec = bridge.spec.clone();
        let bridge_name = bridge.name_any();
        let mut findings = Vec::new();
        let image = spec.image.clone().or_else(|| settings.image.clone());
        if image.is_none() {
            findings.push(Finding::new(
                Reason::ImageUnknown,
                "no image is known: set spec.image, or the operator's variable RELATED_IMAGE_IPXE_BRIDGE",
            ));
        }
        let wanted = |kind: Kind, mode: Mode| match (mode, observed.kinds.get(&kind).copied().unwrap_or(Presence::Present)) {
            (Mode::Disabled, _) | (Mode::Auto, Presence::Absent) => Ok(false),
            (_, Presence::Present | Presence::Unknown) => Ok(true),
            (Mode::Enabled, Presence::Absent) => Err(missing_api(kind)),
        };
        let mut ask = |kind, mode| {
            wanted(kind, mode).unwrap_or_else(|finding| {
                findings.push(finding);
                false
            })
        };
        let route = ask(Kind::Route, route_mode(&spec)).then(|| route(&spec));
        let has_cert_manager = spec.tls.as_ref().is_some_and(|tls| tls.cert_manager.is_some());
        let certificate = has_cert_manager && ask(Kind::Certificate, Mode::Enabled);
        let service_monitor = ask(Kind::ServiceMonitor, spec.telemetry.service_monitor.mode);
        // Alerts know the metrics by what the ServiceMonitor makes of them, and a bridge that is to have no pods is not down.
        let has_alerts = service_monitor && spec.replicas != Some(0);
        let prometheus_rule = ask(Kind::PrometheusRule, spec.telemetry.prometheus_rule.mode) && has_alerts;

        let needed = references(&bridge_name, &spec);
        findings.extend(
            needed
                .iter()
                .filter_map(|reference| unusable(reference, observed.references.get(reference))),
        );
        findings.extend(super::arguments::invalid(&spec));
        findings.extend(observed.addresses.refused(route.is_some()));

        let public = address::public(&spec, route, &observed.addresses);
        if public.uri.is_none() {
            findings.push(address::missing(&spec, route));
        }
        Self {
            owner: owner(bridge),
            namespace: spec.namespace.clone().unwrap_or_else(|| settings.namespace.clone()),
            image,
            replicas: match (spec.replicas, observed.replicas_are_foreign) {
                (Some(replicas), _) => Some(replicas),
                (None, true) => None,
                (None, false) => Some(REPLICAS),
            },
            uri: public.uri,
            server_uri: public.server_uri,
            tls_secret: tls_secret(&bridge_name, &spec).map(|reference| reference.name),
            route,
            certificate,
            service_monitor,
            prometheus_rule,
            config: config(&needed, observed),
            findings,
            bridge: bridge_name,
            spec,
        }
    }
}

/// A Route is made unasked only where nothing else says how machines reach the bridge.
fn route_mode(spec: &IpxeBridgeSpec) -> Mode {
    match spec.route.mode {
        Mode::Auto if spec.ingress.is_some() || spec.service.type_ != ServiceType::ClusterIP => Mode::Disabled,
        mode => mode,
    }
}

fn route(spec: &IpxeBridgeSpec) -> RoutePlan {
    let plain = spec.tls.as_ref().is_none_or(|tls| tls.plain_http == Switch::Enabled);
    let termination = spec.route.termination.unwrap_or(match plain {
        true => RouteTermination::Edge,
        false => RouteTermination::Reencrypt,
    });
    let insecure = match termination {
        RouteTermination::None => None,
        RouteTermination::Passthrough => Some(spec.route.insecure_policy.unwrap_or(InsecurePolicy::None)),
        RouteTermination::Edge | RouteTermination::Reencrypt => Some(spec.route.insecure_policy.unwrap_or(InsecurePolicy::Allow)),
    };
    RoutePlan { termination, insecure }
}

fn missing_api(kind: Kind) -> Finding {
    let instead = match kind {
        Kind::Route => "use spec.ingress or spec.service.type, or set spec.route.mode to Auto",
        Kind::Certificate => "install cert-manager, or set spec.tls.secretName in place of spec.tls.certManager",
        Kind::PrometheusRule => "install its operator, or set spec.telemetry.prometheusRule.mode to Auto",
        _ => "install its operator, or set spec.telemetry.serviceMonitor.mode to Auto",
    };
    Finding::new(
        Reason::ApiMissing,
        format!(
            "this cluster has no {}: {instead}; it is used as soon as it is there",
            kind.plural()
        ),
    )
}

fn unusable(reference: &Reference, content: Option<&Content>) -> Option<Finding> {
    let Reference { kind, name, key, maker } = reference;
    let absent = match content {
        Some(Content::Version(_)) => return None,
        Some(Content::Empty) => format!("{kind} {name} has no key {}", key.as_deref().unwrap_or_default()),
        Some(Content::Missing) | None => format!("there is no {kind} {name}"),
    };
    Some(match maker {
        Some(maker) => Finding::new(Reason::Waiting, format!("{absent}: waiting until {maker} has made it")),
        None => Finding::new(
            Reason::ReferenceMissing,
            format!("{absent} in the bridge's namespace: create it, or change the spec"),
        ),
    })
}

/// One text for the content of everything that is mounted.
fn config(needed: &[Reference], observed: &Observed) -> Option<String> {
    let versions: Vec<_> = needed
        .iter()
        .map(|reference| {
            let version = match observed.references.get(reference) {
                Some(Content::Version(version)) => version.as_str(),
                _ => "",
            };
            (reference.kind == Store::Secret, &reference.name, version)
        })
        .collect();
    (!versions.is_empty()).then(|| super::digest::of(&versions))
}

fn owner(bridge: &IpxeBridge) -> OwnerReference {
    OwnerReference {
        api_version: IpxeBridge::api_version(&()).into_owned(),
        kind: IpxeBridge::kind(&()).into_owned(),
        name: bridge.name_any(),
        uid: bridge.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Name of most of its objects.
pub fn object_name(plan: &Plan) -> String {
    name::object(&plan.bridge)
}
