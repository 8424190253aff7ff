//! From a spec to objects, without a cluster.

mod arguments;

use ipxe_bridge::crd::bridge::IpxeBridge;
use ipxe_bridge::operator::address::Addresses;
use ipxe_bridge::operator::arguments::arguments;
use ipxe_bridge::operator::build::build;
use ipxe_bridge::operator::kind::Kind;
use ipxe_bridge::operator::plan::{Content, Observed, Plan, Presence, Settings};
use ipxe_bridge::operator::reference::references;
use serde_json::{Value, json};

use crate::generated::current;

fn bridge(spec: &Value) -> IpxeBridge {
    let object = json!({
        "apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeBridge",
        "metadata": {"name": "main", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1},
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// A cluster that has these optional kinds, and everything that a spec refers to.
fn observed(bridge: &IpxeBridge, optional: &[Kind]) -> Observed {
    let presence = |kind: Kind| match !kind.is_optional() || optional.contains(&kind) {
        true => Presence::Present,
        false => Presence::Absent,
    };
    let version = |name: &str| Content::Version(format!("version of {name}"));
    Observed {
        kinds: Kind::all().map(|kind| (kind, presence(kind))).collect(),
        references: references("main", &bridge.spec)
            .into_iter()
            .map(|reference| (reference.clone(), version(&reference.name)))
            .collect(),
        ..Observed::default()
    }
}

fn settings() -> Settings {
    Settings {
        namespace: "ipxe-bridge-system".to_owned(),
        image: Some("registry.example.com/ipxe-bridge:test".to_owned()),
    }
}

fn plan(spec: &Value, optional: &[Kind]) -> Plan {
    let bridge = bridge(spec);
    Plan::new(&bridge, &settings(), &observed(&bridge, optional))
}

/// Every field of the spec, as far as they go together.
pub fn everything() -> Value {
    let netboot = json!({"enabled": true, "interface": "eth1", "interfaces": ["eth2"], "nodeSelector": {"rack": "r1"},
        "tolerations": [{"operator": "Exists"}], "answer": "All", "dryRun": true, "proxyDhcp": "Port4011",
        "tftp": "SinglePort", "relays": ["10.1.0.0/16"], "clients": ["10.1.0.0/16", "10.2.0.0/16"], "quirks": ["BiosAsks", "NativeDrivers"],
        "bootPrograms": {"claimName": "ipxe", "path": "ipxeboot"}});
    json!({
        "namespace": "boot",
        "uri": "http://boot.example.com",
        "replicas": 3,
        "image": "registry.example.com/other:1",
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{"name": "pull"}],
        "resources": {"requests": {"cpu": "1", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
        "nodeSelector": {"node-role.kubernetes.io/infra": ""},
        "tolerations": [{"key": "node-role.kubernetes.io/infra", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}]}}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
        "priorityClassName": "system-cluster-critical",
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}, {"name": "NO_PROXY", "value": ".svc"}],
        "service": {"type": "LoadBalancer", "port": 80, "httpsPort": 443, "nodePort": 30080, "annotations": {"a": "b"},
                    "loadBalancerClass": "example.com/lb", "externalTrafficPolicy": "Local"},
        "route": {"mode": "Enabled", "host": "boot.apps.example.com", "termination": "Reencrypt", "insecurePolicy": "Allow",
                  "annotations": {"haproxy.router.openshift.io/timeout": "10m"}},
        "ingress": {"className": "nginx", "host": "boot.example.com", "tls": {"secretName": "ingress-tls"},
                    "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"}},
        "tls": {"certManager": {"issuerRef": {"name": "site", "kind": "ClusterIssuer"}, "dnsNames": ["boot.lab", "192.0.2.7"]}, "plainHttp": "Enabled"},
        "loopTiming": "5m",
        "upstream": {"caBundles": [{"name": "site-ca", "key": "ca.crt"}], "clusterCaBundle": "Enabled", "serviceCaBundle": "Enabled",
                     "hostOverrides": [{"host": "images.example.com", "address": "https://images.multicluster-engine.svc:8080"}]},
        "environments": {
            "namespaceSelector": {"matchLabels": {"boot": "yes"}},
            "selector": {"matchLabels": {"rack": "r1"}, "matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["test", "dev"]}]},
            "default": {"namespace": "lab", "name": "discovery"}},
        "unknownHosts": "Wait",
        "bootPolicy": "Upstream",
        "kernelArguments": {"remove": ["quiet"], "replace": [{"argument": "console=tty0", "with": "console=ttyS0,115200n8"}], "append": ["ip=dhcp", "a=b"]},
        "localDisk": {"method": "Sanboot"},
        "cache": {"mode": "Enabled", "size": "40Gi", "prefetch": "Enabled", "fsGroup": 1000},
        "hostConfig": {"configMapName": "machines"},
        "netboot": netboot,
        "access": {"overrideNamespaces": ["ops", "rescue"], "equalOverrides": "Oldest", "scriptProxy": "Enabled"},
        "telemetry": {"logLevel": "Debug", "otlpEndpoint": "http://collector.observability.svc:4318", "samplingPercent": 25, "bootEvents": "Enabled",
                      "serviceMonitor": {"mode": "Enabled", "labels": {"release": "prometheus"}},
                      "prometheusRule": {"mode": "Enabled", "labels": {"release": "prometheus"}}, "grafanaDashboards": "Enabled"},
        "networkPolicy": {"mode": "Enabled"},
        "podDisruptionBudget": {"mode": "Enabled", "maxUnavailable": 2}
    })
}

