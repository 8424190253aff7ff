//! The flags of `ipxe-bridge server`.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use url::Url;

use crate::boot::artifact::PublicUrl;
use crate::boot::kernel_arguments::{ArgumentEdits, KernelArguments};
use crate::boot::local_disk::LocalDisk;
use crate::boot::name::{ObjectName, is_dns_name};
use crate::boot::policy::{BootPolicy, UnknownHosts};
use crate::boot::precedence::EqualOverrides;

use super::netboot::fits_a_packet;
use super::value::{bytes, duration, host_and_port, moved_host, object_name, word};

/// Settings of the server.
#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// Address to listen on
    #[arg(long, env = "IPXE_BRIDGE_HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port for machines and people; plain HTTP unless a certificate is given without --tls-port
    #[arg(long, env = "IPXE_BRIDGE_PORT", default_value_t = 9876)]
    pub port: u16,
    /// Address under which machines reach the bridge, such as http://boot.example.com:9876 [default: as the request names it]
    #[arg(long, env = "IPXE_BRIDGE_URI")]
    pub uri: Option<PublicUrl>,
    /// Certificate chain (PEM); re-read when it changes
    #[arg(long, env = "IPXE_BRIDGE_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, env = "IPXE_BRIDGE_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Port for HTTPS, beside plain HTTP on --port
    #[arg(long, env = "IPXE_BRIDGE_TLS_PORT", requires = "tls_cert")]
    pub tls_port: Option<u16>,
    /// Port of /metrics
    #[arg(long, env = "IPXE_BRIDGE_METRICS_PORT", default_value_t = 9877)]
    pub metrics_port: u16,
    /// Folder of YAML with InfraEnvs, BareMetalHosts, Agents and overrides to use in place of a cluster; changes are followed
    #[arg(long, env = "IPXE_BRIDGE_MANIFESTS", value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// Folder of scripts, one per machine, each named after its MAC address; changes are followed
    #[arg(long, env = "IPXE_BRIDGE_HOST_FILES", value_name = "DIR")]
    pub host_files: Option<PathBuf>,
    /// How often things are re-read that do not report changes (upstream scripts, linked folders): seconds, or 5m
    #[arg(long, env = "IPXE_BRIDGE_LOOP_TIMING", default_value = "90", value_parser = duration, value_name = "TIME")]
    pub loop_timing: Duration,
    /// Certificates (PEM) to trust for upstream beside the system's own; may be repeated; re-read when they change
    #[arg(long, env = "IPXE_BRIDGE_UPSTREAM_CA", value_delimiter = ',', value_name = "FILE")]
    pub upstream_ca: Vec<PathBuf>,
    /// Where a host of upstream is asked instead, such as images.example.com=https://images.lab.svc:8080; separated by commas
    #[arg(long, env = "IPXE_BRIDGE_UPSTREAM_HOST", value_delimiter = ',', value_parser = moved_host, value_name = "HOST=ADDRESS")]
    pub upstream_host: Vec<(String, Url)>,
    /// What a machine gets that nothing names: Shell, LocalDisk, NotFound or Wait
    #[arg(long, env = "IPXE_BRIDGE_UNKNOWN_HOSTS", default_value_t, value_parser = word::<UnknownHosts>)]
    pub unknown_hosts: UnknownHosts,
    /// When a machine boots its own disk in place of its environment: UntilInstalled, Always (the environment) or Upstream
    #[arg(long, env = "IPXE_BRIDGE_BOOT_POLICY", default_value_t, value_parser = word::<BootPolicy>)]
    pub boot_policy: BootPolicy,
    /// How a machine is sent to its disk: Platform (UEFI: exit 1, BIOS: sanboot), Exit, Sanboot or NotFound
    #[arg(long, env = "IPXE_BRIDGE_LOCAL_DISK", default_value_t, value_parser = word::<LocalDisk>)]
    pub local_disk: LocalDisk,
    /// Appended to the kernel's command line in every environment's script
    #[arg(
        long,
        env = "IPXE_BRIDGE_KERNEL_ARGUMENTS",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    pub kernel_arguments: KernelArguments,
    /// Taken away from the kernel's command line in every environment's script, by key or as a whole: "quiet console=tty1"
    #[arg(
        long,
        env = "IPXE_BRIDGE_KERNEL_ARGUMENTS_REMOVED",
        default_value = "",
        hide_default_value = true
    )]
    pub kernel_arguments_removed: KernelArguments,
    /// Exchanged in the kernel's command line in every environment's script, in pairs of old and new: "console=tty0 console=ttyS0"
    #[arg(
        long,
        env = "IPXE_BRIDGE_KERNEL_ARGUMENTS_REPLACED",
        default_value = "",
        hide_default_value = true
    )]
    pub kernel_arguments_replaced: KernelArguments,
    /// Labels of the namespaces to read, such as boot=yes,stage!=test [default: all]
    #[arg(
        long,
        env = "IPXE_BRIDGE_NAMESPACE_SELECTOR",
        conflicts_with = "namespaces",
        value_name = "LABELS"
    )]
    pub namespace_selector: Option<String>,
    /// Labels of the InfraEnvs to serve, such as boot=yes,stage!=test [default: all]
    #[arg(long, env = "IPXE_BRIDGE_ENVIRONMENT_SELECTOR", value_name = "LABELS")]
    pub environment_selector: Option<String>,
    /// The InfraEnv for machines that nothing else names [default: the one with the label for that]
    #[arg(long, env = "IPXE_BRIDGE_DEFAULT_ENVIRONMENT", value_parser = object_name, value_name = "NAMESPACE/NAME")]
    pub default_environment: Option<ObjectName>,
    /// Namespaces to read, separated by commas [default: all]
    #[arg(long, env = "IPXE_BRIDGE_NAMESPACES", value_delimiter = ',', value_name = "NAME")]
    pub namespaces: Vec<String>,
    /// Namespaces whose overrides may reach machines that a BareMetalHost of another namespace owns, separated by commas
    #[arg(long, env = "IPXE_BRIDGE_OVERRIDE_NAMESPACES", value_delimiter = ',', value_name = "NAME")]
    pub override_namespaces: Vec<String>,
    /// What counts of several overrides with the same priority for one machine: None of them, or the Oldest
    #[arg(long, env = "IPXE_BRIDGE_EQUAL_OVERRIDES", default_value_t, value_parser = word::<EqualOverrides>)]
    pub equal_overrides: EqualOverrides,
    /// Folder in which boots of overrides with a bootLimit are counted when there is no cluster to count them in
    #[arg(long, env = "IPXE_BRIDGE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Folder in which kernels and root file systems are kept, so that they are fetched once; of this process alone
    #[arg(long, env = "IPXE_BRIDGE_CACHE_DIR", value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Bytes that the cache may hold, such as 20Gi
    #[arg(long, env = "IPXE_BRIDGE_CACHE_SIZE", default_value = "20Gi", value_parser = bytes, value_name = "BYTES")]
    pub cache_size: NonZeroU64,
    /// Fetch new builds into the cache as soon as an InfraEnv shows them, before a machine asks
    #[arg(long, env = "IPXE_BRIDGE_PREFETCH", requires = "cache_dir", value_parser = clap::builder::BoolishValueParser::new())]
    pub prefetch: bool,
    /// Transfers from upstream at once; further ones wait in turn, and after a minute machines are told to ask again
    #[arg(long, env = "IPXE_BRIDGE_UPSTREAM_CONNECTIONS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub upstream_connections: u32,
    /// Bytes of artifacts sent a second, all connections together, such as 1G [default: no limit]
    #[arg(long, env = "IPXE_BRIDGE_RATE_LIMIT", value_parser = bytes, value_name = "BYTES")]
    pub rate_limit: Option<NonZeroU64>,
    /// Bytes of artifacts sent a second on one connection, such as 10M: for network cards that lose what comes faster [default: no limit]
    #[arg(long, env = "IPXE_BRIDGE_CONNECTION_RATE_LIMIT", value_parser = bytes, value_name = "BYTES")]
    pub connection_rate_limit: Option<NonZeroU64>,
    /// Folder of keys that sign the ids of boots in the addresses of files, the same for all replicas: each file holds a time, a blank and
    /// at least 32 further characters; re-read when they change [default: a key of this process alone]
    #[arg(long, env = "IPXE_BRIDGE_BOOT_KEYS", value_name = "DIR")]
    pub boot_keys: Option<PathBuf>,
    /// Tell by Events on a machine's BareMetalHost or override how its boot ended; in a cluster only
    #[arg(long, env = "IPXE_BRIDGE_BOOT_EVENTS", value_parser = clap::builder::BoolishValueParser::new())]
    pub boot_events: bool,
    /// Host names that lead to the other replicas, with the port of their metrics; separated by commas: they tell each other what they
    /// see of boots [default: each knows what it saw itself]
    #[arg(long, env = "IPXE_BRIDGE_PEERS", value_delimiter = ',', value_parser = host_and_port, value_name = "HOST:PORT")]
    pub peers: Vec<String>,
    /// Serve upstream's unchanged scripts at /ipxe-mac-proxy: they hold a token of the environment that does not expire
    #[arg(long, env = "IPXE_BRIDGE_SCRIPT_PROXY", value_parser = clap::builder::BoolishValueParser::new())]
    pub script_proxy: bool,
    /// Connections at once; further ones wait until one ends
    #[arg(long, env = "IPXE_BRIDGE_MAX_CONNECTIONS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// A connection is closed when its machine has taken no byte for this long
    #[arg(long, env = "IPXE_BRIDGE_STALL_TIMEOUT", default_value = "120s", value_parser = duration, value_name = "TIME")]
    pub stall_timeout: Duration,
    /// Also answer machines that boot from the network on this interface, such as eth1, with ProxyDHCP, TFTP and boot programs: all that
    /// `ipxe-bridge netboot` does; may be repeated
    #[arg(long, env = "IPXE_BRIDGE_NETBOOT", value_delimiter = ',', value_name = "INTERFACE")]
    pub netboot: Vec<String>,
    /// Folder of boot programs for --netboot [default: /usr/lib/ipxe or /usr/share/ipxe]
    #[arg(long, env = "IPXE_BRIDGE_BOOT_PROGRAMS", value_name = "DIR", requires = "netboot")]
    pub boot_programs: Option<PathBuf>,
    /// How long downloads may go on after SIGTERM before they are cut
    #[arg(long, env = "IPXE_BRIDGE_DRAIN_TIMEOUT", default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub drain_timeout: Duration,
}

