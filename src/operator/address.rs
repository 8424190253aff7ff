//! Where machines reach a bridge. Pure.

use serde_json::Value;

use crate::crd::bridge::{IpxeBridgeSpec, ServiceType};

use super::plan::RoutePlan;
use super::reason::{Finding, Reason};

/// Where the cluster published a bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Host of the Route, once the router took it.
    pub route: Option<String>,
    /// The router's words, if it refused the Route.
    pub route_refusal: Option<String>,
    /// Name or address of the load balancer.
    pub load_balancer: Option<String>,
}

impl Addresses {
    /// Reads the status of the Route and of the Service.
    pub fn of(route: Option<&Value>, service: Option<&Value>) -> Self {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let mut found = Self::default();
        for ingress in route
            .and_then(|route| route["status"]["ingress"].as_array())
            .into_iter()
            .flatten()
        {
            let admitted = ingress["conditions"]
                .as_array()
                .and_then(|conditions| conditions.iter().find(|condition| condition["type"] == "Admitted"));
            match admitted.and_then(|condition| condition["status"].as_str()) {
                Some("True") => found.route = found.route.or(text(&ingress["host"])),
                Some("False") => found.route_refusal = admitted.and_then(|condition| text(&condition["message"])),
                _ => {}
            }
        }
        let balancer = service.map(|service| &service["status"]["loadBalancer"]["ingress"][0]);
        found.load_balancer = balancer.and_then(|balancer| text(&balancer["hostname"]).or_else(|| text(&balancer["ip"])));
        found
    }

    /// The router's refusal, unless another router took the Route.
    pub fn refused(&self, wants_route: bool) -> Option<Finding> {
        let refusal = self.route_refusal.as_ref().filter(|_| wants_route && self.route.is_none())?;
        Some(Finding::new(
            Reason::RouteRefused,
            format!("the router refused the Route: {refusal}; change spec.route.host"),
        ))
    }
}

/// The address that machines use, and the one that the pods are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Public {
    /// Address for machines.
    pub uri: Option<String>,
    /// Only what stands between machines and pods changes the address that a request names: a Route, an Ingress, or a person's word.
    pub server_uri: Option<String>,
}

/// The spec's word, then Route, Ingress, load balancer.
pub fn public(spec: &IpxeBridgeSpec, route: Option<RoutePlan>, addresses: &Addresses) -> Public {
    let of_route = || {
        let scheme = if route?.serves_http() { "http" } else { "https" };
        Some(format!("{scheme}://{}", addresses.route.as_ref()?))
    };
    let of_ingress = || {
        let ingress = spec.ingress.as_ref()?;
        let scheme = if ingress.tls.is_none() { "http" } else { "https" };
        Some(format!("{scheme}://{}", ingress.host))
    };
    let proxied = spec.uri.clone().or_else(of_route).or_else(of_ingress);
    let of_balancer = || {
        let (scheme, port) = match spec.tls.as_ref().is_some_and(|tls| !tls.plain_http.is_on()) {
            true => ("https", spec.service.https_port),
            false => ("http", spec.service.port),
        };
        let host = addresses
            .load_balancer
            .as_ref()
            .filter(|_| spec.service.type_ == ServiceType::LoadBalancer)?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        Some(format!("{scheme}://{host}:{port}"))
    };
    Public {
        uri: proxied.clone().or_else(of_balancer),
        server_uri: proxied,
    }
}

/// Why there is no address, and what to do.
pub fn missing(spec: &IpxeBridgeSpec, route: Option<RoutePlan>) -> Finding {
    let (reason, message) = match spec.service.type_ {
        _ if route.is_some() => (
            Reason::AddressPending,
            "machines have no address yet: waiting for the router to take the Route",
        ),
        ServiceType::LoadBalancer => (
            Reason::AddressPending,
            "machines have no address yet: waiting for the load balancer, or set spec.uri",
        ),
        ServiceType::NodePort => (
            Reason::UriMissing,
            "machines have no address: set spec.uri to a node's, or to that of what stands before the nodes, with the Service's node port",
        ),
        ServiceType::ClusterIP => (
            Reason::UriMissing,
            "machines have no address: set spec.service.type to LoadBalancer, or spec.ingress, or spec.uri if something else leads to the Service",
        ),
    };
    Finding::new(reason, message)
}