const OPTIONAL: [Kind; 4] = [Kind::Route, Kind::Certificate, Kind::ServiceMonitor, Kind::PrometheusRule];

#[test]
fn plans_become_these_objects() {
    let openshift = json!({
        "route": {"termination": "Reencrypt"},
        "tls": {"serviceServing": {}, "plainHttp": "Disabled"},
        "upstream": {"clusterCaBundle": "Enabled"},
    });
    let small = json!({
        "replicas": 1, "networkPolicy": {"mode": "Disabled"}, "podDisruptionBudget": {"mode": "Disabled"}, "topologySpreadConstraints": [],
        "ingress": {"host": "boot.example.com"}, "tls": {"secretName": "own"}, "cache": {"persistentVolumeClaim": {"claimName": "images"}},
    });
    for (name, spec, optional) in [
        ("empty", json!({}), &[][..]),
        ("small", small, &[]),
        ("openshift", openshift, &OPTIONAL),
        ("everything", everything(), &OPTIONAL),
    ] {
        let plan = plan(&spec, optional);
        assert!(plan.can_run(), "{name}: {:?}", plan.findings);
        let objects: Vec<Value> = build(&plan).unwrap().into_iter().map(|desired| desired.object).collect();
        let text = serde_json::to_string_pretty(&objects).unwrap() + "\n";
        current(&format!("tests/data/operator/{name}.json"), &text);
    }
}

#[test]
fn the_log_and_the_traces_are_set_by_variables_and_flags() {
    let spec = json!({"telemetry": {"logLevel": "Trace", "otlpEndpoint": "http://c:4318", "samplingPercent": 5}, "env": [{"name": "NO_PROXY", "value": "x"}]});
    let plan = plan(&spec, &[]);
    assert!(arguments(&plan).contains(&"--log-level=trace".to_owned()));
    let objects = build(&plan).unwrap();
    let deployment = &objects.iter().find(|object| object.kind == Kind::Deployment).unwrap().object;
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    let resource = "service.namespace=ipxe-bridge-system,service.instance.id=$(POD_NAME),k8s.namespace.name=ipxe-bridge-system,\
        k8s.deployment.name=main-ipxe-bridge,k8s.pod.name=$(POD_NAME),k8s.node.name=$(NODE_NAME),k8s.container.name=server";
    let expected = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "NO_PROXY", "value": "x"},
        {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://c:4318"},
        {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": resource},
        {"name": "OTEL_TRACES_SAMPLER", "value": "parentbased_traceidratio"},
        {"name": "OTEL_TRACES_SAMPLER_ARG", "value": "0.05"},
    ]);
    assert_eq!(env, &expected);
}

#[test]
fn the_address_is_found_in_this_order() {
    let published = Addresses {
        route: Some("route.example.com".to_owned()),
        route_refusal: None,
        load_balancer: Some("192.0.2.9".to_owned()),
    };
    let balancer = json!({"type": "LoadBalancer"});
    for (spec, expected) in [
        (json!({"uri": "http://own"}), Some("http://own")),
        (json!({}), Some("http://route.example.com")),
        (
            json!({"route": {"insecurePolicy": "Redirect"}}),
            Some("https://route.example.com"),
        ),
        (json!({"route": {"termination": "None"}}), Some("http://route.example.com")),
        (
            json!({"ingress": {"host": "ingress.example.com"}}),
            Some("http://ingress.example.com"),
        ),
        (
            json!({"ingress": {"host": "ingress.example.com", "tls": {}}}),
            Some("https://ingress.example.com"),
        ),
        (
            json!({"ingress": {"host": "ingress.example.com"}, "route": {"mode": "Enabled"}}),
            Some("http://route.example.com"),
        ),
        (json!({"service": balancer}), Some("http://192.0.2.9:9876")),
        (
            json!({"service": balancer, "tls": {"secretName": "own"}}),
            Some("http://192.0.2.9:9876"),
        ),
        (
            json!({"service": balancer, "tls": {"secretName": "own", "plainHttp": "Disabled"}}),
            Some("https://192.0.2.9:9443"),
        ),
        (json!({"service": {"type": "NodePort"}}), None),
        (json!({"route": {"mode": "Disabled"}}), None),
    ] {
        let bridge = bridge(&spec);
        let observed = Observed {
            addresses: published.clone(),
            ..observed(&bridge, &OPTIONAL)
        };
        let plan = Plan::new(&bridge, &settings(), &observed);
        assert_eq!(plan.uri.as_deref(), expected, "{spec}");
        // A load balancer changes nothing that the server would not see itself.
        let told = expected.filter(|uri| !uri.contains("192.0.2.9"));
        assert_eq!(plan.server_uri.as_deref(), told, "{spec}");
    }
}

