//! What the bridge writes into the status of overrides, and boots that it counts there before it sends a script.

use super::*;

const KIND: &str = "ipxehostoverrides.ipxe-bridge.io";

fn declare(plane: &ControlPlane, namespace: &str, name: &str, spec: serde_json::Value) {
    let object = json!({
        "apiVersion": "ipxe-bridge.io/v1alpha1", "kind": "IpxeHostOverride", "metadata": {"name": name, "namespace": namespace}, "spec": spec
    });
    plane.apply(&object.to_string());
}

/// The object as the API server has it.
fn object(plane: &ControlPlane, namespace: &str, name: &str) -> serde_json::Value {
    let text = plane
        .kubectl(&["get", KIND, name, "-n", namespace, "-o", "json"], None)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Status and reason of a condition, for example `False Expired`.
fn condition(object: &serde_json::Value, type_: &str) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let found = conditions.and_then(|list| list.iter().find(|condition| condition["type"] == type_));
    found.map_or_else(String::new, |condition| {
        format!(
            "{} {}",
            condition["status"].as_str().unwrap(),
            condition["reason"].as_str().unwrap()
        )
    })
}

async fn ready_is(plane: &ControlPlane, namespace: &str, name: &str, expected: &str) -> serde_json::Value {
    eventually(&format!("{name}: {expected}"), SECOND * 5, async || {
        let object = object(plane, namespace, name);
        condition(&object, "Ready") == expected && object["status"]["observedGeneration"] == object["metadata"]["generation"]
    })
    .await;
    object(plane, namespace, name)
}

fn events(plane: &ControlPlane, namespace: &str, name: &str) -> Vec<String> {
    let text = plane
        .kubectl(&["get", "events.events.k8s.io", "-n", namespace, "-o", "json"], None)
        .unwrap();
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let of_object = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["regarding"]["name"] == name);
    of_object
        .map(|event| format!("{} {}", event["type"].as_str().unwrap(), event["reason"].as_str().unwrap()))
        .collect()
}

