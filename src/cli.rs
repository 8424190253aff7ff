//! The command line: every flag, variable and default, and the names that the Python bridge used for them.
//!
//! The only door for configuration: code further in receives these structs.

mod explain;
mod netboot;
mod server;
mod value;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::boot::artifact::PublicUrl;
use crate::boot::mac::MacAddr;

pub use explain::{ExplainArgs, Output};
pub use netboot::{Answer, NetbootArgs, ProxyDhcp, Quirk, Tftp};
pub use server::ServerArgs;
use value::duration;

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
    /// Tell machines that boot from the network what to fetch, and send it: ProxyDHCP, TFTP and boot programs over HTTP
    Netboot(Box<NetbootArgs>),
    /// Print what a machine would boot by these files, and why; an environment's own script is the service's to tell
    Render {
        /// Files and folders of YAML; - is standard input
        #[arg(short = 'f', long = "file", required = true, value_name = "PATH")]
        files: Vec<PathBuf>,
        /// MAC address of the machine
        #[arg(long)]
        mac: MacAddr,
        /// Address of the bridge, for scripts with variables
        #[arg(long, env = "IPXE_BRIDGE_URI", default_value = "http://127.0.0.1:9876")]
        uri: PublicUrl,
    },
    /// Say why a machine boots what it boots: each rule, the objects, the script; asked of a running bridge, or decided from files
    Explain(ExplainArgs),
    /// Check files: objects, scripts, conflicts; fails if anything is wrong
    Lint {
        /// Files and folders of YAML; - is standard input
        #[arg(required = true, value_name = "PATH")]
        files: Vec<PathBuf>,
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Look into a cache's folder, without a server
    Cache {
        /// What to do with it
        #[command(subcommand)]
        action: CacheAction,
        /// The folder of --cache-dir
        #[arg(
            long,
            env = "IPXE_BRIDGE_CACHE_DIR",
            value_name = "DIR",
            global = true,
            default_value = "/var/cache/ipxe-bridge"
        )]
        cache_dir: PathBuf,
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

/// What can be done with a cache's folder.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheAction {
    /// List what it holds, last used first
    Ls {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Compare the digest of every file with the one that was written down; fails if one differs
    Verify,
    /// Remove what no machine asked for lately, and what dead processes left; not while a server uses the folder, which does so itself
    Prune {
        /// Remove what was not asked for in this time; 0s is everything
        #[arg(long, default_value = "30d", value_parser = duration, value_name = "TIME")]
        unused_for: Duration,
    },
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
            Command::Netboot(netboot) => netboot.check(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::policy::{BootPolicy, UnknownHosts};

    /// 131 bytes.
    const LONG: &str = "http://boot.example.com/0123456789abcdef01234567890abcdef01/0123456789abcdef01234567890abcdef01/\
        0123456789abcdef01234567890abcdef01";

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
            (
                &["--kernel-arguments-replaced", "a b c"],
                "--kernel-arguments-replaced: expected pairs of old and new",
            ),
            (
                &["--kernel-arguments-removed", "initrd"],
                "the machine could not boot without it",
            ),
            (&["--default-environment", "lab"], "expected a namespace and a name"),
            (
                &["--upstream-host", "a=https://b/path"],
                "expected something like images.example.com=https://images.lab.svc:8080",
            ),
            (&["--namespace-selector", "a=b", "--namespaces", "lab"], "cannot be used with"),
            (
                &["--environment-selector", "a=b", "--manifests", "."],
                "--environment-selector is for a cluster",
            ),
            (&["--kernel-arguments", "a && b"], "iPXE reads it as the end of the command"),
            (&["--tls-cert", "c.pem"], "--tls-key"),
            (&["--tls-port", "443"], "--tls-cert"),
            (
                &["--metrics-port", "9876"],
                "--port and --metrics-port cannot be the same port",
            ),
            (&["--manifests", "/nonexistent"], "--manifests: /nonexistent is not a folder"),
            (
                &["--netboot", "eth1", "--uri", LONG],
                "--uri: with 131 bytes its script does not fit into a DHCP packet, which holds 117",
            ),
        ] {
            let error = read(arguments).expect_err("wrong");
            assert!(error.contains(message), "{arguments:?}: {error}");
        }
    }
}
