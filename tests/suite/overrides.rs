//! Overrides over real sockets, from a folder of YAML.

mod offline;

use std::time::Duration;

use serde_json::json;

use crate::support::bridge::{command, eventually, without_ids, write};
use crate::support::site::Site;

const SECOND: Duration = Duration::from_secs(1);
const MAC: &str = "52:54:00:cc:00:01";

fn host_override(namespace: &str, name: &str, spec: serde_json::Value) -> String {
    json!({"apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeHostOverride", "metadata": {"name": name, "namespace": namespace}, "spec": spec}).to_string()
}

#[tokio::test]
async fn every_action_of_an_override_is_served_at_once() {
    let site = Site::start().await;
    site.environment("a", "second", "{}", false);
    let bridge = site.bridge(&["--kernel-arguments", "bridge=1"]).await;
    let declare = |spec| site.write("override.json", &host_override("a", "o", spec));
    let script = "#!ipxe\r\necho ${net0/mac}   {{ mac }}\nshell";
    for (spec, served) in [
        (json!({"macAddresses": [MAC], "script": script}), script),
        (
            json!({"macAddresses": ["52-54-00-CC-00-01", MAC], "chain": "http://other.example.com/boot.ipxe"}),
            "chain --replace --autofree http://other.example.com/boot.ipxe ||\n",
        ),
        (
            json!({"macAddresses": [MAC], "infraEnv": {"name": "second"}}),
            "/boot-artifacts/kernel/a/second",
        ),
        (
            json!({"macAddresses": [MAC], "localDisk": {}}),
            "sanboot --no-describe --drive 0x80\n",
        ),
        (
            json!({"macAddresses": [MAC], "localDisk": {"method": "Exit"}}),
            "repair\nexit 1\n",
        ),
        (
            json!({"macAddresses": [MAC], "kernelArguments": {"remove": ["console=tty1"], "replace": [{"argument": "bridge", "with": "bridge=2"}], "append": ["extra"]}}),
            "ignition.platform.id=metal console=ttyS1,115200n8 coreos.inst.persistent-kargs=\"console=tty1 console=ttyS1,115200n8\" bridge=2 extra || goto",
        ),
    ] {
        let served = served.trim_start_matches("repair");
        declare(spec.clone());
        eventually(&format!("{spec}"), SECOND, async || bridge.script_has(MAC, served).await).await;
        assert!(
            bridge.script_has("52:54:00:cc:00:02", "/boot-artifacts/kernel/b/lab").await,
            "others are not disturbed"
        );
    }
    let explained = bridge.get(&format!("/explain/{MAC}")).await.json();
    let said = "IpxeHostOverride a/o changes kernel arguments: without console=tty1, bridge becomes bridge=2, with extra";
    assert_eq!(explained["steps"][0]["detail"], said, "{explained}");
    assert_eq!(bridge.get("/inventory").await.json()["overrides"][0]["macs"], json!([MAC]));
    site.remove("override.json");
    eventually("without it all is as before", SECOND, async || {
        bridge.script_has(MAC, "/boot-artifacts/kernel/a/lab").await
    })
    .await;
}