/// The shared control plane with the override's definition, and the kubeconfig of a bridge.
async fn prepared(namespace: &'static str) -> Option<(&'static ControlPlane, String)> {
    let plane = blocking(ControlPlane::shared).await?;
    let kubeconfig = blocking(move || {
        plane.load_crds(Path::new(OWN_CRDS));
        account(plane, namespace, true)
    });
    Some((plane, kubeconfig.await))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_an_override_says_what_became_of_it() {
    let Some((plane, kubeconfig)) = prepared("status").await else {
        return;
    };
    let variables = [("KUBECONFIG", kubeconfig.as_str())];
    let (mac, second) = ("52:54:00:a1:00:01", "52:54:00:a1:00:02");
    create_host(plane, "status", "n1", mac, None);
    let shell = json!({"macAddresses": [mac, second], "script": "#!ipxe\ngoto nowhere\n"});
    declare(plane, "status", "rescue", shell.clone());
    let bridge = Bridge::start_with(&["--namespaces", "status"], &variables).await;
    let twin = Bridge::start_with(&["--namespaces", "status"], &variables).await;
    bridge.wait_ready().await;
    twin.wait_ready().await;
    let rescue = ready_is(plane, "status", "rescue", "True Serving").await;
    let said = ["Accepted", "Conflicted", "Warning"].map(|type_| condition(&rescue, type_));
    assert_eq!(said, ["True Accepted", "False NoConflict", "True ScriptMistakes"], "{rescue}");
    assert_eq!(rescue["status"]["machineCount"], 2);
    let macs: Vec<_> = rescue["status"]["machines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["macAddress"].clone())
        .collect();
    assert_eq!(macs, [mac, second]);
    assert_eq!(
        events(plane, "status", "rescue"),
        ["Normal Serving"],
        "one of two bridges tells"
    );

    // A rack's worth of boots is a handful of writes.
    for round in 0..20 {
        let served = futures::future::join_all((0..50).map(|index| [&bridge, &twin][index % 2].script(mac))).await;
        assert!(
            served.iter().all(|script| script == "#!ipxe\ngoto nowhere\n"),
            "round {round}"
        );
    }
    eventually("all are counted", SECOND * 30, async || {
        let rescue = object(plane, "status", "rescue");
        rescue["status"]["served"] == 1000
    })
    .await;
    let rescue = object(plane, "status", "rescue");
    assert_eq!(rescue["status"]["machines"][0]["served"], 1000, "{rescue}");
    assert_eq!(rescue["status"]["lastAddress"], "127.0.0.1");
    assert!(rescue["status"]["lastServed"].is_string());
    let mut writes = 0;
    for bridge in [&bridge, &twin] {
        let metrics = bridge.metrics().await;
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix("ipxe_bridge_override_status_writes_total{written=\"true\"} "));
        writes += line.map_or(0, |count| count.parse::<u32>().unwrap());
    }
    println!("1,000 boots were {writes} writes of two bridges");
    assert!(writes <= 8, "{writes}");
    let table = plane.kubectl(&["get", "ipxo", "-n", "status", "--no-headers"], None).unwrap();
    let columns: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(columns[..5], ["rescue", "True", "Serving", "2", "1000"], "{table}");

    // Conflicts are said on both objects; an end is said, and the object stays.
    declare(plane, "status", "other", json!({"macAddresses": [mac], "localDisk": {}}));
    ready_is(plane, "status", "other", "False EqualPriority").await;
    eventually("on the older too", SECOND * 5, async || {
        condition(&object(plane, "status", "rescue"), "Conflicted") == "True EqualPriority"
    })
    .await;
    let past = json!({"macAddresses": [mac], "localDisk": {}, "expiresAt": "2026-01-01T00:00:00Z"});
    declare(plane, "status", "other", past);
    ready_is(plane, "status", "other", "False Expired").await;
    for (name, spec, expected) in [
        (
            "selector",
            json!({"hostSelector": {"matchLabels": {"rack": "r9"}}, "localDisk": {}}),
            "False NoMachine",
        ),
        (
            "nowhere",
            json!({"macAddresses": ["52:54:00:a1:00:09"], "infraEnv": {"name": "nowhere"}}),
            "False EnvironmentMissing",
        ),
        (
            "behind",
            json!({"macAddresses": [mac], "priority": -1, "localDisk": {}}),
            "False Overruled",
        ),
    ] {
        declare(plane, "status", name, spec);
        ready_is(plane, "status", name, expected).await;
    }
    let told = events(plane, "status", "other");
    assert!(
        told.contains(&"Warning EqualPriority".to_owned()) && told.contains(&"Normal Expired".to_owned()),
        "{told:?}"
    );

    // A server that ends says what it served last.
    plane.kubectl(&["delete", KIND, "other", "-n", "status"], None).unwrap();
    ready_is(plane, "status", "rescue", "True Serving").await;
    assert!(twin.script(mac).await.contains("nowhere"));
    let mut twin = twin;
    twin.terminate();
    assert!(twin.ended(SECOND * 10).await.success());
    assert_eq!(object(plane, "status", "rescue")["status"]["served"], 1001);

    // Nothing happens, nothing is written.
    tokio::time::sleep(SECOND * 3).await;
    let version = |plane: &ControlPlane| {
        plane
            .kubectl(
                &[
                    "get",
                    KIND,
                    "-A",
                    "-o",
                    "jsonpath={.metadata.resourceVersion} {.items[*].metadata.resourceVersion}",
                ],
                None,
            )
            .unwrap()
    };
    let before: String = version(plane).split(' ').skip(1).collect();
    tokio::time::sleep(SECOND * 4).await;
    assert_eq!(version(plane).split(' ').skip(1).collect::<String>(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_a_secret_is_read_only_where_its_namespace_allows_it() {
    let Some((plane, kubeconfig)) = prepared("content").await else {
        return;
    };
    let mac = "52:54:00:a1:01:01";
    let reference = json!({"secretKeyRef": {"name": "scripts", "key": "rescue.ipxe"}});
    declare(
        plane,
        "content",
        "rescue",
        json!({"macAddresses": [mac], "scriptFrom": reference}),
    );
    let secret = |script: &str| {
        let data = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "scripts", "namespace": "content"}, "stringData": {"rescue.ipxe": script}});
        plane.apply(&data.to_string());
    };
    secret("#!ipxe\n# one\n");
    let bridge = Bridge::start_with(&["--namespaces", "content"], &[("KUBECONFIG", &kubeconfig)]).await;
    bridge.wait_ready().await;
    let rescue = ready_is(plane, "content", "rescue", "False ScriptMissing").await;
    let message = rescue["status"]["conditions"].to_string();
    assert!(
        message.contains(
            "a Role in namespace content must let its ServiceAccount get, list and watch secrets with resourceNames [scripts]"
        ),
        "{message}"
    );
    let path = format!("/ipxe-mac-boot/{mac}");
    let answer = bridge.get(&path).await;
    assert!(
        answer.status == 503 && answer.detail().contains("may not read Secret content/scripts"),
        "{}",
        answer.text()
    );

    // As docs/overrides.md has it.
    let allow = [
        "create",
        "role",
        "boot-scripts",
        "-n",
        "content",
        "--verb=get,list,watch",
        "--resource=secrets",
        "--resource-name=scripts",
    ];
    plane.kubectl(&allow, None).unwrap();
    let bind = [
        "create",
        "rolebinding",
        "boot-scripts",
        "-n",
        "content",
        "--role=boot-scripts",
        "--serviceaccount=content:bridge",
    ];
    plane.kubectl(&bind, None).unwrap();
    let serves = async |script: &str, within: Duration| {
        eventually(script, within, async || bridge.get(&path).await.text() == script).await;
    };
    serves("#!ipxe\n# one\n", SECOND * 12).await;
    ready_is(plane, "content", "rescue", "True Serving").await;
    secret("#!ipxe\n# two\n");
    serves("#!ipxe\n# two\n", SECOND).await;
    plane
        .kubectl(&["delete", "secret", "scripts", "-n", "content"], None)
        .unwrap();
    eventually("a Secret that is gone", SECOND * 2, async || {
        bridge
            .get(&path)
            .await
            .text()
            .contains("Secret content/scripts does not exist")
    })
    .await;
    secret("#!ipxe\n# three\n");
    serves("#!ipxe\n# three\n", SECOND).await;
    let log = bridge.log();
    assert!(
        !log.contains("# three") && !log.contains("# one"),
        "what a Secret holds is in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_limit_holds_over_replicas_restarts_and_an_api_server_that_is_away() {
    let Some(plane) = blocking(ControlPlane::start).await else {
        return;
    };
    let plane = Arc::new(plane);
    plane.load_crds(Path::new(CRDS));
    plane.load_crds(Path::new(OWN_CRDS));
    let kubeconfig = account(&plane, "limit", true);
    let variables = [("KUBECONFIG", kubeconfig.as_str())];
    let mac = "52:54:00:a1:02:01";
    let script = "#!ipxe\n# once\n";
    let start = async || Bridge::start_with(&["--namespaces", "limit"], &variables).await;
    let mut replicas = vec![start().await, start().await, start().await];
    for replica in &replicas {
        replica.wait_ready().await;
    }
    let path = format!("/ipxe-mac-boot/{mac}");
    let storm = async |replicas: &[Bridge]| {
        let asked = (0..replicas.len() * 50).map(|index| replicas[index % replicas.len()].get(&path));
        let answers = futures::future::join_all(asked).await;
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            assert_eq!(
                (answer.status.as_u16(), answer.header("retry-after")),
                (503, "5"),
                "{}",
                answer.text()
            );
        }
        answers.iter().filter(|answer| answer.body == script.as_bytes()).count()
    };
    let mut served = 0;
    for limit in [1, 8] {
        declare(
            &plane,
            "limit",
            "once",
            json!({"macAddresses": [mac], "script": script, "bootLimit": limit}),
        );
        for replica in &replicas {
            eventually("the override is known", SECOND * 2, async || {
                replica.get(&format!("/explain/{mac}")).await.json()["script"] == script
            })
            .await;
        }
        // A replica goes in the middle of it and comes back.
        served += storm(&replicas).await;
        assert!(served <= limit, "{served} of {limit}");
        replicas.remove(0);
        replicas.push(start().await);
        replicas.last().unwrap().wait_ready().await;
        while served < limit {
            served += storm(&replicas).await;
        }
        assert_eq!(served, limit);
        for replica in &replicas {
            eventually("then what comes after it", SECOND * 3, async || {
                replica.script_has(mac, "shell").await
            })
            .await;
        }
        let object = object(&plane, "limit", "once");
        assert_eq!(object["status"]["machines"][0]["served"], limit, "{object}");
    }
    ready_is(&plane, "limit", "once", "False Exhausted").await;

    declare(
        &plane,
        "limit",
        "once",
        json!({"macAddresses": [mac], "script": script, "bootLimit": 9}),
    );
    eventually("raised", SECOND * 2, async || {
        replicas[0].get(&format!("/explain/{mac}")).await.json()["script"] == script
    })
    .await;
    plane.stop_apiserver();
    let answer = replicas[0].get(&path).await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (503, "boot-not-counted"),
        "{}",
        answer.text()
    );
    assert!(
        answer
            .detail()
            .contains("IpxeHostOverride limit/once has a bootLimit and this boot cannot be counted"),
        "{}",
        answer.text()
    );
    plane.start_apiserver();
    eventually("served once more", SECOND * 20, async || {
        replicas[0].get(&path).await.text() == script
    })
    .await;
    eventually("and never again", SECOND * 3, async || {
        replicas[0].script_has(mac, "shell").await
    })
    .await;
}