impl ServerArgs {
    /// What happens to the kernel's command line of every environment.
    pub fn argument_edits(&self) -> Result<ArgumentEdits, String> {
        let replaced = self.kernel_arguments_replaced.as_slice().chunks(2).map(|pair| match pair {
            [old, new] => Ok((old.clone(), new.clone())),
            _ => {
                Err("--kernel-arguments-replaced: expected pairs of old and new, such as \"console=tty0 console=ttyS0\"".to_owned())
            }
        });
        let replaced: Vec<_> = replaced.collect::<Result<_, _>>()?;
        let (removed, appended) = (self.kernel_arguments_removed.as_slice(), self.kernel_arguments.as_slice());
        ArgumentEdits::new(removed, &replaced, appended).map_err(|error| error.to_string())
    }

    /// What no single value can tell.
    pub(super) fn check(&self) -> Result<(), String> {
        for (flag, folder) in [
            ("--manifests", &self.manifests),
            ("--host-files", &self.host_files),
            ("--state-dir", &self.state_dir),
            ("--boot-programs", &self.boot_programs),
        ] {
            if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_dir()) {
                return Err(format!("{flag}: {} is not a folder", folder.display()));
            }
        }
        let ports = [
            ("--port", Some(self.port)),
            ("--tls-port", self.tls_port),
            ("--metrics-port", Some(self.metrics_port)),
        ];
        for (index, (flag, port)) in ports.iter().enumerate() {
            if let Some((other, _)) = ports[..index]
                .iter()
                .find(|(_, other)| other == port && port.is_some_and(|port| port != 0))
            {
                return Err(format!("{other} and {flag} cannot be the same port"));
            }
        }
        if !self.netboot.is_empty() && self.tls_cert.is_some() && self.tls_port.is_none() {
            return Err("--netboot: iPXE needs plain HTTP, and --port speaks TLS: give --tls-port as well".to_owned());
        }
        if let Some(uri) = self.uri.as_ref().filter(|_| !self.netboot.is_empty()) {
            fits_a_packet("--uri", uri)?;
        }
        if self.loop_timing < Duration::from_secs(1) {
            return Err("--loop-timing: expected at least one second".to_owned());
        }
        for (flag, names) in [
            ("--namespaces", &self.namespaces),
            ("--override-namespaces", &self.override_namespaces),
        ] {
            if let Some(name) = names.iter().find(|name| !is_dns_name(name)) {
                return Err(format!(
                    "{flag}: {name:?} is not the name of a namespace, expected names separated by commas, without blanks"
                ));
            }
        }
        if self.manifests.is_none() && self.state_dir.is_some() {
            return Err("--state-dir goes with --manifests: in a cluster boots are counted in the status of overrides".to_owned());
        }
        for (flag, is_given) in [
            ("--namespaces", !self.namespaces.is_empty()),
            ("--namespace-selector", self.namespace_selector.is_some()),
            ("--environment-selector", self.environment_selector.is_some()),
        ] {
            if self.manifests.is_some() && is_given {
                return Err(format!(
                    "{flag} is for a cluster: with --manifests every object of the folder is used"
                ));
            }
        }
        self.argument_edits()?;
        Ok(())
    }
}