#[tokio::test]
async fn overrides_that_cannot_be_used_are_named_and_their_machines_wait() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    for (spec, cause) in [
        (
            json!({"macAddresses": ["zz"], "script": "#!ipxe\n"}),
            "spec.macAddresses: \"zz\" is not a MAC address",
        ),
        (json!({"script": "#!ipxe\n"}), "expected macAddresses or hostSelector"),
        (
            json!({"macAddresses": [MAC], "script": "x", "chain": "http://x"}),
            "expected only one of script, scriptFrom, chain, infraEnv and localDisk",
        ),
        (json!({"macAddresses": [MAC], "chain": "ftp://x"}), "spec.chain: "),
        (json!({"macAddresses": [MAC], "chain": "http://x/${y}"}), "spec.chain: "),
        (json!({"macAddresses": [MAC], "chain": "http://x/\u{1b}[2J"}), "spec.chain: "),
        (
            json!({"macAddresses": [MAC], "infraEnv": {"name": "Not A Name"}}),
            "spec.infraEnv.name: ",
        ),
        (
            json!({"macAddresses": [MAC], "kernelArguments": {"append": ["a && b"]}}),
            "spec.kernelArguments: ",
        ),
        (
            json!({"macAddresses": [MAC], "kernelArguments": {"remove": ["initrd"]}}),
            "the machine could not boot without it",
        ),
        (json!({"macAddresses": [MAC]}), "it changes nothing"),
        (
            json!({"macAddresses": [MAC, "zz"], "script": "#!ipxe\n"}),
            "spec.macAddresses: \"zz\" is not a MAC address",
        ),
        (
            json!({"macAddresses": [MAC], "templating": true, "script": "#!ipxe\necho {{ nic }}\n"}),
            "spec.script: line 2, column 6: \"nic\" is no variable, expected one of mac, ",
        ),
        (
            json!({"macAddresses": [MAC], "localDisk": {}, "bootlimit": 1}),
            "spec.bootlimit is no field of IpxeHostOverride",
        ),
        (
            json!({"macAddresses": [MAC], "scriptFrom": {}}),
            "spec.scriptFrom: expected either configMapKeyRef or secretKeyRef",
        ),
    ] {
        site.write("override.json", &host_override("a", "o", spec.clone()));
        eventually(&format!("{spec}"), SECOND * 2, async || {
            let skipped = bridge.get("/inventory").await.json()["skipped"].clone();
            skipped
                .as_array()
                .unwrap()
                .iter()
                .any(|skipped| skipped["cause"].as_str().unwrap().contains(cause))
        })
        .await;
        let answer = bridge.get(&format!("/ipxe-mac-boot/{MAC}")).await;
        // What would boot without the override may be the very thing that it was made to prevent.
        match spec["macAddresses"].as_array().is_some_and(|macs| macs.contains(&json!(MAC))) {
            true => assert!(
                answer.status == 503 && answer.header("retry-after") == "5" && answer.detail().contains("cannot be used: "),
                "{spec}: {}",
                answer.text()
            ),
            false => assert!(answer.text().contains("/boot-artifacts/kernel/a/lab"), "{spec}"),
        }
    }
    site.write(
        "override.json",
        &host_override("a", "o", json!({"macAddresses": [MAC], "localDisk": {}})),
    );
    eventually("the mended one", SECOND * 2, async || bridge.script_has(MAC, "sanboot").await).await;
    site.write(
        "override.json",
        &host_override("a", "o", json!({"macAddresses": [MAC], "chain": "x"})),
    );
    eventually("a mistake is told", SECOND * 2, async || {
        bridge.get("/inventory").await.text().contains("spec.chain: ")
    })
    .await;
    assert!(bridge.script_has(MAC, "sanboot").await, "the file's last good state stays");
}

#[tokio::test]
async fn an_override_ends_by_itself_and_stays_in_its_namespace() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    let end = jiff::Timestamp::now() + Duration::from_secs(3);
    site.write(
        "o.json",
        &host_override(
            "a",
            "o",
            json!({"macAddresses": [MAC], "script": "#!ipxe\nshell\n", "expiresAt": end.to_string()}),
        ),
    );
    eventually("it is served", SECOND, async || {
        bridge.script_has(MAC, "#!ipxe\nshell\n").await
    })
    .await;
    eventually("it ends", SECOND * 5, async || {
        bridge.script_has(MAC, "/boot-artifacts/kernel/a/lab").await
    })
    .await;
    assert!(
        bridge
            .get(&format!("/explain/{MAC}"))
            .await
            .text()
            .contains("IpxeHostOverride a/o has expired")
    );

    site.write(
        "o.json",
        &host_override("b", "o", json!({"macAddresses": [MAC], "script": "#!ipxe\nshell\n"})),
    );
    eventually("it is refused", SECOND, async || {
        bridge
            .get("/inventory")
            .await
            .text()
            .contains("the override does not get the machine of another namespace")
    })
    .await;
    assert!(bridge.script_has(MAC, "/boot-artifacts/kernel/a/lab").await);
    let trusting = site.bridge(&["--override-namespaces", "b"]).await;
    assert!(trusting.script_has(MAC, "#!ipxe\nshell\n").await);
}

