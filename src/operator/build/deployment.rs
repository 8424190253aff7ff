//! The pods: nothing that Pod Security's "restricted" or OpenShift's restricted-v2 would refuse, and no end that cuts a download.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference, ObjectFieldSelector,
    PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, SleepAction, TopologySpreadConstraint, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::metadata;
use crate::operator::arguments::{
    BOOT_KEYS_FOLDER, CA_FOLDER, CACHE_FOLDER, DRAIN_SECONDS, HOST_FILES_FOLDER, HTTP_PORT, HTTPS_PORT, METRICS_PORT, TLS_FOLDER,
    arguments, ca_sources,
};
use crate::operator::name;
use crate::operator::plan::{Plan, object_name};

/// Name of the container.
pub const CONTAINER: &str = "server";
/// New machines still find a pod that is to go until every load balancer has noticed.
const LEAVE_SECONDS: i64 = 10;
/// What the program needs beyond that to end.
const MARGIN_SECONDS: i64 = 30;

fn selector(plan: &Plan) -> LabelSelector {
    LabelSelector {
        match_labels: Some(name::selector(&plan.bridge)),
        ..LabelSelector::default()
    }
}

/// The Deployment.
pub fn deployment(plan: &Plan) -> Deployment {
    Deployment {
        metadata: metadata(plan, object_name(plan)),
        spec: Some(DeploymentSpec {
            replicas: plan.replicas,
            revision_history_limit: Some(3),
            selector: selector(plan),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_unavailable: Some(IntOrString::Int(0)),
                    max_surge: Some(IntOrString::String("25%".to_owned())),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(template_metadata(plan)),
                spec: Some(pod(plan)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// Lets drained nodes take this many pods away at once.
pub fn disruption_budget(plan: &Plan) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: metadata(plan, object_name(plan)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(plan.spec.pod_disruption_budget.max_unavailable)),
            selector: Some(selector(plan)),
            // A pod that does not work must not keep its node from being drained.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

fn template_metadata(plan: &Plan) -> ObjectMeta {
    let mut annotations = BTreeMap::from([("kubectl.kubernetes.io/default-container".to_owned(), CONTAINER.to_owned())]);
    annotations.extend(plan.config.clone().map(|config| (name::CONFIG_ANNOTATION.to_owned(), config)));
    ObjectMeta {
        labels: Some(name::labels(&plan.bridge)),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

fn pod(plan: &Plan) -> PodSpec {
    let spec = &plan.spec;
    let (volumes, mounts): (Vec<_>, Vec<_>) = volumes(plan).into_iter().unzip();
    let reference = |secret: &crate::crd::bridge::SecretRef| LocalObjectReference {
        name: secret.name.clone(),
    };
    PodSpec {
        service_account_name: Some(object_name(plan)),
        automount_service_account_token: Some(true),
        // A Service called ipxe-bridge would otherwise set IPXE_BRIDGE_PORT to an address.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(LEAVE_SECONDS + DRAIN_SECONDS + MARGIN_SECONDS),
        image_pull_secrets: listed(spec.image_pull_secrets.iter().map(reference).collect()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            fs_group: spec.cache.fs_group.filter(|_| spec.cache.mode.is_on()),
            ..PodSecurityContext::default()
        }),
        node_selector: (!spec.node_selector.is_empty()).then(|| spec.node_selector.clone()),
        tolerations: listed(spec.tolerations.clone()),
        affinity: spec.affinity.clone(),
        topology_spread_constraints: listed(spread(plan)),
        priority_class_name: spec.priority_class_name.clone(),
        volumes: listed(volumes),
        containers: vec![container(plan, mounts)],
        ..PodSpec::default()
    }
}

/// An empty list is not written: the operator would own it.
fn listed<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn container(plan: &Plan, mounts: Vec<VolumeMount>) -> Container {
    let spec = &plan.spec;
    Container {
        name: CONTAINER.to_owned(),
        image: plan.image.clone(),
        image_pull_policy: spec.image_pull_policy.map(|policy| policy.to_string()),
        args: Some(arguments(plan)),
        env: listed(variables(plan)),
        ports: Some(ports(plan)),
        resources: Some(spec.resources.clone().unwrap_or_else(resources)),
        volume_mounts: listed(mounts),
        startup_probe: Some(probe(plan, "/livez", 2, 30)),
        liveness_probe: Some(probe(plan, "/livez", 10, 3)),
        readiness_probe: Some(probe(plan, "/readyz", 2, 3)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: LEAVE_SECONDS }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        // What the program says when it cannot start is then part of the pod's status.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn ports(plan: &Plan) -> Vec<ContainerPort> {
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let http = plan.plain_http().then(|| port("http", HTTP_PORT));
    let https = plan.tls_secret.is_some().then(|| port("https", HTTPS_PORT));
    http.into_iter().chain(https).chain([port("metrics", METRICS_PORT)]).collect()
}

fn probe(plan: &Plan, path: &str, period: i32, failures: i32) -> Probe {
    let (port, scheme) = if plan.plain_http() {
        ("http", "HTTP")
    } else {
        ("https", "HTTPS")
    };
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(port.to_owned()),
            scheme: Some(scheme.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Enough for 10,000 hosts and some hundred downloads at once.
fn resources() -> ResourceRequirements {
    let amounts = |pairs: &[(&str, &str)]| {
        let amount = |(name, amount): &(&str, &str)| ((*name).to_owned(), Quantity((*amount).to_owned()));
        Some(pairs.iter().map(amount).collect())
    };
    ResourceRequirements {
        requests: amounts(&[("cpu", "100m"), ("memory", "128Mi")]),
        limits: amounts(&[("memory", "512Mi")]),
        claims: None,
    }
}

/// Where traces go, as the OpenTelemetry specification names it; what the spec sets itself counts.
fn variables(plan: &Plan) -> Vec<EnvVar> {
    let telemetry = &plan.spec.telemetry;
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    if let Some(endpoint) = &telemetry.otlp_endpoint {
        let share = f64::from(telemetry.sampling_percent) / 100.0;
        variables.extend([
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.clone()),
            ("OTEL_TRACES_SAMPLER".to_owned(), "parentbased_traceidratio".to_owned()),
            ("OTEL_TRACES_SAMPLER_ARG".to_owned(), share.to_string()),
            ("OTEL_RESOURCE_ATTRIBUTES".to_owned(), resource_attributes(plan)),
        ]);
    }
    variables.extend(
        plan.spec
            .env
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone())),
    );
    let variable = |(name, value)| EnvVar {
        name,
        value: Some(value),
        value_from: None,
    };
    // A variable may only hold those before it.
    let of_pod = [(POD_NAME, "metadata.name"), (NODE_NAME, "spec.nodeName")].map(|(name, path)| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
    });
    let of_pod = of_pod.into_iter().filter(|_| telemetry.otlp_endpoint.is_some());
    of_pod.chain(variables.into_iter().map(variable)).collect()
}

const POD_NAME: &str = "POD_NAME";
const NODE_NAME: &str = "NODE_NAME";

/// Which pod a span comes from (OpenTelemetry semantic conventions, "Kubernetes").
fn resource_attributes(plan: &Plan) -> String {
    let (namespace, deployment) = (&plan.namespace, object_name(plan));
    format!(
        "service.namespace={namespace},service.instance.id=$({POD_NAME}),k8s.namespace.name={namespace},k8s.deployment.name={deployment},\
         k8s.pod.name=$({POD_NAME}),k8s.node.name=$({NODE_NAME}),k8s.container.name={CONTAINER}"
    )
}

/// Pods of one bridge on different nodes and in different zones, where there are some.
fn spread(plan: &Plan) -> Vec<TopologySpreadConstraint> {
    let of_this_bridge = |constraint: &TopologySpreadConstraint| TopologySpreadConstraint {
        label_selector: constraint.label_selector.clone().or_else(|| Some(selector(plan))),
        ..constraint.clone()
    };
    let evenly = |key: &str| TopologySpreadConstraint {
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(selector(plan)),
        // During a rolling update the new pods spread among themselves.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    match &plan.spec.topology_spread_constraints {
        Some(constraints) => constraints.iter().map(of_this_bridge).collect(),
        None => vec![evenly("kubernetes.io/hostname"), evenly("topology.kubernetes.io/zone")],
    }
}

/// What is mounted, and where.
fn volumes(plan: &Plan) -> Vec<(Volume, VolumeMount)> {
    let mount = |volume: Volume, path: &str| {
        let mount = VolumeMount {
            name: volume.name.clone(),
            mount_path: path.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        };
        (volume, mount)
    };
    let certificate = plan.tls_secret.as_ref().map(|secret| {
        let volume = Volume {
            name: "tls".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(secret.clone()),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        };
        mount(volume, TLS_FOLDER)
    });
    let sources: Vec<_> = ca_sources(plan).into_iter().map(projection).collect();
    let ca = (!sources.is_empty()).then(|| {
        let volume = Volume {
            name: "upstream-ca".to_owned(),
            projected: Some(ProjectedVolumeSource {
                sources: Some(sources),
                ..ProjectedVolumeSource::default()
            }),
            ..Volume::default()
        };
        mount(volume, CA_FOLDER)
    });
    let host_files = plan.spec.host_config.as_ref().map(|host_config| {
        let volume = Volume {
            name: "host-files".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: host_config.config_map_name.clone(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        };
        mount(volume, HOST_FILES_FOLDER)
    });
    let boot_keys = Volume {
        name: "boot-keys".to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name::boot_keys(&plan.bridge)),
            // Machines boot without them.
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    certificate
        .into_iter()
        .chain([mount(boot_keys, BOOT_KEYS_FOLDER)])
        .chain(ca)
        .chain(host_files)
        .chain(cache(plan))
        .collect()
}

/// Room for the artifact cache: of the node, or a volume that outlives the pod.
fn cache(plan: &Plan) -> Option<(Volume, VolumeMount)> {
    let cache = &plan.spec.cache;
    cache.mode.is_on().then(|| {
        let claim = cache
            .persistent_volume_claim
            .as_ref()
            .map(|claim| PersistentVolumeClaimVolumeSource {
                claim_name: claim.claim_name.clone(),
                read_only: None,
            });
        // Without a limit of the volume's own: a pod that is above one is evicted, and the cache keeps to its size by itself.
        let empty_dir = claim.is_none().then(EmptyDirVolumeSource::default);
        let volume = Volume {
            name: "cache".to_owned(),
            empty_dir,
            persistent_volume_claim: claim,
            ..Volume::default()
        };
        let mount = VolumeMount {
            name: volume.name.clone(),
            mount_path: CACHE_FOLDER.to_owned(),
            ..VolumeMount::default()
        };
        (volume, mount)
    })
}

fn projection((name, key): (String, String)) -> VolumeProjection {
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            items: Some(vec![KeyToPath {
                path: format!("{name}/{key}"),
                key,
                mode: None,
            }]),
            name,
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}
