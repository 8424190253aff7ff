//! Objects of the cluster or of files become values of the domain, or an error that names what is wrong with that one object.

mod host_override;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::boot::agent::{Agent, Progress};
use crate::boot::artifact::{ArtifactKind, UpstreamUrl};
use crate::boot::environment::{ArtifactUrls, Environment, Host};
use crate::boot::host_override::{Action, HostOverride};
use crate::boot::inventory::Skipped;
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;
use crate::crd::foreign::{self, Kind, Object};

use super::sources::{Converted, Item};

/// A kind whose objects become values of the domain.
pub trait Convert: Kind {
    /// One object's value; `None` for an object that is fine and of no interest; the error says what is wrong.
    fn convert(metadata: &ObjectMeta, spec: &Self::Spec, status: &Self::Status) -> Result<Option<Item>, Refusal>;
}

/// What is wrong with an object, and what is left of it.
#[derive(Debug)]
pub struct Refusal {
    /// What is wrong and what would be right.
    pub cause: String,
    /// A value that stands for the object all the same.
    pub rest: Option<Item>,
}

impl From<String> for Refusal {
    fn from(cause: String) -> Self {
        Self { cause, rest: None }
    }
}

/// What is left of an object when something else is wrong with it: an override makes its machines wait.
pub fn refuse(converted: Result<Option<Item>, Refusal>, cause: String) -> Result<Option<Item>, Refusal> {
    let item = match converted {
        Ok(item) => item,
        Err(refusal) => refusal.rest,
    };
    let rest = match item {
        Some(Item::Override(host_override)) => Some(Item::Override(Arc::new(HostOverride {
            action: Some(Action::Unusable(cause.clone())),
            ..HostOverride::clone(&host_override)
        }))),
        item => item,
    };
    Err(Refusal { cause, rest })
}

/// The key and value of an object as the API server sent it.
pub fn convert<K: Convert>(object: &Object<K>) -> (String, Converted) {
    let key = key(&object.metadata);
    let converted = match (&object.spec.0, &object.status.0) {
        (Ok(spec), Ok(status)) => K::convert(&object.metadata, spec, status),
        (Err(error), _) => Err(format!("spec: {error}").into()),
        (_, Err(error)) => Err(format!("status: {error}").into()),
    };
    let converted = match converted {
        Ok(item) => Converted { item, skipped: None },
        Err(refusal) => Converted {
            item: refusal.rest,
            skipped: Some(Skipped {
                kind: K::KIND.to_owned(),
                object: key.clone(),
                cause: refusal.cause,
            }),
        },
    };
    (key, converted)
}

fn uid(metadata: &ObjectMeta) -> String {
    metadata.uid.clone().unwrap_or_default()
}

/// `namespace/name` of an object.
pub fn key(metadata: &ObjectMeta) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

impl Convert for foreign::InfraEnv {
    fn convert(metadata: &ObjectMeta, spec: &Self::Spec, status: &Self::Status) -> Result<Option<Item>, Refusal> {
        let mut warnings = Vec::new();
        let urls = &status.boot_artifacts;
        let mut url = |kind: ArtifactKind, text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            match text.parse::<UpstreamUrl>() {
                _ if text.is_empty() => None,
                Ok(url) => Some(url),
                Err(error) => {
                    warnings.push(format!("status.bootArtifacts.{kind} cannot be used: {error}"));
                    None
                }
            }
        };
        let artifacts = ArtifactUrls {
            kernel: url(ArtifactKind::Kernel, &urls.kernel),
            initrd: url(ArtifactKind::Initrd, &urls.initrd),
            rootfs: url(ArtifactKind::Rootfs, &urls.rootfs),
            ipxe_script: url(ArtifactKind::IpxeScript, &urls.ipxe_script),
        };
        // Only a False tells something: the reason for True changed between versions, and after a failure the old addresses stay.
        for condition in &status.conditions {
            if condition.type_ == "ImageCreated" && condition.status == "False" {
                let consequence = if artifacts.missing().is_empty() {
                    ", older artifacts are offered"
                } else {
                    ""
                };
                warnings.push(format!(
                    "its last image could not be made ({}){consequence}",
                    condition.reason
                ));
            }
        }
        if annotation(metadata, foreign::IRONIC_ANNOTATION) == Some("true") {
            warnings.push("Ironic's agent is part of its image: machines booted by hand do not register by themselves".to_owned());
        }
        // The address says it too, but keeps saying it after only the spec was changed.
        let boot_order_control = match spec.ipxe_script_type.as_deref() {
            Some("BootOrderControl") => true,
            Some("DiscoveryImageAlways") => false,
            _ => artifacts
                .ipxe_script
                .as_ref()
                .is_some_and(|url| url.has_parameter("ipxe_script_type", "boot-order-control")),
        };
        Ok(Some(Item::Environment(Arc::new(Environment {
            name: name(metadata)?,
            uid: uid(metadata),
            created: created(metadata),
            is_default: label(metadata, foreign::DEFAULT_LABEL).is_some_and(|value| value.eq_ignore_ascii_case("true")),
            boot_order_control,
            artifacts,
            warnings,
        }))))
    }
}

