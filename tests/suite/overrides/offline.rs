//! Commands for files, without a server: convert-host-files, lint, render.

use super::*;

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
pub fn run(arguments: &[&str]) -> (bool, String) {
    let output = command(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn files_are_checked_and_rendered_without_a_server() {
    let site = Site::start().await;
    let folder = site.path().to_str().unwrap().to_owned();
    // Its kind goes without saying.
    site.write("kustomization.yaml", "resources: [hosts.yaml]\n");
    assert_eq!(run(&["lint", &folder]), (true, String::new()));
    let (good, rendered) = run(&["render", "-f", &folder, "--mac", "52-54-00-CC-00-01"]);
    let expected = "# with the default settings of a bridge\n\
                    # - Override: no override is for this MAC address\n\
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
        (
            true,
            format!("# with the default settings of a bridge\n# + Override: IpxeHostOverride a/o has a script\n{script}")
        )
    );
    site.write(
        "twin.json",
        &host_override("a", "twin", json!({"macAddresses": [MAC], "localDisk": {}})),
    );
    site.write("broken.yaml", "kind: X\nx: [\n");
    let (good, said) = run(&["lint", &folder]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(!good && lines.len() == 4, "{said}");
    let tie = "claimed by IpxeHostOverride a/twin too: all of priority 0: none of them counts";
    for (line, place, message) in [
        (lines[0], "broken.yaml line 2: ", "unclosed bracket"),
        (lines[1], "o.json line 1: IpxeHostOverride a/o: 52:54:00:cc:00:01 is ", tie),
        (
            lines[2],
            "o.json line 1: IpxeHostOverride a/o: its script, line 2: ",
            "goto nowhere leads nowhere",
        ),
        (
            lines[3],
            "twin.json line 1: IpxeHostOverride a/twin: ",
            "claimed by IpxeHostOverride a/o",
        ),
    ] {
        assert!(line.starts_with(place) && line.contains(message), "{place}{message}: {line}");
    }
    let (good, said) = run(&["lint", "--json", &folder]);
    let places: Vec<String> = said
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|finding| format!("{} {} {}", finding["file"], finding["line"], finding["object"]))
        .collect();
    assert!(
        !good && places.len() == 4 && places[0] == "\"broken.yaml\" 2 null" && places[1] == "\"o.json\" 1 \"IpxeHostOverride a/o\"",
        "{places:?}"
    );
    assert!(!run(&["lint", "/nonexistent"]).0);
    let piped = command(&["lint", "-"])
        .stdin(std::fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(piped.stdout).unwrap();
    assert!(
        said.starts_with("standard input line 1: IpxeHostOverride a/o: its script, line 2: goto nowhere"),
        "{said}"
    );

    let bridge = site.bridge(&[]).await;
    let warnings = bridge.get("/inventory").await.json()["overrides"][0]["warnings"].clone();
    assert_eq!(
        warnings,
        json!(["line 2: goto nowhere leads nowhere, there is no such label"])
    );
}
