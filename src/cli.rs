//! The command line: every flag, variable and default, and the names that the Python bridge used for them.
//!
//! The only door for configuration: code further in receives these structs.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use strum::VariantNames;
use url::Url;

use crate::boot::artifact::PublicUrl;
use crate::boot::kernel_arguments::{ArgumentEdits, KernelArguments};
use crate::boot::local_disk::LocalDisk;
use crate::boot::mac::MacAddr;
use crate::boot::name::{ObjectName, is_dns_name};
use crate::boot::policy::{BootPolicy, UnknownHosts};
use crate::boot::precedence::EqualOverrides;

/// Network boot of bare metal for Kubernetes: the right iPXE script for every machine, and the reason for it.
#[derive(Debug, Parser)]
#[command(name = "ipxe-bridge", version, propagate_version = true, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer machines that boot, and people who ask what will boot
    Server(Box<ServerArgs>),
    /// Keep bridges running as the IpxeBridge objects of the cluster say
    Operator(OperatorArgs),
    /// Print what a machine would boot by these files, and why; an environment's own script is the service's to tell
    Render {
        /// Files and folders of YAML
        #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
        files: Vec<PathBuf>,
        /// MAC address of the machine
        #[arg(long)]
        mac: MacAddr,
        /// Address of the bridge, for scripts with variables
        #[arg(long, env = "IPXE_BRIDGE_URI", default_value = "http://127.0.0.1:9876")]
        uri: PublicUrl,
    },
    /// Check files: objects, scripts, conflicts; fails if anything is wrong
    Lint {
        /// Files and folders of YAML
        #[arg(required = true, value_name = "PATH")]
        files: Vec<PathBuf>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Print overrides that do what a Python bridge's directory of per-machine scripts does
    ConvertHostFiles {
        /// The directory; each file is named after a MAC address
        directory: PathBuf,
        /// Namespace of the overrides
        #[arg(long, default_value = "default")]
        namespace: String,
    },
    /// Print the OpenAPI document of the server
    Openapi,
    /// Print the CustomResourceDefinitions of the bridge's own kinds as YAML
    Crd,
}

/// How the program logs.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// Form of the log on standard error
    #[arg(
        long,
        env = "IPXE_BRIDGE_LOG_FORMAT",
        default_value = "text",
        global = true,
        help_heading = "Logging"
    )]
    pub log_format: LogFormat,
    /// Least level that is logged: error, warn, info, debug or trace; libraries log warnings, or what is said for them (debug,kube=info)
    #[arg(
        long,
        env = "IPXE_BRIDGE_LOG_LEVEL",
        default_value = "info",
        global = true,
        help_heading = "Logging"
    )]
    pub log_level: String,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

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
    /// Serve upstream's unchanged scripts at /ipxe-mac-proxy: they hold a token of the environment that does not expire
    #[arg(long, env = "IPXE_BRIDGE_SCRIPT_PROXY", value_parser = clap::builder::BoolishValueParser::new())]
    pub script_proxy: bool,
    /// Connections at once; further ones wait until one ends
    #[arg(long, env = "IPXE_BRIDGE_MAX_CONNECTIONS", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// A connection is closed when its machine has taken no byte for this long
    #[arg(long, env = "IPXE_BRIDGE_STALL_TIMEOUT", default_value = "120s", value_parser = duration, value_name = "TIME")]
    pub stall_timeout: Duration,
    /// How long downloads may go on after SIGTERM before they are cut
    #[arg(long, env = "IPXE_BRIDGE_DRAIN_TIMEOUT", default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub drain_timeout: Duration,
}

/// Settings of the operator.
#[derive(Debug, Clone, Args)]
pub struct OperatorArgs {
    /// Address of the probes and metrics
    #[arg(long, env = "IPXE_BRIDGE_HOST", default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "IPXE_BRIDGE_HEALTH_PORT", default_value_t = 9878)]
    pub health_port: u16,
    /// Namespace of bridges that name none [default: that of the operator's pod or kubeconfig]
    #[arg(long, env = "IPXE_BRIDGE_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// How long an operator leads without a renewal before another may take over, in whole seconds; at least 3s
    #[arg(long, env = "IPXE_BRIDGE_LEASE_DURATION", default_value = "15s", value_parser = duration, value_name = "TIME")]
    pub lease_duration: Duration,
    /// Image of bridges that name none
    #[arg(long, env = "RELATED_IMAGE_IPXE_BRIDGE")]
    pub image: Option<String>,
}

/// Variables of the Python bridge, each with the flag it sets.
pub const PYTHON_NAMES: [(&str, &str); 7] = [
    ("FLASK_URI", "uri"),
    ("FLASK_RUN_PORT", "port"),
    ("FLASK_RUN_HOST", "host"),
    ("FLASK_TLS_CERT", "tls_cert"),
    ("FLASK_TLS_KEY", "tls_key"),
    ("LOOP_TIMING", "loop_timing"),
    ("ADDITIONAL_HOST_CONFIG_PATH", "host_files"),
];

impl Cli {
    /// Reads the process's arguments and variables; ends the process with one sentence when something is wrong.
    pub fn from_process() -> Self {
        Self::read(std::env::args_os(), |name| std::env::var_os(name)).unwrap_or_else(|error| error.exit())
    }