#[tokio::test]
async fn scripts_come_from_config_maps_and_secrets_and_follow_them() {
    let site = Site::start().await;
    let bridge = site.bridge(&["--uri", "http://boot.example.com"]).await;
    let from = |reference: &str, templating: bool| json!({"macAddresses": [MAC], "templating": templating, "scriptFrom": {reference: {"name": "scripts", "key": "rescue.ipxe"}}});
    let waits_for = async |cause: &str| {
        eventually(cause, SECOND * 2, async || {
            let answer = bridge.get(&format!("/ipxe-mac-boot/{MAC}")).await;
            answer.status == 503 && answer.detail().contains(cause)
        })
        .await;
    };
    site.write("o.json", &host_override("a", "o", from("configMapKeyRef", false)));
    waits_for("ConfigMap a/scripts was not found yet").await;
    let config_map =
        |data: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: scripts, namespace: a}}\ndata: {data}\n");
    site.write("scripts.yaml", &config_map("{other: x}"));
    waits_for("ConfigMap a/scripts has no key \"rescue.ipxe\", it has other").await;
    for script in ["#!ipxe\nshell {{ mac }}\n", "#!ipxe\nexit 1\n"] {
        site.write("scripts.yaml", &config_map(&json!({"rescue.ipxe": script}).to_string()));
        eventually("the script is followed", SECOND * 2, async || {
            bridge.get(&format!("/ipxe-mac-boot/{MAC}")).await.text() == script
        })
        .await;
    }
    // The same name in another namespace, and a Secret of that name, are others.
    site.write("o.json", &host_override("a", "o", from("secretKeyRef", true)));
    waits_for("Secret a/scripts was not found yet").await;
    let secret = |data: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: scripts, namespace: a}}\ndata: {data}\n");
    // "#!ipxe\necho {{ mac }} {{ environment.kernel }} {{ host.name }}\n"
    let encoded = "IyFpcHhlCmVjaG8ge3sgbWFjIH19IHt7IGVudmlyb25tZW50Lmtlcm5lbCB9fSB7eyBob3N0Lm5hbWUgfX0K";
    site.write("secret.yaml", &secret(&format!("{{rescue.ipxe: {encoded}}}")));
    let expected = format!("#!ipxe\necho {MAC} http://boot.example.com/boot-artifacts/kernel/a/lab n1\n");
    eventually("a Secret with variables", SECOND * 2, async || {
        without_ids(bridge.get(&format!("/ipxe-mac-boot/{MAC}")).await.text()) == expected
    })
    .await;
    let folder = site.path().to_str().unwrap();
    let (good, rendered) = offline::run(&["render", "-f", folder, "--mac", MAC, "--uri", "http://boot.example.com"]);
    assert!(good && rendered.ends_with(&expected), "{rendered}");

    let unknown = "52:54:00:dd:00:09";
    let text = json!({"macAddresses": [unknown], "templating": true, "script": "#!ipxe\necho {{host.name}}\n"});
    site.write("unknown.json", &host_override("a", "unknown", text));
    eventually("a variable without a value", SECOND * 2, async || {
        let answer = bridge.get(&format!("/ipxe-mac-boot/{unknown}")).await;
        answer.status == 503
            && answer
                .detail()
                .contains("{{ host.name }} has no value: no BareMetalHost has this MAC address")
    })
    .await;
    // An encrypted Secret is no mistake of the folder, only of the override that asks for it.
    site.write("secret.yaml", &secret("{rescue.ipxe: 'ENC[AES256_GCM]'}"));
    waits_for("Secret a/scripts cannot be read: its values do not have the form of a Secret").await;
    let inventory = bridge.get("/inventory").await.json();
    assert_eq!(inventory["skipped"], json!([]));
    assert_eq!(inventory["overrides"][0]["reason"], "ScriptMissing", "{inventory}");
}

