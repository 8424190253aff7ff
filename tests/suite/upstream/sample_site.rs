//! The sample site names what the sample upstream serves.

use super::*;

/// What the sample site says that the sample upstream must agree with.
#[derive(Deserialize)]
struct Sample {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    status: SampleStatus,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct SampleStatus {
    boot_artifacts: BTreeMap<String, String>,
    debug_info: BTreeMap<String, String>,
    inventory: SampleInventory,
    progress: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct SampleInventory {
    interfaces: Vec<SampleInterface>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SampleInterface {
    mac_address: String,
}

fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    for file in ["environments.yaml", "agents.yaml"] {
        let text = fs::read_to_string(project("config/samples/site").join(file)).expect("a sample");
        samples.extend(serde_saphyr::from_multiple::<Sample>(&text).expect("objects"));
    }
    samples
}

#[tokio::test]
async fn the_sample_site_names_what_the_sample_upstream_serves() {
    let upstream = site().await;
    let samples = samples();
    let served: Vec<_> = samples
        .iter()
        .filter(|sample| {
            sample
                .status
                .boot_artifacts
                .get("ipxeScript")
                .is_some_and(|url| !url.is_empty())
        })
        .collect();
    assert_eq!(served.len(), sample::environments().len());
    for (object, environment) in served.iter().zip(sample::environments()) {
        for (key, target) in [
            ("ipxeScript", Target::Script),
            ("kernel", Target::Kernel),
            ("initrd", Target::Initrd),
            ("rootfs", Target::Rootfs),
        ] {
            let written = object.status.boot_artifacts[key].replace(sample::ORIGIN, &upstream.url());
            assert_eq!(
                written,
                url(&upstream, &environment.id, target),
                "{key} of {}",
                object.metadata.name
            );
            assert_eq!(get(&written).await.status(), StatusCode::OK, "{key}");
        }
    }

    let agents: Vec<_> = samples.iter().filter(|sample| sample.kind == "Agent").collect();
    let hosts: Vec<_> = sample::environments()
        .into_iter()
        .flat_map(|environment| environment.hosts)
        .collect();
    assert_eq!(agents.len(), hosts.len());
    for (agent, host) in agents.iter().zip(&hosts) {
        assert_eq!(agent.metadata.name, host.id);
        assert_eq!(agent.status.debug_info["state"], host.state);
        let stage = agent.status.progress.get("currentStage").map_or("", String::as_str);
        assert_eq!(stage, host.stage);
        let interfaces = &agent.status.inventory.interfaces;
        let macs: Vec<_> = interfaces.iter().map(|interface| interface.mac_address.clone()).collect();
        assert_eq!(macs, host.macs);
    }
}
