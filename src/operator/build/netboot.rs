//! The pod on the boot network: the node's own network, and the one capability that its ports need.
//!
//! A Deployment and not a DaemonSet: one pod on a segment is enough, and a Deployment tells in its conditions why a pod is refused.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, HTTPGetAction, ImageVolumeSource, KeyToPath, LocalObjectReference,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretVolumeSource, SecurityContext, ServiceAccount, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::crd::bridge::{BootPrograms, Netboot};
use crate::operator::arguments::{
    BOOT_PROGRAMS_FOLDER, BRIDGE_CA_FOLDER, NETBOOT_METRICS_PORT, NETBOOT_PROGRAMS_PORT, netboot_arguments,
};
use crate::operator::name;
use crate::operator::plan::Plan;

const CONTAINER: &str = "netboot";

fn metadata(plan: &Plan) -> ObjectMeta {
    ObjectMeta {
        labels: Some(name::netboot_labels(&plan.bridge)),
        ..super::metadata(plan, name::netboot(&plan.bridge))
    }
}

/// The pod's account: without any right in the cluster, so that an SCC for it is one for nothing else.
pub fn service_account(plan: &Plan) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(plan),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

/// The Deployment.
pub fn deployment(plan: &Plan, netboot: &Netboot, uri: &str) -> Deployment {
    Deployment {
        metadata: metadata(plan),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            revision_history_limit: Some(3),
            selector: LabelSelector {
                match_labels: Some(name::netboot_selector(&plan.bridge)),
                ..LabelSelector::default()
            },
            // Two pods cannot have the same ports of a node.
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_owned()),
                rolling_update: None,
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(name::netboot_labels(&plan.bridge)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(plan, netboot, uri)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(plan: &Plan, netboot: &Netboot, uri: &str) -> PodSpec {
    let spec = &plan.spec;
    let reference = |secret: &crate::crd::bridge::SecretRef| LocalObjectReference {
        name: secret.name.clone(),
    };
    let volumes: Vec<_> = netboot
        .boot_programs
        .as_ref()
        .map(volume)
        .into_iter()
        .chain(bridge_ca(plan))
        .collect();
    PodSpec {
        service_account_name: Some(name::netboot(&plan.bridge)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        host_network: Some(true),
        // With the node's network but the cluster's names.
        dns_policy: Some("ClusterFirstWithHostNet".to_owned()),
        termination_grace_period_seconds: Some(10),
        image_pull_secrets: (!spec.image_pull_secrets.is_empty()).then(|| spec.image_pull_secrets.iter().map(reference).collect()),
        security_context: Some(PodSecurityContext {
            // A capability of a container reaches the program only as root: of root this is all that is left.
            run_as_user: Some(0),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        node_selector: (!netboot.node_selector.is_empty()).then(|| netboot.node_selector.clone()),
        tolerations: (!netboot.tolerations.is_empty()).then(|| netboot.tolerations.clone()),
        priority_class_name: spec.priority_class_name.clone(),
        volumes: (!volumes.is_empty()).then_some(volumes),
        containers: vec![container(plan, netboot, uri)],
        ..PodSpec::default()
    }
}

fn volume(programs: &BootPrograms) -> Volume {
    Volume {
        name: "boot-programs".to_owned(),
        image: programs.image.as_ref().map(|image| ImageVolumeSource {
            reference: Some(image.clone()),
            pull_policy: None,
        }),
        persistent_volume_claim: programs.claim_name.as_ref().map(|claim| PersistentVolumeClaimVolumeSource {
            claim_name: claim.clone(),
            read_only: Some(true),
        }),
        ..Volume::default()
    }
}

/// The issuer of the bridge's certificate, where the bridge can be asked by HTTPS only. A Secret of a public certificate has none, and the
/// pod needs none.
fn bridge_ca(plan: &Plan) -> Option<Volume> {
    let secret = plan.tls_secret.as_ref().filter(|_| !plan.plain_http())?;
    Some(Volume {
        name: "bridge-ca".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.clone()),
            items: Some(vec![KeyToPath {
                key: "ca.crt".to_owned(),
                path: "ca.crt".to_owned(),
                mode: None,
            }]),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    })
}

fn container(plan: &Plan, netboot: &Netboot, uri: &str) -> Container {
    // With the node's network these are ports of the node: the scheduler puts no second pod with them there.
    let port = |name: &str, number: i32, protocol: &str| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        host_port: Some(number),
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    };
    let probe = |path: &str, period: i32| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("metrics".to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(3),
        ..Probe::default()
    };
    let amounts = |pairs: &[(&str, &str)]| {
        let amount = |(name, amount): &(&str, &str)| ((*name).to_owned(), Quantity((*amount).to_owned()));
        Some(pairs.iter().map(amount).collect())
    };
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let programs = netboot
        .boot_programs
        .as_ref()
        .map(|_| mount("boot-programs", BOOT_PROGRAMS_FOLDER));
    let mounts: Vec<_> = programs
        .into_iter()
        .chain(bridge_ca(plan).map(|volume| mount(&volume.name, BRIDGE_CA_FOLDER)))
        .collect();
    Container {
        name: CONTAINER.to_owned(),
        image: plan.image.clone(),
        image_pull_policy: plan.spec.image_pull_policy.map(|policy| policy.to_string()),
        args: Some(netboot_arguments(plan, netboot, uri)),
        ports: Some(vec![
            port("tftp", 69, "UDP"),
            port("pxe", 4011, "UDP"),
            port("programs", NETBOOT_PROGRAMS_PORT, "TCP"),
            port("metrics", NETBOOT_METRICS_PORT, "TCP"),
        ]),
        resources: Some(ResourceRequirements {
            requests: amounts(&[("cpu", "20m"), ("memory", "32Mi")]),
            // A folder of 128 MiB, the one that takes its place, and what else there is.
            limits: amounts(&[("memory", "384Mi")]),
            claims: None,
        }),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        liveness_probe: Some(probe("/livez", 10)),
        readiness_probe: Some(probe("/readyz", 5)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: Some(vec!["NET_BIND_SERVICE".to_owned()]),
            }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}