#[tokio::test]
async fn a_boot_limit_is_kept_without_a_cluster() {
    let site = Site::start().await;
    let state = tempfile::tempdir().unwrap();
    let state_dir = state.path().to_str().unwrap();
    let script = "#!ipxe\nshell\n";
    let limited = |limit: u32| {
        let spec = json!({"macAddresses": [MAC, "52:54:00:dd:00:01"], "script": script, "bootLimit": limit});
        site.write("o.json", &host_override("a", "o", spec));
    };
    limited(2);
    let bridge = site.bridge(&["--state-dir", state_dir]).await;
    // Looking is not booting.
    for _ in 0..3 {
        assert!(bridge.get(&format!("/explain/{MAC}")).await.text().contains("shell"));
        assert_eq!(
            bridge
                .ask(reqwest::Method::HEAD, &format!("/ipxe-mac-boot/{MAC}"), &[])
                .await
                .status,
            200
        );
    }
    assert_eq!(bridge.script(MAC).await, script);
    drop(bridge);
    let bridge = site.bridge(&["--state-dir", state_dir]).await;
    // Two servers on one folder, and many machines at once.
    let other = site.bridge(&["--state-dir", state_dir]).await;
    let path = format!("/ipxe-mac-boot/{MAC}");
    let asked = (0..40).map(|index| [&bridge, &other][index % 2].get(&path));
    let answers = futures::future::join_all(asked).await;
    let served = answers.iter().filter(|answer| answer.body == script.as_bytes()).count();
    assert_eq!(served, 1, "one of two was left");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (503, "boot-not-counted"));
    }
    for bridge in [&bridge, &other] {
        eventually("then the normal script", SECOND * 2, async || {
            bridge.script_has(MAC, "/boot-artifacts/kernel/a/lab").await
        })
        .await;
        assert!(
            bridge
                .get(&format!("/explain/{MAC}"))
                .await
                .text()
                .contains("as often as its bootLimit says")
        );
    }
    assert_eq!(
        bridge.script("52:54:00:dd:00:01").await,
        script,
        "each machine has its own count"
    );
    limited(3);
    eventually("a raised limit", SECOND * 2, async || bridge.script(MAC).await == script).await;

    // What cannot be counted is not served.
    write(&state.path().join("boot-counts.json"), "{");
    limited(9);
    eventually("a broken count", SECOND * 2, async || {
        let answer = bridge.get(&path).await;
        answer.status == 503 && answer.detail().contains("this boot cannot be counted: --state-dir: ")
    })
    .await;
    let without = site.bridge(&[]).await;
    let answer = without.get(&path).await;
    assert!(
        answer.status == 503 && answer.detail().contains("folder of --state-dir, which is not set"),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn of_equal_overrides_the_oldest_counts_if_the_bridge_says_so() {
    let site = Site::start().await;
    for (name, created) in [("b", "2026-01-01T00:00:00Z"), ("a", "2026-01-02T00:00:00Z")] {
        let spec = json!({"macAddresses": [MAC], "script": format!("#!ipxe\n# {name}\n"), "kernelArguments": null});
        let mut object: serde_json::Value = serde_json::from_str(&host_override("a", name, spec)).unwrap();
        object["metadata"]["creationTimestamp"] = json!(created);
        site.write(&format!("{name}.json"), &object.to_string());
    }
    let bridge = site.bridge(&[]).await;
    assert!(bridge.script_has(MAC, "/boot-artifacts/kernel/a/lab").await);
    let inventory = bridge.get("/inventory").await.json();
    assert_eq!(inventory["overrides"][0]["reason"], "EqualPriority", "{inventory}");
    assert!(
        bridge
            .metrics()
            .await
            .contains("ipxe_bridge_overrides{reason=\"EqualPriority\"} 2")
    );
    let bridge = site.bridge(&["--equal-overrides", "oldest"]).await;
    assert_eq!(bridge.script(MAC).await, "#!ipxe\n# b\n");
    let inventory = bridge.get("/inventory").await.json();
    assert_eq!(inventory["overrides"][0]["reason"], "Overruled", "{inventory}");
    let outcome = inventory["conflicts"][0]["outcome"].as_str().unwrap();
    assert!(outcome.contains("the oldest counts, a/b"), "{outcome}");
}