impl Convert for foreign::BareMetalHost {
    fn convert(metadata: &ObjectMeta, spec: &Self::Spec, _: &Self::Status) -> Result<Option<Item>, Refusal> {
        let name = name(metadata)?;
        let Some(text) = spec.boot_mac_address.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let mac: MacAddr = text.parse().map_err(|error| format!("spec.bootMACAddress: {error}"))?;
        let environment = label(metadata, foreign::INFRA_ENV_LABEL)
            .filter(|value| !value.is_empty())
            .map(|value| ObjectName::of_label(name.namespace(), value))
            .transpose()
            .map_err(|error| format!("label {}: {error}", foreign::INFRA_ENV_LABEL))?;
        Ok(Some(Item::Host(Arc::new(Host {
            uid: uid(metadata),
            created: created(metadata),
            name,
            mac,
            labels: metadata.labels.clone().unwrap_or_default(),
            environment,
        }))))
    }
}

impl Convert for foreign::Agent {
    fn convert(metadata: &ObjectMeta, _: &Self::Spec, status: &Self::Status) -> Result<Option<Item>, Refusal> {
        let macs = status.inventory.interfaces.iter();
        Ok(Some(Item::Agent(Arc::new(Agent {
            name: name(metadata)?,
            uid: uid(metadata),
            created: created(metadata),
            // A machine may have cards without an Ethernet address (InfiniBand): they never boot through this bridge.
            macs: macs.filter_map(|nic| nic.mac_address.as_deref()?.parse().ok()).collect(),
            progress: Progress {
                state: status.debug_info.state.clone().unwrap_or_default(),
                stage: status.progress.current_stage.clone().unwrap_or_default(),
            },
        }))))
    }
}

impl Convert for foreign::Namespace {
    fn convert(metadata: &ObjectMeta, _: &Self::Spec, _: &Self::Status) -> Result<Option<Item>, Refusal> {
        Ok(metadata.name.clone().map(Item::Namespace))
    }
}

fn name(metadata: &ObjectMeta) -> Result<ObjectName, String> {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let name = metadata.name.as_deref().unwrap_or_default();
    ObjectName::new(namespace, name).map_err(|error| error.to_string())
}

fn created(metadata: &ObjectMeta) -> i64 {
    metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second())
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::crd::foreign::{BareMetalHost, InfraEnv};

    fn cause<K: Convert>(object: Value) -> (String, String) {
        let (key, converted) = convert(&serde_json::from_value::<Object<K>>(object).expect("readable"));
        (key, converted.skipped.expect("skipped").cause)
    }

    #[test]
    fn an_object_of_the_wrong_shape_is_an_error_of_that_object() {
        let metadata = json!({"namespace": "a", "name": "n1", "labels": {"infraenvs.agent-install.openshift.io": "Not A Name"}});
        for (spec, expected) in [
            (json!("text"), "spec: invalid type"),
            (json!({"bootMACAddress": 7}), "spec: invalid type"),
            (json!({"bootMACAddress": "x 52:54:00:cc:00:01 y"}), "spec.bootMACAddress: "),
            (
                json!({"bootMACAddress": "52:54:00:cc:00:01"}),
                "label infraenvs.agent-install.openshift.io: \"Not A Name\"",
            ),
        ] {
            let (key, cause) = cause::<BareMetalHost>(json!({"metadata": metadata, "spec": spec}));
            assert!(key == "a/n1" && cause.starts_with(expected), "{key}: {cause}");
        }
        let secret = json!({"metadata": metadata, "status": {"bootArtifacts": "http://x/?api_key=TOKEN"}});
        let (_, hidden) = cause::<InfraEnv>(secret);
        assert!(
            !hidden.contains("TOKEN") && hidden.contains("the text is not shown"),
            "{hidden}"
        );
        let (_, cause) = cause::<InfraEnv>(json!({"metadata": metadata, "status": {"bootArtifacts": 7}}));
        assert!(cause.starts_with("status: invalid type"), "{cause}");
    }

    #[test]
    fn an_object_without_spec_and_status_is_no_error() {
        let object = serde_json::from_value::<Object<BareMetalHost>>(json!({"metadata": {"namespace": "a", "name": "n1"}}));
        let (_, converted) = convert(&object.expect("readable"));
        assert!(converted.item.is_none() && converted.skipped.is_none());
    }

    #[test]
    fn an_environment_of_any_condition_is_usable_and_says_what_is_wrong() {
        let environment = |status: Value| {
            let object = json!({"metadata": {"namespace": "a", "name": "lab"}, "status": status});
            match convert(&serde_json::from_value::<Object<InfraEnv>>(object).expect("readable"))
                .1
                .item
            {
                Some(Item::Environment(environment)) => environment,
                other => panic!("an environment, not {other:?}"),
            }
        };
        let urls = json!({"kernel": "http://u/k", "initrd": "http://u/i?api_key=T", "rootfs": "ftp://u/r", "ipxeScript": ""});
        // The reason for success changed between versions: only a failure tells something.
        for (status, reason) in [
            ("True", "InfraEnvAvailable"),
            ("True", "ImageCreated"),
            ("Unknown", "MissingClusterDeployment"),
        ] {
            let conditions = json!([{"type": "ImageCreated", "status": status, "reason": reason, "message": "m"}]);
            let environment = environment(json!({"bootArtifacts": urls, "conditions": conditions}));
            assert_eq!(
                environment.artifacts.missing(),
                [ArtifactKind::IpxeScript, ArtifactKind::Rootfs]
            );
            assert_eq!(environment.warnings.len(), 1, "{:?}", environment.warnings);
            assert!(environment.warnings[0].contains("expected http or https"));
        }
        let failed = json!([{"type": "ImageCreated", "status": "False", "reason": "ImageCreationError"}]);
        let failed = environment(json!({"bootArtifacts": {}, "conditions": failed}));
        assert_eq!(failed.warnings, ["its last image could not be made (ImageCreationError)"]);
    }
}