    /// Reads arguments and variables. Where a variable of today is not set, the Python bridge's name for it counts; an empty variable
    /// counts as not set.
    ///
    /// clap looks up variables itself: `variable` only decides which names it is told.
    pub fn read(
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let mut command = Self::command().mut_args(|argument| match argument.get_env().and_then(|name| name.to_str()) {
            Some(name) if variable(name).is_some_and(|value| value.is_empty()) => argument.env(None::<&str>),
            _ => argument,
        });
        command = command.mut_subcommand("server", |server| {
            server.mut_args(|argument| {
                let Some(name) = argument.get_env().and_then(|name| name.to_str()).map(str::to_owned) else {
                    return argument;
                };
                let old = PYTHON_NAMES.iter().find(|(old, id)| argument.get_id() == id && set(old));
                match old {
                    _ if set(&name) => argument,
                    Some((old, _)) => argument.env(old),
                    None if variable(&name).is_some() => argument.env(None::<&str>),
                    None => argument,
                }
            })
        });
        let matches = command.try_get_matches_from_mut(arguments)?;
        let cli = Self::from_arg_matches(&matches)?;
        let checked = match &cli.command {
            Command::Server(server) => server.check(),
            Command::Operator(operator) => operator.check(),
            _ => Ok(()),
        };
        checked.map_err(|message| command.error(clap::error::ErrorKind::ValueValidation, message))?;
        Ok(cli)
    }
}

impl OperatorArgs {
    /// What no single value can tell.
    fn check(&self) -> Result<(), String> {
        match self.lease_duration >= Duration::from_secs(3) && self.lease_duration.subsec_nanos() == 0 {
            true => Ok(()),
            false => Err("--lease-duration: expected whole seconds, at least 3".to_owned()),
        }
    }
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
    fn check(&self) -> Result<(), String> {
        for (flag, folder) in [
            ("--manifests", &self.manifests),
            ("--host-files", &self.host_files),
            ("--state-dir", &self.state_dir),
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

/// Seconds as a plain number, or a time such as `90s` or `5m`.
fn duration(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => {
            humantime::parse_duration(text).map_err(|_| "expected seconds such as 90, or a time such as 90s or 5m".to_owned())
        }
    }
}

/// `NAMESPACE/NAME`.
fn object_name(text: &str) -> Result<ObjectName, String> {
    let (namespace, name) = text
        .split_once('/')
        .ok_or("expected a namespace and a name, such as lab/discovery")?;
    ObjectName::new(namespace, name).map_err(|error| error.to_string())
}

/// `HOST=ADDRESS`, the address without a path.
fn moved_host(text: &str) -> Result<(String, Url), String> {
    let expected = || "expected something like images.example.com=https://images.lab.svc:8080".to_owned();
    let (host, address) = text.split_once('=').ok_or_else(expected)?;
    let address = Url::parse(address).map_err(|_| expected())?;
    let is_bare = matches!(address.scheme(), "http" | "https")
        && address.path() == "/"
        && address.query().is_none()
        && address.fragment().is_none()
        && address.username().is_empty();
    match is_bare && !host.is_empty() {
        true => Ok((host.to_ascii_lowercase(), address)),
        false => Err(expected()),
    }
}

/// One of a fixed set of words, whatever its case.
fn word<T: FromStr + VariantNames>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("expected one of {}", T::VARIANTS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<ServerArgs, String> {
        let arguments = ["ipxe-bridge", "server"].iter().chain(arguments).map(OsString::from);
        match Cli::read(arguments, |_| None).map_err(|error| error.to_string())?.command {
            Command::Server(server) => Ok(*server),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        for (_, id) in PYTHON_NAMES {
            let server = Cli::command().find_subcommand("server").expect("the command").clone();
            assert!(server.get_arguments().any(|argument| argument.get_id() == id), "{id}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_python_bridge() {
        let server = read(&[]).expect("valid");
        assert_eq!((server.host.to_string().as_str(), server.port), ("0.0.0.0", 9876));
        assert_eq!(server.loop_timing, Duration::from_secs(90));
        assert_eq!(server.unknown_hosts, UnknownHosts::Shell);
        assert_eq!(server.boot_policy, BootPolicy::UntilInstalled);
    }

    #[test]
    fn wrong_values_say_what_is_expected() {
        for (arguments, message) in [
            (&["--port", "x"] as &[&str], "invalid digit"),
            (
                &["--uri", "boot.example.com"],
                "expected something like http://boot.example.com:9876",
            ),
            (
                &["--unknown-hosts", "Panic"],
                "expected one of Shell, LocalDisk, NotFound, Wait",
            ),
            (
                &["--boot-policy", "never"],
                "expected one of UntilInstalled, Always, Upstream",
            ),
            (
                &["--loop-timing", "soon"],
                "expected seconds such as 90, or a time such as 90s or 5m",
            ),
            (
                &["--namespaces", "lab, edge"],
                "--namespaces: \" edge\" is not the name of a namespace",
            ),
            (&["--loop-timing", "1ms"], "--loop-timing: expected at least one second"),
            (&["--loop-timing", "0"], "--loop-timing: expected at least one second"),
            (&["--kernel-arguments", "a && b"], "iPXE reads it as the end of the command"),
            (&["--tls-cert", "c.pem"], "--tls-key"),
            (&["--tls-port", "443"], "--tls-cert"),
            (
                &["--metrics-port", "9876"],
                "--port and --metrics-port cannot be the same port",
            ),
            (&["--manifests", "/nonexistent"], "--manifests: /nonexistent is not a folder"),
        ] {
            let error = read(arguments).expect_err("wrong");
            assert!(error.contains(message), "{arguments:?}: {error}");
        }
    }
}
