//! The site that bridges boot: manifests, and the environments that the stand-in for the Assisted Service knows.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;

use crate::download::Source;
use crate::lab::{Folder, Lab};
use crate::object::Object;
use crate::upstream::{EnvironmentSpec, Options, Target, Upstream};

/// The namespace of everything.
const NAMESPACE: &str = "bench";

/// Environments at the stand-in, hosts, and the folder of manifests that names them.
#[derive(Debug)]
pub struct Site {
    /// The stand-in.
    pub upstream: Upstream,
    folder: Folder,
    environments: usize,
}

/// What a host of a site boots.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Its MAC address.
    pub mac: String,
    /// The number of its environment.
    pub environment: usize,
}

impl Machine {
    /// The one of this number, if they are dealt out to so many environments.
    pub fn new(number: usize, environments: usize) -> Self {
        let [.., a, b, c] = number.to_be_bytes();
        Self {
            mac: format!("52:54:01:{a:02x}:{b:02x}:{c:02x}"),
            environment: number % environments,
        }
    }

    /// Where its script is.
    pub fn path(&self) -> String {
        format!("/ipxe-mac-boot/{}", self.mac)
    }

    /// Whether a script is the one of this environment.
    pub fn is_script_of(text: &str, environment: usize) -> bool {
        // The name ends there: env-1 is not env-19.
        let names = |path: &str| text.split(path).skip(1).any(|rest| rest.starts_with([' ', '\n', '?']));
        let targets = [Target::Kernel, Target::Initrd, Target::Rootfs];
        text.starts_with("#!ipxe\n") && targets.iter().all(|target| names(&Site::path(environment, *target)))
    }
}

impl Site {
    /// So many environments, each with an image of its own, and hosts dealt out to them.
    pub async fn start(lab: &Lab, environments: usize, hosts: usize, options: Options) -> anyhow::Result<Self> {
        let folder = lab.folder("site")?;
        let upstream = Upstream::start(Options {
            environments: (0..environments).map(environment).collect(),
            ..options
        })
        .await?;
        let site = Self {
            upstream,
            folder,
            environments,
        };
        for number in 0..environments {
            let machines = (number..hosts)
                .step_by(environments)
                .map(|host| Machine::new(host, environments));
            site.write(number, machines)?;
        }
        // One that registered: with it the bridge knows that it would hear of installations, and need not ask upstream for each machine.
        let agent = format!(
            "apiVersion: agent-install.openshift.io/v1beta1\nkind: Agent\nmetadata:\n  name: first\n  namespace: {NAMESPACE}\nspec:\n  approved: false\n  role: ''\n\
             status:\n  debugInfo:\n    state: known-unbound\n  inventory:\n    interfaces:\n    - macAddress: 52:54:02:00:00:00\n      flags: []\n      ipV4Addresses: []\n      ipV6Addresses: []\n"
        );
        fs::write(site.folder.join("agents.yaml"), agent)?;
        Ok(site)
    }

    /// The folder of manifests.
    pub fn manifests(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the file of an environment with the machines that boot it.
    pub fn write(&self, number: usize, machines: impl Iterator<Item = Machine>) -> anyhow::Result<()> {
        let url = |target| {
            let url = self.upstream.url_of(&id(number), target);
            url.with_context(|| format!("environment {number} of {}", self.environments))
        };
        let mut text = infra_env(&format!("env-{number}"), url)?;
        for machine in machines {
            let Machine { mac, environment } = machine;
            let name = mac.replace(':', "-");
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "---\napiVersion: metal3.io/v1alpha1\nkind: BareMetalHost\nmetadata:\n  name: host-{name}\n  namespace: {NAMESPACE}\n  labels:\n    \
                 infraenvs.agent-install.openshift.io: env-{environment}\nspec:\n  online: true\n  bootMACAddress: {mac}\n"
            );
        }
        // In one step, as kubectl or git would not, but as a reader of the folder should see it.
        let part = self.folder.join("part.tmp");
        fs::write(&part, text)?;
        fs::rename(part, self.folder.join(&format!("env-{number}.yaml")))?;
        Ok(())
    }

    /// Where an artifact is at a bridge.
    pub fn path(environment: usize, target: Target) -> String {
        let kind = match target {
            Target::Script => return format!("/ipxe-script/{NAMESPACE}/env-{environment}"),
            Target::Kernel => "kernel",
            Target::Initrd => "initrd",
            Target::Rootfs => "rootfs",
        };
        format!("/boot-artifacts/{kind}/{NAMESPACE}/env-{environment}")
    }

    /// An artifact at the stand-in. Behind the bytes that all initrds share stands something of each one's own.
    pub fn source(&self, environment: usize, target: Target) -> anyhow::Result<Source> {
        let missing = || format!("environment {environment} of {}", self.environments);
        let content = self.upstream.content(&id(environment), target).with_context(missing)?;
        let url = self.upstream.url_of(&id(environment), target).with_context(missing)?;
        let origin = format!("http://{}", self.upstream.addr());
        Ok(Source {
            address: self.upstream.addr(),
            path: url.strip_prefix(&origin).context("the stand-in names itself")?.to_owned(),
            tls: None,
            words: content.words().context("random content has words")?,
            length: content.length()?,
            is_open: target == Target::Initrd,
        })
    }
}

/// A folder of manifests with one environment, whose rootfs is this object at this upstream; gives the folder and the rootfs's path at the bridge.
pub fn one_environment(lab: &Lab, upstream: SocketAddr, rootfs: &Object) -> anyhow::Result<(Folder, String)> {
    let folder = lab.folder("site")?;
    let version = rootfs
        .path
        .file_name()
        .context("an object has a name")?
        .to_string_lossy()
        .into_owned();
    let url = |target| {
        let path = match target {
            Target::Script => "script",
            Target::Kernel => "boot-artifacts/kernel",
            Target::Rootfs => "boot-artifacts/rootfs",
            Target::Initrd => "images/pxe-initrd",
        };
        Ok(format!("http://{upstream}/{path}?arch=x86_64&version={version}"))
    };
    fs::write(folder.join("environment.yaml"), infra_env("only", url)?)?;
    Ok((folder, format!("/boot-artifacts/rootfs/{NAMESPACE}/only")))
}

fn infra_env(name: &str, url: impl Fn(Target) -> anyhow::Result<String>) -> anyhow::Result<String> {
    Ok(format!(
        "apiVersion: agent-install.openshift.io/v1beta1\nkind: InfraEnv\nmetadata:\n  name: {name}\n  namespace: {NAMESPACE}\nspec:\n  \
         ipxeScriptType: DiscoveryImageAlways\nstatus:\n  bootArtifacts:\n    kernel: {}\n    initrd: {}\n    rootfs: {}\n    ipxeScript: {}\n",
        url(Target::Kernel)?,
        url(Target::Initrd)?,
        url(Target::Rootfs)?,
        url(Target::Script)?,
    ))
}

fn environment(number: usize) -> EnvironmentSpec {
    EnvironmentSpec {
        id: id(number),
        token: format!("eyJhbGciOiJFUzI1NiJ9.{number:08}.SAMPLE"),
        version: format!("4.{number}"),
        arch: "x86_64".to_owned(),
        ..EnvironmentSpec::default()
    }
}

fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}
