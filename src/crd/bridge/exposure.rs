//! How machines reach a bridge: Service, Route, Ingress, TLS.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Mode, Switch};

/// The Service in front of the pods.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("!has(self.nodePort) || self.type != 'ClusterIP'").message("nodePort goes with type NodePort or LoadBalancer: change type, or leave nodePort out"),
    validation = Rule::new("!has(self.loadBalancerClass) || self.type == 'LoadBalancer'").message("loadBalancerClass goes with type LoadBalancer: change type, or leave loadBalancerClass out"),
    validation = Rule::new("!has(self.externalTrafficPolicy) || self.type != 'ClusterIP'").message("externalTrafficPolicy goes with type NodePort or LoadBalancer: change type, or leave externalTrafficPolicy out"),
    validation = Rule::new("self.port != self.httpsPort").message("port and httpsPort must differ, such as 9876 and 9443")
)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// `ClusterIP`: inside the cluster, behind a Route or Ingress. `NodePort`: a port of every node. `LoadBalancer`: an address of its own.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// Port for plain HTTP.
    #[serde(default = "port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Port for HTTPS, if `tls` is given.
    #[serde(default = "https_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub https_port: i32,
    /// Port of the nodes for plain HTTP. Default: one that Kubernetes chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// Annotations of the Service, such as those that load balancers read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Which load balancer makes the address. Default: the cluster's own. Kubernetes does not let it change while the Service is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// `Local` keeps the machines' addresses for logs, `Cluster` spreads better. Default: as Kubernetes has it, `Cluster`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TrafficPolicy")]
    pub external_traffic_policy: Option<TrafficPolicy>,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            type_: ServiceType::default(),
            port: port(),
            https_port: https_port(),
            node_port: None,
            annotations: BTreeMap::new(),
            load_balancer_class: None,
            external_traffic_policy: None,
        }
    }
}

fn port() -> i32 {
    9876
}

fn https_port() -> i32 {
    9443
}

/// Types of a Service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
#[expect(missing_docs, reason = "as Kubernetes has them")]
pub enum ServiceType {
    #[default]
    ClusterIP,
    NodePort,
    LoadBalancer,
}

/// Where nodes send what arrives from outside.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[expect(missing_docs, reason = "as Kubernetes has them")]
pub enum TrafficPolicy {
    Cluster,
    Local,
}

/// An OpenShift Route to the bridge.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[x_kube(
    validation = Rule::new("!has(self.termination) || !has(self.insecurePolicy) || self.termination != 'Passthrough' || self.insecurePolicy != 'Allow'").message(
        "a Route with termination Passthrough cannot pass plain HTTP on: write insecurePolicy None or Redirect, or termination Edge or Reencrypt"
    ),
    validation = Rule::new("!has(self.termination) || !has(self.insecurePolicy) || self.termination != 'None'").message(
        "termination None is plain HTTP only: leave insecurePolicy out"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// `Auto`: where the cluster has Routes, unless `service.type` or `ingress` says how machines reach the bridge. `Enabled`: wanted.
    /// `Disabled`: none.
    #[serde(default)]
    pub mode: Mode,
    /// Host name. Default: made by OpenShift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: Option<String>,
    /// Where TLS ends. `Edge`: in the router. `Reencrypt`: in the router, and again in the pods. `Passthrough`: in the pods. `None`: plain
    /// HTTP only. Default: `Edge`; `Reencrypt` with `tls.plainHttp: Disabled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RouteTermination")]
    pub termination: Option<RouteTermination>,
    /// What becomes of plain HTTP. `Allow`: served, for iPXE that cannot speak the router's TLS. `Redirect`: sent to HTTPS. `None`: refused.
    /// Default: `Allow`, with termination `Passthrough` `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "InsecurePolicy")]
    pub insecure_policy: Option<InsecurePolicy>,
    /// Annotations of the Route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Where TLS of a Route ends.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "described at the field")]
pub enum RouteTermination {
    Edge,
    Reencrypt,
    Passthrough,
    None,
}

/// What becomes of plain HTTP at a Route.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, strum::Display)]
#[expect(missing_docs, reason = "described at the field")]
pub enum InsecurePolicy {
    Allow,
    Redirect,
    None,
}

/// An Ingress to the bridge.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Name of the IngressClass. Default: the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub class_name: Option<String>,
    /// Host name: `boot.example.com`.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub host: String,
    /// HTTPS of the ingress controller. Default: plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<IngressTls>,
    /// Annotations of the Ingress. Downloads are large: controllers that buffer or limit answers have annotations against it.
    /// With `tls.plainHttp: Disabled` the controller has to be told to speak HTTPS to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// HTTPS of the ingress controller.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    /// Secret of the bridge's namespace with `tls.crt` and `tls.key`. Default: the controller's own certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: Option<String>,
}

/// HTTPS of the pods: where the certificate comes from, and whether plain HTTP stays.
#[derive(Serialize, Deserialize, KubeSchema, Clone, Debug, PartialEq)]
#[x_kube(
    validation = Rule::new("[has(self.secretName), has(self.certManager), has(self.serviceServing)].filter(given, given).size() == 1").message(
        "say where the certificate comes from: exactly one of secretName, certManager and serviceServing"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Secret of the bridge's namespace with `tls.crt` and `tls.key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub secret_name: Option<String>,
    /// A certificate from cert-manager.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_manager: Option<CertManager>,
    /// A certificate from OpenShift for the Service's name inside the cluster: `serviceServing: {}`. For Routes with `Reencrypt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_serving: Option<ServiceServing>,
    /// Whether plain HTTP is served beside HTTPS, for iPXE that cannot speak modern TLS: `Enabled` or `Disabled`.
    #[serde(default = "Switch::enabled")]
    pub plain_http: Switch,
}

/// OpenShift's certificate for the Service. There is nothing to set yet.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
pub struct ServiceServing {}

/// A certificate from cert-manager.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CertManager {
    /// Who signs it.
    pub issuer_ref: IssuerRef,
    /// Further names beside those of `uri`, Route, Ingress and Service: `boot.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub dns_names: Vec<String>,
}

/// An issuer of cert-manager.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer`: of the bridge's namespace. `ClusterIssuer`: of the cluster.
    #[serde(default)]
    pub kind: IssuerKind,
}

/// Kinds of issuers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, strum::Display)]
#[expect(missing_docs, reason = "described at the field")]
pub enum IssuerKind {
    #[default]
    Issuer,
    ClusterIssuer,
}
