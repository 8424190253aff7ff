//! What the API server says to a spec.

use super::*;

/// A spec, and what a person sees who applies it; `None` where it is accepted.
fn specs() -> Vec<(Value, Option<&'static str>)> {
    let tls = |more: Value| {
        let mut tls = json!({"secretName": "own"});
        tls.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        tls
    };
    vec![
        (json!({}), None),
        (super::builders::everything(), None),
        (
            json!({"tls": {"serviceServing": {}}, "route": {"termination": "Reencrypt"}}),
            None,
        ),
        (json!({"resources": {"requests": {"cpu": 1, "memory": "1Gi"}}}), None),
        (
            json!({"uri": "boot.example.com"}),
            Some("write an http or https address without user name, query and fragment"),
        ),
        (
            json!({"uri": "http://boot.example.com/?a=b"}),
            Some("write an http or https address without user name, query and fragment"),
        ),
        (
            json!({"netboot": {"enabled": true}}),
            Some("say with interface which network card of the node the machines are behind"),
        ),
        (json!({"netboot": {"enabled": true, "interfaces": ["eth1"]}}), None),
        (json!({"netboot": {"interface": "a name"}}), Some("spec.netboot.interface")),
        (json!({"netboot": {"relays": ["10.1.0.0"]}}), Some("spec.netboot.relays[0]")),
        (
            json!({"netboot": {"clients": ["10.1.0.256/8"]}}),
            Some("spec.netboot.clients[0]"),
        ),
        (
            json!({"netboot": {"clients": ["10.1.0.0/33"]}}),
            Some("spec.netboot.clients[0]"),
        ),
        (json!({"netboot": {"quirks": ["Slow"]}}), Some("Unsupported value: \"Slow\"")),
        (json!({"netboot": {"tftp": "Maybe"}}), Some("Unsupported value: \"Maybe\"")),
        (
            json!({"netboot": {"bootPrograms": {"path": "a"}}}),
            Some("say one of image and claimName"),
        ),
        (
            json!({"telemetry": {"prometheusRule": {"mode": "Enabled"}, "serviceMonitor": {"mode": "Disabled"}}}),
            Some("alerts need the metrics: set serviceMonitor.mode to Auto or Enabled"),
        ),
        (
            json!({"netboot": {"bootPrograms": {"image": "a", "claimName": "b"}}}),
            Some("say one of image and claimName"),
        ),
        (
            json!({"netboot": {"answer": "Everyone"}}),
            Some("Unsupported value: \"Everyone\""),
        ),
        (json!({"namespace": "No"}), Some("spec.namespace")),
        (json!({"replicas": -1}), Some("spec.replicas")),
        (
            json!({"env": [{"name": "IPXE_BRIDGE_PORT", "value": "1"}]}),
            Some("use the field in place of the variable"),
        ),
        (
            json!({"env": [{"name": "FLASK_URI", "value": "1"}]}),
            Some("use the field in place of the variable"),
        ),
        (
            json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
            Some("Duplicate value"),
        ),
        (
            json!({"service": {"nodePort": 30000}}),
            Some("nodePort goes with type NodePort or LoadBalancer"),
        ),
        (
            json!({"service": {"loadBalancerClass": "a/b"}}),
            Some("loadBalancerClass goes with type LoadBalancer"),
        ),
        (
            json!({"service": {"externalTrafficPolicy": "Local"}}),
            Some("externalTrafficPolicy goes with type NodePort or LoadBalancer"),
        ),
        (
            json!({"service": {"port": 443, "httpsPort": 443}}),
            Some("port and httpsPort must differ"),
        ),
        (
            json!({"service": {"type": "ExternalName"}}),
            Some("Unsupported value: \"ExternalName\""),
        ),
        (
            json!({"tls": tls(json!({})), "route": {"termination": "Passthrough", "insecurePolicy": "Allow"}}),
            Some("a Route with termination Passthrough cannot pass plain HTTP on: write insecurePolicy None or Redirect"),
        ),
        (
            json!({"route": {"termination": "None", "insecurePolicy": "Allow"}}),
            Some("termination None is plain HTTP only: leave insecurePolicy out"),
        ),
        (
            json!({"route": {"termination": "Reencrypt"}}),
            Some("say with tls where their certificate comes from"),
        ),
        (
            json!({"tls": tls(json!({"plainHttp": "Disabled"})), "route": {"termination": "Edge"}}),
            Some("write route.termination Reencrypt or Passthrough"),
        ),
        (
            json!({"tls": {}}),
            Some("say where the certificate comes from: exactly one of secretName, certManager and serviceServing"),
        ),
        (
            json!({"tls": tls(json!({"serviceServing": {}}))}),
            Some("exactly one of secretName, certManager and serviceServing"),
        ),
        (json!({"loopTiming": "soon"}), Some("spec.loopTiming")),
        (
            json!({"loopTiming": "0s"}),
            Some("write a time of at least one second, such as 90s or 5m"),
        ),
        (
            json!({"upstream": {"hostOverrides": [{"host": "a", "address": "https://b/path"}]}}),
            Some("write an http or https address without a path"),
        ),
        (
            json!({"kernelArguments": {"append": ["a b"]}}),
            Some("write one kernel argument without blanks"),
        ),
        (json!({"cache": {"size": "much"}}), Some("spec.cache.size")),
        (
            json!({"cache": {"persistentVolumeClaim": {"claimName": "images"}}}),
            Some("only one pod can use cache.persistentVolumeClaim: write replicas 1"),
        ),
        (
            json!({"replicas": 1, "cache": {"persistentVolumeClaim": {"claimName": "images"}}}),
            None,
        ),
        (json!({"unknownHosts": "Panic"}), Some("Unsupported value: \"Panic\"")),
        (
            json!({"podDisruptionBudget": {"maxUnavailable": 0}}),
            Some("spec.podDisruptionBudget.maxUnavailable"),
        ),
        (json!({"ingress": {}}), Some("spec.ingress.host")),
        (json!({"colour": "blue"}), Some("unknown field \"spec.colour\"")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn specs_are_checked_at_admission() {
    let Some(Site { plane, .. }) = Site::shared().await else {
        return;
    };
    let apply = |name: &str, spec: &Value, dry: &[&str]| {
        let bridge =
            json!({"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeBridge", "metadata": {"name": name}, "spec": spec});
        let arguments = [&["apply", "--validate=strict", "-f", "-"], dry].concat();
        plane.kubectl(&arguments, Some(&bridge.to_string()))
    };
    let dry = ["--dry-run=server"];
    for (spec, message) in specs() {
        match (apply("checked", &spec, &dry), message) {
            (Ok(_), None) => {}
            (Err(said), Some(message)) => assert!(said.contains(message), "{spec}: {said}"),
            (result, _) => panic!("{spec}: {result:?}, expected {message:?}"),
        }
    }
    for name in ["9lives", "a.b", "this-name-is-longer-than-forty-characters-is"] {
        let said = apply(name, &json!({}), &dry).unwrap_err();
        assert!(
            said.contains("choose a name of at most 40 lower-case letters, digits and hyphens"),
            "{name}: {said}"
        );
    }
    // What cannot change.
    apply("fixed", &json!({"namespace": "default", "replicas": 0}), &[]).unwrap();
    for spec in [json!({"namespace": "other"}), json!({})] {
        let said = apply("fixed", &spec, &dry).unwrap_err();
        assert!(
            said.contains("delete the bridge and create it again in the other namespace"),
            "{spec}: {said}"
        );
    }
    let manual = plane.kubectl(&["explain", "ipxb.spec", "--recursive"], None).unwrap();
    assert!(manual.contains("namespaceSelector"), "{manual}");
    let manual = plane.kubectl(&["explain", "ipxb.spec.loopTiming"], None).unwrap();
    assert!(manual.contains("`90s`, `5m`"), "{manual}");
}
