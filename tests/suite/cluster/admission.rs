//! Overrides: what the API server says to them, and that they are served at once.

use super::*;

/// A spec of an override, and what a person sees who applies it; `None` where it is accepted.
fn specs() -> Vec<(serde_json::Value, Option<&'static str>)> {
    let mac = "52:54:00:a0:00:07";
    let with = |more: serde_json::Value| {
        let mut spec = json!({"macAddresses": [mac]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let edits = |key: &str, argument: &str| with(json!({"kernelArguments": {key: [argument]}}));
    let syntax = Some("write one kernel argument without blanks");
    vec![
        (with(json!({"script": "#!ipxe\nshell\n"})), None),
        (with(json!({"chain": "tftp://10.0.0.1/x"})), None),
        (
            with(json!({"infraEnv": {"name": "lab"}, "kernelArguments": {"append": ["a=b"]}})),
            None,
        ),
        (
            with(json!({"localDisk": {}, "priority": -5, "expiresAt": "2027-01-31T18:00:00Z"})),
            None,
        ),
        (
            json!({"hostSelector": {"matchLabels": {"rack": "r1"}}, "localDisk": {"method": "Exit"}}),
            None,
        ),
        (
            json!({"script": "x"}),
            Some("say which machines: either macAddresses with at least one address, or hostSelector"),
        ),
        (
            with(json!({"hostSelector": {}, "script": "x"})),
            Some("say which machines: either macAddresses"),
        ),
        (json!({"macAddresses": ["zz"], "script": "x"}), Some("spec.macAddresses[0]")),
        (
            json!({"macAddresses": ["x 52:54:00:a0:00:07"], "script": "x"}),
            Some("spec.macAddresses[0]"),
        ),
        (
            with(json!({})),
            Some("say what to do: script, scriptFrom, chain, infraEnv, localDisk or kernelArguments"),
        ),
        (
            with(json!({"script": "x", "localDisk": {}})),
            Some("say one thing to boot: only one of script, scriptFrom, chain, infraEnv and localDisk"),
        ),
        (
            with(json!({"script": "x", "kernelArguments": {"append": ["a"]}})),
            Some("they cannot go with script, scriptFrom, chain or localDisk"),
        ),
        (
            with(json!({"kernelArguments": {}})),
            Some("say what changes: remove, replace or append"),
        ),
        (
            with(json!({"chain": "ftp://x"})),
            Some("write an http, https or tftp address without blanks and without ${ }"),
        ),
        (
            with(json!({"chain": "http://x/${net0/mac}"})),
            Some("write an http, https or tftp address"),
        ),
        (
            with(json!({"localDisk": {"method": "Reboot"}})),
            Some("Unsupported value: \"Reboot\""),
        ),
        (with(json!({"script": "x", "priority": 1001})), Some("spec.priority")),
        (
            with(json!({"scriptFrom": {"configMapKeyRef": {"name": "x", "key": "y"}}, "templating": true, "bootLimit": 1})),
            None,
        ),
        (
            with(json!({"scriptFrom": {}})),
            Some("say where the script is: either configMapKeyRef or secretKeyRef"),
        ),
        (
            with(json!({"scriptFrom": {"secretKeyRef": {"name": "x", "key": "a/b"}}})),
            Some("spec.scriptFrom.secretKeyRef.key"),
        ),
        (
            with(json!({"localDisk": {}, "templating": true})),
            Some("templating is for script and scriptFrom only"),
        ),
        (with(json!({"script": "x", "bootLimit": 0})), Some("spec.bootLimit")),
        (
            json!({"macAddresses": ["01:00:5e:00:00:01"], "script": "x"}),
            Some("spec.macAddresses[0]"),
        ),
        (
            edits("remove", "initrd"),
            Some("initrd and coreos.live.rootfs_url cannot be removed"),
        ),
        (
            with(json!({"kernelArguments": {"replace": [{"argument": "coreos.live.rootfs_url=x", "with": "y"}]}})),
            Some("initrd and coreos.live.rootfs_url cannot be replaced"),
        ),
        (edits("append", "&&"), syntax),
        (edits("append", "a b"), syntax),
        (edits("remove", "${x}"), syntax),
        (edits("append", "#x"), syntax),
        (edits("append", "x\\"), syntax),
        (edits("append", "x\ny"), syntax),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn overrides_are_checked_at_admission_and_served_at_once() {
    let Some(plane) = blocking(ControlPlane::shared).await else {
        return;
    };
    plane.load_crds(Path::new(OWN_CRDS));
    let site = Site::with(Default::default()).await;
    site.environment("overrides", "lab", "{}", false);
    let kubeconfig = account(plane, "overrides", true);
    let apply = |name: &str, spec: &serde_json::Value, dry: &[&str]| {
        let object = json!({"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeHostOverride", "metadata": {"name": name, "namespace": "overrides"}, "spec": spec});
        let arguments = [&["apply", "--validate=strict", "-f", "-"], dry].concat();
        plane.kubectl(&arguments, Some(&object.to_string()))
    };
    for (spec, message) in specs() {
        match (apply("checked", &spec, &["--dry-run=server"]), message) {
            (Ok(_), None) => {}
            (Err(said), Some(message)) => assert!(said.contains(message), "{spec}: {said}"),
            (result, _) => panic!("{spec}: {result:?}, expected {message:?}"),
        }
    }
    assert!(
        plane
            .kubectl(&["explain", "ipxo.spec", "--recursive"], None)
            .unwrap()
            .contains("kernelArguments")
    );

    let mac = "52:54:00:a0:00:07";
    create_environment(plane, &site, "overrides", "lab");
    create_host(plane, "overrides", "n7", mac, Some("lab"));
    let bridge = Bridge::start_with(&["--namespaces", "overrides"], &[("KUBECONFIG", &kubeconfig)]).await;
    bridge.wait_ready().await;
    assert!(bridge.script_has(mac, "kernel/overrides/lab").await);
    apply(
        "o",
        &json!({"macAddresses": [mac], "kernelArguments": {"append": ["from=override"]}}),
        &[],
    )
    .unwrap();
    eventually("an override is served", SECOND, async || {
        bridge.script_has(mac, " from=override || goto").await
    })
    .await;
    plane
        .kubectl(&["delete", "ipxo", "o", "-n", "overrides", "--wait=false"], None)
        .unwrap();
    eventually("and gone", SECOND, async || !bridge.script_has(mac, "from=override").await).await;
}
