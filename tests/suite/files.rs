//! Host files and manifests: followed, and never worse for a broken one.

use std::time::Duration;

use serde_json::json;

use crate::support::bridge::{Bridge, eventually, write};
use crate::support::site::{Site, bare_metal_host};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn host_files_are_served_unchanged_and_followed() {
    let site = Site::start().await;
    site.remove("env-a-lab.yaml");
    let files = tempfile::tempdir().unwrap();
    let script = "#!ipxe\r\necho äöü ${net0/mac}\nboot   http://x/?a=b";
    write(&files.path().join("52-54-00-DD-00-01"), script);
    write(&files.path().join("README"), "no script");
    let bridge = site.bridge(&["--host-files", files.path().to_str().unwrap()]).await;
    assert_eq!(bridge.script("52:54:00:dd:00:01").await, script);
    let skipped = bridge.get("/inventory").await.json()["skipped"].clone();
    assert_eq!(skipped[0]["object"], "README");
    assert!(
        skipped[0]["cause"]
            .as_str()
            .unwrap()
            .contains("its name: \"README\" is not a MAC address"),
        "{skipped}"
    );

    write(&files.path().join("525400dd0002"), "#!ipxe\nshell\n");
    eventually("a new file is served", SECOND, async || {
        bridge.script_has("52:54:00:dd:00:02", "#!ipxe\nshell\n").await
    })
    .await;
    write(&files.path().join("52:54:00:dd:00:02"), "#!ipxe\nexit 1\n");
    eventually("two files that differ stop the machine", SECOND, async || {
        bridge
            .script_has("52:54:00:dd:00:02", "files 525400dd0002 and 52:54:00:dd:00:02 differ")
            .await
    })
    .await;
    write(&files.path().join("52-54-00-DD-00-01"), "");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(
        bridge.script("52:54:00:dd:00:01").await,
        script,
        "an emptied file keeps its last good content"
    );
    std::fs::remove_file(files.path().join("52-54-00-DD-00-01")).unwrap();
    eventually("a removed file is forgotten", SECOND, async || {
        bridge.script_has("52:54:00:dd:00:01", "\nshell\n").await
    })
    .await;
    // A BareMetalHost comes before a file.
    write(&files.path().join("52-54-00-cc-00-02"), "#!ipxe\nshell\n");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(bridge.script_has("52:54:00:cc:00:02", "/kernel/b/lab").await);
}

