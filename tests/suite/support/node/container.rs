//! A container's command as a process: a root of its own without anything to write to, a random user and no privileges, unless it asks for some.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;

use super::HOSTS;
use super::network::{GATEWAY, Namespace};
use super::volumes::Volumes;
use crate::support::process::Leashed;

/// As OpenShift gives to a namespace: no user that an image could know.
const USER: i64 = 1_000_660_000;

/// Starts the container of a pod.
pub fn start(pod: &Pod, program: &Path, namespace: &Namespace, volumes: &Volumes, folder: &Path, api_port: u16) -> Leashed {
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let name = pod.name_any();
    let root = folder.join(format!("{name}.root"));
    std::fs::create_dir_all(&root).unwrap();
    let variables = variables(pod, container, namespace, api_port);
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join(format!("{name}.log")))
        .unwrap();
    let mut command = Command::new("ip");
    command
        .args([
            "netns",
            "exec",
            &namespace.name,
            "unshare",
            "--mount",
            "--uts",
            "--propagation",
            "private",
        ])
        .args([
            "sh",
            "-c",
            &script(pod, container, &root, program, volumes, &folder.join(HOSTS)),
            "sh",
            &name,
        ])
        .args(container.args.iter().flatten().map(|argument| expand(argument, &variables)))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .envs(&variables)
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    assert!(container.command.is_none(), "the image's own command is meant");
    Leashed::spawn(&mut command, &root).unwrap()
}

/// Makes the root, mounts everything into it, and becomes the program.
fn script(pod: &Pod, container: &Container, root: &Path, program: &Path, volumes: &Volumes, hosts: &Path) -> String {
    let (root, program, hosts) = (root.display(), program.display(), hosts.display());
    let mut script = format!(
        "set -e\nname=$1; shift\nhostname \"$name\"\nmount -t tmpfs tmpfs {root}\ncd {root}\n\
         for d in bin sbin lib lib64 usr; do\n\
           if [ -L /$d ]; then cp -P /$d $d; elif [ -d /$d ]; then mkdir $d; mount --bind /$d $d; fi\ndone\n\
         mkdir -p proc dev etc/ssl\nmount --bind /proc proc\nmount --bind /dev dev\nmount --bind /etc/ssl etc/ssl\n\
         touch program etc/hosts\nmount --bind {program} program\nmount --bind {hosts} etc/hosts\n"
    );
    for mount in container.volume_mounts.iter().flatten() {
        let place = mount.mount_path.trim_start_matches('/');
        let source = volumes.path(&mount.name);
        writeln!(script, "mkdir -p {place}\nmount --bind {} {place}", source.display()).unwrap();
        if mount.read_only == Some(true) {
            writeln!(script, "mount -o remount,bind,ro {place}").unwrap();
        }
    }
    let security = container.security_context.as_ref();
    if security.and_then(|security| security.read_only_root_filesystem) == Some(true) {
        script.push_str("mount -o remount,ro .\n");
    }
    let user = pod.spec.as_ref().unwrap().security_context.as_ref();
    let user = user.and_then(|context| context.run_as_user).unwrap_or(USER);
    // What a container adds only reaches root: no capability is ambient.
    let added = security.and_then(|security| security.capabilities.as_ref()?.add.clone());
    let mut capabilities = "-all".to_owned();
    for capability in added.into_iter().flatten() {
        write!(capabilities, ",+{}", capability.to_lowercase()).unwrap();
    }
    writeln!(
        script,
        "exec chroot . /usr/bin/setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs --inh-caps={capabilities} --bounding-set={capabilities} /program \"$@\""
    )
    .unwrap();
    script
}

fn variables(pod: &Pod, container: &Container, namespace: &Namespace, api_port: u16) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> = [
        ("KUBERNETES_SERVICE_HOST".to_owned(), GATEWAY.to_owned()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), api_port.to_string()),
        ("HOME".to_owned(), "/".to_owned()),
    ]
    .into();
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => expand(value, &variables),
            (None, Some(from)) => match from.field_ref.as_ref().unwrap().field_path.as_str() {
                "metadata.namespace" => pod.namespace().unwrap(),
                "metadata.name" => pod.name_any(),
                "metadata.uid" => pod.uid().unwrap(),
                "status.podIP" => namespace.address.clone(),
                "spec.nodeName" => super::NAME.to_owned(),
                other => panic!("the test node does not know the field {other}"),
            },
            (None, None) => String::new(),
        };
        variables.insert(variable.name.clone(), value);
    }
    variables
}

/// `$(NAME)` as Kubernetes expands it.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("$({name})"), value)
    })
}
