//! `ipxe-bridge explain` and `GET /explain/{mac}`: the whole reason, and no effect on anything.

use serde_json::{Value, json};

use crate::observability::MAC;
use crate::support::bridge::{command, without_ids};
use crate::support::site::Site;

/// Whether the command ended well, what it printed, and what it said.
async fn explain(arguments: &[&str]) -> (bool, String, String) {
    let mut command = command(&[&["explain"], arguments].concat());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn object(explained: &Value, kind: &str) -> Value {
    let objects = explained["objects"].as_array().unwrap();
    objects
        .iter()
        .find(|object| object["kind"] == kind)
        .cloned()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_bridge_tells_rules_objects_arguments_and_the_exact_script() {
    let site = Site::start().await;
    site.agent("a", "one", MAC, "installing-in-progress", "Writing image to disk");
    let uid = "7e1b4a52-93c6-4c0e-8a6d-0f2b9d5c1e33";
    let host = std::fs::read_to_string(site.path().join("host-a-n1.yaml")).unwrap();
    site.write(
        "host-a-n1.yaml",
        &host.replace("  name: n1\n", &format!("  name: n1\n  uid: {uid}\n")),
    );
    site.write("override.yaml", &format!(
        "apiVersion: ipxe-bridge.io/v1alpha1\nkind: IpxeHostOverride\nmetadata: {{name: o, namespace: a}}\nspec: {{macAddresses: ['{MAC}'], kernelArguments: {{append: [from=override]}}}}\n"
    ));
    let bridge = site.bridge(&["--kernel-arguments", "from=bridge"]).await;
    let explained = bridge.get(&format!("/explain/{MAC}")).await.json();
    assert_eq!(
        object(&explained, "BareMetalHost"),
        json!({
        "kind": "BareMetalHost", "namespace": "a", "name": "n1", "uid": uid, "detail": "wants InfraEnv a/lab"})
    );
    assert_eq!(object(&explained, "InfraEnv")["detail"], "boots");
    assert_eq!(object(&explained, "IpxeHostOverride")["detail"], "counts");
    let agent = object(&explained, "Agent");
    assert_eq!(
        (&agent["state"], &agent["stage"]),
        (&json!("installing-in-progress"), &json!("Writing image to disk"))
    );
    assert_eq!(
        explained["policy"],
        json!({"boot": "UntilInstalled", "unknown_hosts": "Shell"})
    );
    let origin = |argument: &str| {
        let line = explained["command_line"].as_array().unwrap();
        line.iter()
            .find(|found| found["argument"] == argument)
            .unwrap_or_else(|| panic!("{argument}: {line:?}"))["origin"]
            .clone()
    };
    assert_eq!(origin("from=override"), "IpxeHostOverride a/o");
    assert_eq!(origin("from=bridge"), "--kernel-arguments");
    assert_eq!(origin("ignition.platform.id=metal"), "InfraEnv a/lab");
    assert_eq!(
        origin("coreos.inst.persistent-kargs=\"console=tty1 console=ttyS1,115200n8\""),
        "InfraEnv a/lab"
    );
    assert_eq!(explained["script"].as_str().unwrap(), without_ids(&bridge.script(MAC).await));

    let (good, text, said) = explain(&[MAC, "--url", &bridge.url]).await;
    assert!(good, "{said}");
    for line in [
        "52:54:00:cc:00:01 boots Environment a/lab\n",
        "  + Override: IpxeHostOverride a/o changes kernel arguments: with from=override\n",
        "  + BareMetalHost: BareMetalHost a/n1 wants InfraEnv a/lab\n",
        "  + BootPolicy: UntilInstalled: Agent a/one is in state installing-in-progress, stage Writing image to disk, so the environment boots\n",
        &format!("  BareMetalHost a/n1 ({uid}): wants InfraEnv a/lab\n"),
        "  Agent a/one: state installing-in-progress, stage Writing image to disk\n",
        "  IpxeHostOverride a/o: with from=override\n",
        "  #!ipxe\n",
        "Policies: UntilInstalled; unknown hosts: Shell\n",
    ] {
        assert!(text.contains(line), "{line}in\n{text}");
    }
    let (good, text, _) = explain(&["5254.00cc.0001", "--url", &bridge.url, "-o", "json"]).await;
    assert_eq!((good, serde_json::from_str::<Value>(&text).unwrap()), (true, explained));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_explained_without_a_server_and_with_other_policies() {
    let site = Site::start().await;
    let folder = site.path().to_str().unwrap();
    let (good, text, _) = explain(&[MAC, "--file", folder]).await;
    assert!(
        good && text.contains("boots Environment a/lab")
            && text.contains("No script: the script of InfraEnv a/lab is the service's to tell")
            && text.contains("with the default settings of a bridge"),
        "{text}"
    );
    site.agent("a", "one", MAC, "installed", "Done");
    let (_, text, _) = explain(&[MAC, "--manifests", folder]).await;
    assert!(
        text.contains("boots LocalDisk\n") && text.contains("  InfraEnv a/lab: does not boot\n") && text.contains("sanboot"),
        "{text}"
    );
    let (_, text, _) = explain(&[MAC, "--file", folder, "--boot-policy", "always"]).await;
    assert!(text.contains("boots Environment a/lab"), "{text}");
    site.remove("env-a-lab.yaml");
    let (_, text, _) = explain(&["52:54:00:ff:00:01", "-f", folder, "--nics", "52:54:00:cc:00:02"]).await;
    assert!(text.contains("52:54:00:cc:00:02 boots Environment b/lab"), "{text}");
    let (_, text, _) = explain(&["52:54:00:ff:00:01", "-f", folder, "--unknown-hosts", "Wait", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&json["boot"], &json["policy"]["unknown_hosts"]),
        (&json!("NotYet"), &json!("Wait"))
    );

    for (arguments, expected) in [
        (&["nonsense", "-f", folder][..], "expected twelve"),
        (
            &[MAC, "--url", "http://127.0.0.1:1"],
            "no bridge answers at http://127.0.0.1:1: set --url, or ask files with --file",
        ),
        (&[MAC, "--url", &format!("http://{}", site.upstream.addr())], "answers 404"),
        (&[MAC, "--file", "/nowhere"], "/nowhere"),
        (&[MAC, "--boot-policy", "Always"], "--file"),
    ] {
        let (good, text, said) = explain(arguments).await;
        assert!(!good && text.is_empty() && said.contains(expected), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_with_a_limit_is_not_used_up_by_asking() {
    let (site, state) = (Site::start().await, tempfile::tempdir().unwrap());
    site.write("override.yaml", &format!(
        "apiVersion: ipxe-bridge.io/v1alpha1\nkind: IpxeHostOverride\nmetadata: {{name: once, namespace: a}}\nspec: {{macAddresses: ['{MAC}'], bootLimit: 1, script: \"#!ipxe\\necho once\\n\"}}\n"
    ));
    let bridge = site.bridge(&["--state-dir", state.path().to_str().unwrap()]).await;
    for _ in 0..3 {
        let (_, text, said) = explain(&[MAC, "--url", &bridge.url]).await;
        assert!(text.contains("echo once"), "{text}{said}");
    }
    assert!(bridge.script(MAC).await.contains("echo once"));
    let (_, text, _) = explain(&[MAC, "--url", &bridge.url]).await;
    assert!(
        text.contains("IpxeHostOverride a/once: was booted as often as its bootLimit says") && !text.contains("echo once"),
        "{text}"
    );
    assert_eq!(bridge.get("/boots").await.json().as_array().unwrap().len(), 1);
}