#[tokio::test]
async fn manifests_are_followed_and_a_broken_file_keeps_its_last_good_state() {
    let site = Site::start().await;
    let bridge = site.bridge(&[]).await;
    site.host("b", "n3", "52:54:00:cc:00:03", Some("lab"));
    let new_host = async || bridge.script_has("52:54:00:cc:00:03", "BareMetalHost b/n3").await;
    let took = eventually("a new host is served", SECOND, new_host).await;
    println!("a new manifest was served after {took:?}");

    let good = bare_metal_host("b", "n3", "52:54:00:cc:00:03", Some("lab"));
    for (broken, place, cause) in [
        (format!("{good}  x: [1, 2\n"), "host-b-n3.yaml line", ""),
        (
            good.replace("spec:\n  online: true", "spec:\n  bootMACAddress: [a]"),
            "host-b-n3.yaml line",
            "",
        ),
        (
            good.replace("kind: BareMetalHost", "kind: ''"),
            "host-b-n3.yaml line 1",
            "expected an object with apiVersion and kind",
        ),
        (
            good.replace("v1alpha1", "v9"),
            "host-b-n3.yaml line 1",
            "expected metal3.io/v1alpha1",
        ),
        (
            good.replace("52:54:00:cc:00:03", "zz"),
            "host-b-n3.yaml line 1",
            "expected twelve hexadecimal digits",
        ),
        (String::new(), "host-b-n3.yaml", "the file is empty"),
        (format!("# a comment\n---\n{good}---\nkind: [\n"), "host-b-n3.yaml line 1", ""),
    ] {
        site.write("host-b-n3.yaml", &broken);
        eventually("the file is reported", SECOND * 2, async || {
            let skipped = bridge.get("/inventory").await.json()["skipped"].clone();
            skipped.as_array().unwrap().iter().any(|skipped| {
                skipped["object"].as_str().unwrap().starts_with(place) && skipped["cause"].as_str().unwrap().contains(cause)
            })
        })
        .await;
        assert!(new_host().await, "the last good state of the file stays: {broken}");
        assert!(
            bridge.script_has("52:54:00:cc:00:01", "/kernel/a/lab").await,
            "others are not disturbed"
        );
        site.write("host-b-n3.yaml", &good);
        eventually("it is mended", SECOND * 2, async || {
            bridge.get("/inventory").await.json()["skipped"] == json!([])
        })
        .await;
    }
    // Nothing that is no file stops the others.
    let pipe = site.path().join("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("/nowhere", site.path().join("dangling.yaml")).unwrap();
    std::os::unix::fs::symlink(site.path(), site.path().join("loop")).unwrap();
    std::fs::write(site.path().join("binary.yaml"), b"\xff\xfe").unwrap();
    std::fs::write(site.path().join("deep.yaml"), "[".repeat(100_000)).unwrap();
    eventually("each is named", SECOND * 5, async || {
        let skipped = bridge.get("/inventory").await.text().to_owned();
        ["pipe.yaml", "dangling.yaml", "binary.yaml", "deep.yaml line 1"]
            .iter()
            .all(|file| skipped.contains(&format!("\"{file}\"")))
    })
    .await;
    for link in ["loop2", "loop3"] {
        std::os::unix::fs::symlink(site.path(), site.path().join(link)).unwrap();
    }
    site.write(
        "host-b-n5.yaml",
        &bare_metal_host("b", "n5", "52:54:00:cc:00:05", Some("lab")),
    );
    eventually("links in a circle hold nothing up", SECOND * 2, async || {
        bridge.script_has("52:54:00:cc:00:05", "BareMetalHost b/n5").await
    })
    .await;
    assert!(!bridge.get("/inventory").await.text().contains("a second time"));
    for file in [
        "pipe.yaml",
        "dangling.yaml",
        "loop",
        "loop2",
        "loop3",
        "binary.yaml",
        "deep.yaml",
    ] {
        site.remove(file);
    }
    // A label that can name no InfraEnv is not an absent label.
    site.write(
        "host-b-n3.yaml",
        &bare_metal_host("b", "n3", "52:54:00:cc:00:03", Some("Good_Env")),
    );
    eventually("it waits", SECOND, async || {
        bridge
            .get("/ipxe-mac-boot/52:54:00:cc:00:03")
            .await
            .text()
            .contains("InfraEnv b/Good_Env does not exist")
    })
    .await;
    // One bad member of a list does not stop the others, and no limit is below an ordinary list.
    let member = |n: u32, mac: &str| {
        json!({"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost", "metadata": {"name": format!("m{n}"), "namespace": "b",
        "labels": {"infraenvs.agent-install.openshift.io": "lab"}}, "spec": {"bootMACAddress": mac}, "status": {"nics": (0..60).collect::<Vec<_>>()}})
    };
    let mut members: Vec<_> = (0..4000)
        .map(|n| member(n, &format!("52:54:02:00:{:02x}:{:02x}", n / 256, n % 256)))
        .collect();
    members.push(member(9999, "zz"));
    site.write(
        "list.json",
        &json!({"apiVersion": "v1", "kind": "List", "items": members}).to_string(),
    );
    eventually("the good ones are served", SECOND * 30, async || {
        bridge.script_has("52:54:02:00:0f:9f", "BareMetalHost b/m3999").await
    })
    .await;
    let skipped = bridge.get("/inventory").await.json()["skipped"].to_string();
    assert!(
        skipped.contains("items[4000]: BareMetalHost b/m9999: spec.bootMACAddress"),
        "{skipped:.500}"
    );
    site.remove("list.json");
    // A list, as kubectl prints it, in JSON; and kinds that are none of ours.
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}},
        {"apiVersion": "metal3.io/v1alpha1", "kind": "BareMetalHost", "metadata": {"name": "n4", "namespace": "b",
         "labels": {"infraenvs.agent-install.openshift.io": "lab"}}, "spec": {"bootMACAddress": "52:54:00:cc:00:04"}}]});
    site.write("list.json", &list.to_string());
    eventually("a list is read", SECOND, async || {
        bridge.script_has("52:54:00:cc:00:04", "BareMetalHost b/n4").await
    })
    .await;
    site.remove("list.json");
    eventually("what a removed file held is gone", SECOND, async || {
        bridge.script_has("52:54:00:cc:00:04", "is the default").await
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_back_is_followed_again() {
    let site = Site::start().await;
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("current");
    std::os::unix::fs::symlink(site.path(), &link).unwrap();
    let bridge = Bridge::ready(&["--manifests", link.to_str().unwrap()]).await;
    assert!(bridge.script_has("52:54:00:cc:00:01", "/kernel/a/lab").await);

    // As a synchronized Git checkout is exchanged: the link leads elsewhere.
    let next = Site::start().await;
    next.host("b", "n3", "52:54:00:cc:00:03", Some("lab"));
    std::os::unix::fs::symlink(next.path(), folder.path().join("new")).unwrap();
    std::fs::rename(folder.path().join("new"), &link).unwrap();
    eventually("the new folder is read", SECOND * 3, async || {
        bridge.script_has("52:54:00:cc:00:03", "/kernel/b/lab").await
    })
    .await;
    next.host("b", "n4", "52:54:00:cc:00:04", Some("lab"));
    eventually("and followed", SECOND, async || {
        bridge.script_has("52:54:00:cc:00:04", "/kernel/b/lab").await
    })
    .await;

    std::fs::remove_file(&link).unwrap();
    eventually("a folder that is gone is told", SECOND * 3, async || {
        bridge.get("/inventory").await.text().contains("\"state\":\"behind\"")
    })
    .await;
    assert!(
        bridge.script_has("52:54:00:cc:00:04", "/kernel/b/lab").await,
        "nothing is forgotten"
    );
    std::os::unix::fs::symlink(site.path(), &link).unwrap();
    eventually("it is back", SECOND * 3, async || {
        bridge.script_has("52:54:00:cc:00:04", "is the default").await
    })
    .await;
}