#[test]
fn alerts_are_there_with_the_metrics_and_with_pods_only() {
    let kinds = |spec: Value, optional: &[Kind]| -> Vec<Kind> {
        let objects = build(&plan(&spec, optional)).unwrap();
        objects.into_iter().map(|desired| desired.kind).collect()
    };
    let both = [Kind::ServiceMonitor, Kind::PrometheusRule];
    for (spec, optional, expected) in [
        (json!({}), &both[..], true),
        (json!({}), &both[..1], false),
        (json!({}), &both[1..], false),
        (json!({"replicas": 0}), &both[..], false),
        (
            json!({"telemetry": {"serviceMonitor": {"mode": "Disabled"}}}),
            &both[..],
            false,
        ),
        (
            json!({"telemetry": {"prometheusRule": {"mode": "Disabled"}}}),
            &both[..],
            false,
        ),
    ] {
        let has_alerts = kinds(spec.clone(), optional).contains(&Kind::PrometheusRule);
        assert_eq!(has_alerts, expected, "{spec} {optional:?}");
    }
}

#[test]
fn what_stands_against_a_plan_is_found() {
    for (spec, reason, message) in [
        (
            json!({"route": {"mode": "Enabled"}, "uri": "http://x"}),
            "ApiMissing",
            "this cluster has no routes.route.openshift.io: use spec.ingress",
        ),
        (
            json!({"tls": {"certManager": {"issuerRef": {"name": "x"}}}, "uri": "http://x"}),
            "ApiMissing",
            "this cluster has no certificates.cert-manager.io: install cert-manager",
        ),
        (
            json!({"telemetry": {"serviceMonitor": {"mode": "Enabled"}}, "uri": "http://x"}),
            "ApiMissing",
            "this cluster has no servicemonitors.monitoring.coreos.com",
        ),
        (
            json!({"telemetry": {"prometheusRule": {"mode": "Enabled"}}, "uri": "http://x"}),
            "ApiMissing",
            "this cluster has no prometheusrules.monitoring.coreos.com: install its operator, or set spec.telemetry.prometheusRule.mode to Auto",
        ),
        (
            json!({"environments": {"selector": {"matchExpressions": [{"key": "a", "operator": "Near", "values": []}]}}, "uri": "http://x"}),
            "InvalidSpec",
            "spec.environments.selector: ",
        ),
        (
            json!({}),
            "UriMissing",
            "set spec.service.type to LoadBalancer, or spec.ingress, or spec.uri",
        ),
        (
            json!({"service": {"type": "NodePort"}}),
            "UriMissing",
            "with the Service's node port",
        ),
        (
            json!({"service": {"type": "LoadBalancer"}}),
            "AddressPending",
            "waiting for the load balancer",
        ),
    ] {
        let plan = plan(&spec, &[]);
        let found: Vec<_> = plan
            .findings
            .iter()
            .map(|finding| (finding.reason.to_string(), &finding.message))
            .collect();
        assert!(
            found.len() == 1 && found[0].0 == reason && found[0].1.contains(message),
            "{spec}: {found:?}"
        );
    }
    // Nothing is known of what the pods mount.
    let bridge = bridge(&everything());
    let observed = Observed {
        references: Default::default(),
        ..observed(&bridge, &OPTIONAL)
    };
    let found = Plan::new(
        &bridge,
        &Settings {
            image: None,
            ..settings()
        },
        &observed,
    );
    assert!(!found.can_run());
    let messages: Vec<_> = found
        .findings
        .iter()
        .map(|finding| format!("{}: {}", finding.reason, finding.message))
        .collect();
    assert_eq!(
        messages,
        [
            "Waiting: there is no Secret main-ipxe-bridge-tls: waiting until cert-manager has made it",
            "ReferenceMissing: there is no ConfigMap site-ca in the bridge's namespace: create it, or change the spec",
            "Waiting: there is no ConfigMap main-ipxe-bridge-cluster-ca: waiting until OpenShift has made it",
            "Waiting: there is no ConfigMap main-ipxe-bridge-service-ca: waiting until OpenShift has made it",
            "ReferenceMissing: there is no ConfigMap machines in the bridge's namespace: create it, or change the spec",
        ]
    );
}
