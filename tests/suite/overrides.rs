//! Overrides over real sockets, from a folder of YAML.

use std::time::Duration;

use serde_json::json;

use crate::support::bridge::{command, eventually, write};
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
async fn a_directory_of_host_files_becomes_overrides_that_serve_the_same() {
    let site = Site::start().await;
    let files = tempfile::tempdir().unwrap();
    let scripts = [
        ("52-54-00-DD-00-01", "#!ipxe\r\necho 'a': \"b\" # c\n\n  boot\t\n"),
        ("525400dd0002", "#!ipxe\nshell"),
        ("52:54:00:cc:00:01", "#!ipxe\n---\nkernel x\n"),
    ];
    for (file, script) in scripts {
        write(&files.path().join(file), script);
    }
    let convert = |namespace: &str| {
        let output = command(&["convert-host-files", files.path().to_str().unwrap(), "--namespace", namespace])
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (complete, yaml, said) = convert("a");
    assert!(complete && said.is_empty(), "{said}");
    assert_eq!(convert("a").1, yaml, "a second run gives the same objects");
    site.write("converted.yaml", &yaml);
    let bridge = site.bridge(&[]).await;
    for (mac, script) in scripts {
        assert_eq!(bridge.script(mac).await, script, "{mac}");
    }

    write(&files.path().join("README"), "no script");
    write(&files.path().join("52:54:00:dd:00:01"), "#!ipxe\nexit 1\n");
    write(
        &files.path().join("52-54-00-dd-00-03"),
        "#!ipxe\n".to_owned() + &"#".repeat(70_000),
    );
    let (complete, yaml, said) = convert("a");
    assert!(
        !complete && yaml.contains("52:54:00:dd:00:02") && !yaml.contains("52:54:00:dd:00:01"),
        "{yaml}"
    );
    for part in [
        "not converted: README: its name: ",
        "they differ and all name 52:54:00:dd:00:01",
        "70007 bytes are too many",
        "3 files were not converted",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// What a command prints, and whether it succeeded.
fn run(arguments: &[&str]) -> (bool, String) {
    let output = command(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn files_are_checked_and_rendered_without_a_server() {
    let site = Site::start().await;
    let folder = site.path().to_str().unwrap().to_owned();
    assert_eq!(run(&["lint", &folder]), (true, String::new()));
    let (good, rendered) = run(&["render", "-f", &folder, "--mac", "52-54-00-CC-00-01"]);
    let expected = "# - Override: no override is for this MAC address\n\
                    # + BareMetalHost: BareMetalHost a/n1 wants InfraEnv a/lab\n\
                    # + BootPolicy: UntilInstalled: there are no Agents to read, the service is asked with the MAC address\n\
                    # boots InfraEnv a/lab\n";
    assert_eq!((good, rendered.as_str()), (true, expected));

    let script = "#!ipxe\ngoto nowhere\n";
    let file = site.write(
        "o.json",
        &host_override("a", "o", json!({"macAddresses": [MAC], "script": script})),
    );
    let (good, rendered) = run(&["render", "-f", file.to_str().unwrap(), "--mac", MAC]);
    assert_eq!(
        (good, rendered),
        (true, format!("# + Override: IpxeHostOverride a/o has a script\n{script}"))
    );
    site.write(
        "twin.json",
        &host_override("a", "twin", json!({"macAddresses": [MAC], "localDisk": {}})),
    );
    site.write("broken.yaml", "kind: X\nx: [\n");
    let (good, said) = run(&["lint", &folder]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(!good && lines.len() == 3, "{said}");
    assert!(
        lines[1].starts_with("IpxeHostOverride a/o, IpxeHostOverride a/twin: 52:54:00:cc:00:01: all of priority 0"),
        "{said}"
    );
    assert_eq!(
        lines[0],
        "IpxeHostOverride a/o: spec.script: line 2: goto nowhere leads nowhere, there is no such label"
    );
    assert!(lines[2].starts_with("broken.yaml line "), "{said}");
    let (good, said) = run(&["lint", "--json", &folder]);
    let places: Vec<String> = said
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["place"].to_string())
        .collect();
    assert!(!good && places.len() == 3, "{places:?}");
    assert!(!run(&["lint", "/nonexistent"]).0);

    let bridge = site.bridge(&[]).await;
    let warnings = bridge.get("/inventory").await.json()["overrides"][0]["warnings"].clone();
    assert_eq!(
        warnings,
        json!(["line 2: goto nowhere leads nowhere, there is no such label"])
    );
}

#[tokio::test]
async fn overrides_that_cannot_be_used_are_named_and_change_nothing() {
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
            "expected only one of script, chain, infraEnv and localDisk",
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
        assert!(bridge.script_has(MAC, "/boot-artifacts/kernel/a/lab").await, "{spec}");
    }
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
