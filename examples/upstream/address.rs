//! The URLs that scripts and the status of an InfraEnv name.

use super::environment::EnvironmentSpec;

/// The addresses that scripts and status name.
#[derive(Debug)]
pub struct Base {
    /// Scheme, host and port.
    pub origin: String,
    /// The path before everything, without a slash at its end.
    pub prefix: String,
}

impl Base {
    /// Signed, because the initrd is secret.
    pub fn initrd(&self, environment: &EnvironmentSpec) -> String {
        let Self { origin, prefix } = self;
        let EnvironmentSpec {
            id,
            token,
            version,
            arch,
            ..
        } = environment;
        format!("{origin}{prefix}/images/{id}/pxe-initrd?api_key={token}&arch={arch}&version={version}")
    }

    /// Kernel or rootfs, open to everybody.
    pub fn artifact(&self, environment: &EnvironmentSpec, name: &str) -> String {
        let Self { origin, prefix } = self;
        let EnvironmentSpec { version, arch, .. } = environment;
        format!("{origin}{prefix}/boot-artifacts/{name}?arch={arch}&version={version}")
    }

    /// With the request for boot-order control, if the environment is for it.
    pub fn script(&self, environment: &EnvironmentSpec) -> String {
        let Self { origin, prefix } = self;
        let EnvironmentSpec { id, token, .. } = environment;
        let kind = match environment.boot_order_control {
            true => "&ipxe_script_type=boot-order-control",
            false => "",
        };
        format!(
            "{origin}{prefix}/api/assisted-install/v2/infra-envs/{id}/downloads/files?api_key={token}&file_name=ipxe-script{kind}"
        )
    }
}
