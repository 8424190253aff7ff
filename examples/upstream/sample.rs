//! The sample site, as the services know it: the other half of `config/samples/site/`.

use super::environment::{EnvironmentSpec, HostSpec};

/// Where the sample site's InfraEnvs say that the services are.
pub const ORIGIN: &str = "http://127.0.0.1:8090";

/// `lab/discovery`, the default environment.
pub const LAB_DISCOVERY: &str = "3f1c5a52-7d0e-4b57-9c1b-0a6f4e8d2b11";
/// `lab/storage`, with kernel arguments and an older image.
pub const LAB_STORAGE: &str = "8b9d2f60-1e4a-4c83-8f57-5c2d7a90e322";
/// `edge/discovery`, with boot-order control.
pub const EDGE_DISCOVERY: &str = "c47e61a8-92b3-4d1f-a6e5-71f0b8c3d433";

/// Shaped like a signed token, and opening nothing but this sample.
macro_rules! sample_token {
    ($claim:literal) => {
        concat!(
            "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.",
            $claim,
            ".SAMPLE-TOKEN-SAMPLE-TOKEN-SAMPLE-TOKEN-SAMPLE-TOKEN-SAMPLE-TOKEN-SAMPLE-TOKEN-SAMPLE-T"
        )
    };
}

const LAB_DISCOVERY_TOKEN: &str = sample_token!("eyJpbmZyYV9lbnZfaWQiOiIzZjFjNWE1Mi03ZDBlLTRiNTctOWMxYi0wYTZmNGU4ZDJiMTEifQ");
const LAB_STORAGE_TOKEN: &str = sample_token!("eyJpbmZyYV9lbnZfaWQiOiI4YjlkMmY2MC0xZTRhLTRjODMtOGY1Ny01YzJkN2E5MGUzMjIifQ");
const EDGE_DISCOVERY_TOKEN: &str = sample_token!("eyJpbmZyYV9lbnZfaWQiOiJjNDdlNjFhOC05MmIzLTRkMWYtYTZlNS03MWYwYjhjM2Q0MzMifQ");

/// The environments of the sample site. Its fourth InfraEnv, `edge/next`, never became available and is unknown here.
pub fn environments() -> Vec<EnvironmentSpec> {
    vec![
        EnvironmentSpec {
            id: LAB_DISCOVERY.to_owned(),
            token: LAB_DISCOVERY_TOKEN.to_owned(),
            version: "4.19".to_owned(),
            arch: "x86_64".to_owned(),
            hosts: vec![
                host(
                    "1d0c52b4-5b0f-4c39-9d42-7f3a6c1e0001",
                    &["52:54:00:5a:00:01", "52:54:00:5a:00:11"],
                    "known-unbound",
                    "",
                ),
                host(
                    "1d0c52b4-5b0f-4c39-9d42-7f3a6c1e0002",
                    &["52:54:00:5a:00:02"],
                    "installing-in-progress",
                    "Writing image to disk",
                ),
                host(
                    "1d0c52b4-5b0f-4c39-9d42-7f3a6c1e0003",
                    &["52:54:00:5a:00:03"],
                    "installing-in-progress",
                    "Rebooting",
                ),
            ],
            ..EnvironmentSpec::default()
        },
        EnvironmentSpec {
            id: LAB_STORAGE.to_owned(),
            token: LAB_STORAGE_TOKEN.to_owned(),
            version: "4.18".to_owned(),
            arch: "x86_64".to_owned(),
            kernel_arguments: vec!["rd.net.timeout.carrier=30".to_owned(), "sample.note=\"two words\"".to_owned()],
            ..EnvironmentSpec::default()
        },
        EnvironmentSpec {
            id: EDGE_DISCOVERY.to_owned(),
            token: EDGE_DISCOVERY_TOKEN.to_owned(),
            version: "4.19".to_owned(),
            arch: "x86_64".to_owned(),
            boot_order_control: true,
            hosts: vec![host(
                "1d0c52b4-5b0f-4c39-9d42-7f3a6c1e0004",
                &["52:54:00:5b:00:01"],
                "installed",
                "Done",
            )],
            ..EnvironmentSpec::default()
        },
    ]
}

fn host(id: &str, macs: &[&str], state: &str, stage: &str) -> HostSpec {
    HostSpec {
        id: id.to_owned(),
        macs: macs.iter().map(|mac| (*mac).to_owned()).collect(),
        state: state.to_owned(),
        stage: stage.to_owned(),
    }
}
