//! The certificate from cert-manager.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::metadata;
use crate::operator::plan::{Plan, object_name};

/// A Certificate for every name under which the pods are reached; `None` if the spec wants none.
pub fn certificate(plan: &Plan) -> Option<Value> {
    let wanted = plan.spec.tls.as_ref()?.cert_manager.as_ref()?;
    let secret = plan.tls_secret.as_ref()?;
    let service = format!("{}.{}.svc", object_name(plan), plan.namespace);
    let uri_host = plan.spec.uri.as_deref().and_then(|uri| url::Url::parse(uri).ok());
    let uri_host = uri_host
        .as_ref()
        .and_then(|uri| uri.host_str())
        .map(|host| host.trim_matches(['[', ']']));
    let named = [
        uri_host,
        plan.spec.route.host.as_deref(),
        plan.spec.ingress.as_ref().map(|ingress| ingress.host.as_str()),
        Some(service.as_str()),
    ];
    let hosts: BTreeSet<&str> = named
        .into_iter()
        .flatten()
        .chain(wanted.dns_names.iter().map(String::as_str))
        .collect();
    let (addresses, names): (Vec<&str>, Vec<&str>) = hosts.into_iter().partition(|host| host.parse::<IpAddr>().is_ok());
    let mut spec = json!({
        "secretName": secret,
        "dnsNames": names,
        "issuerRef": {"group": "cert-manager.io", "kind": wanted.issuer_ref.kind.to_string(), "name": wanted.issuer_ref.name},
    });
    if !addresses.is_empty() {
        spec["ipAddresses"] = json!(addresses);
    }
    Some(json!({
        "apiVersion": "cert-manager.io/v1",
        "kind": "Certificate",
        "metadata": metadata(plan, object_name(plan)),
        "spec": spec,
    }))
}
