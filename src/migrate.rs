//! From the Python bridge's directory of per-machine scripts to overrides. Pure but for [`read`].

use std::collections::BTreeMap;
use std::path::Path;

use kube::api::ObjectMeta;

use crate::boot::host_file::HostFile;
use crate::boot::mac::MacAddr;
use crate::boot::script_check::MAX_OWN_SCRIPT;
use crate::crd::host_override::{IpxeHostOverride, IpxeHostOverrideSpec, MacText};
use crate::server::host_files;

/// What became of a directory.
#[derive(Debug, Default)]
pub struct Converted {
    /// One override a machine, by MAC address.
    pub overrides: Vec<IpxeHostOverride>,
    /// What was not converted, each with the cause.
    pub left: Vec<String>,
}

/// Reads and converts a directory. Fails only if the directory itself cannot be read.
pub fn read(directory: &Path, namespace: &str) -> std::io::Result<Converted> {
    let (files, mut left) = (host_files::list(directory)?, Vec::new());
    let mut good = Vec::new();
    for (file, read) in files {
        match read {
            Ok(host_file) => good.push(host_file),
            Err(cause) => left.push(format!("{file}: {cause}")),
        }
    }
    let mut converted = convert(good, namespace);
    converted.left.append(&mut left);
    converted.left.sort();
    Ok(converted)
}

/// One override for each machine. The name is made of the MAC address, so that a second run gives the same objects.
fn convert(files: Vec<HostFile>, namespace: &str) -> Converted {
    let mut by_mac: BTreeMap<MacAddr, Vec<HostFile>> = BTreeMap::new();
    for file in files {
        by_mac.entry(file.mac).or_default().push(file);
    }
    let mut converted = Converted::default();
    for (mac, files) in by_mac {
        let names = files.iter().map(|file| file.file.as_str()).collect::<Vec<_>>().join(", ");
        let script = &files[0].script;
        if files.iter().any(|file| file.script != *script) {
            converted
                .left
                .push(format!("{names}: they differ and all name {mac}, keep one of them"));
        } else if script.len() > MAX_OWN_SCRIPT {
            let length = script.len();
            converted.left.push(format!(
                "{names}: {length} bytes are too many for an override, expected at most {MAX_OWN_SCRIPT}"
            ));
        } else {
            converted.overrides.push(host_override(mac, script, namespace));
        }
    }
    converted
}

fn host_override(mac: MacAddr, script: &str, namespace: &str) -> IpxeHostOverride {
    let spec = IpxeHostOverrideSpec {
        mac_addresses: vec![MacText(mac.to_string())],
        script: Some(script.to_owned()),
        ..IpxeHostOverrideSpec::default()
    };
    let mut object = IpxeHostOverride::new(&format!("host-{}", mac.hyphenated()), spec);
    object.metadata = ObjectMeta {
        namespace: Some(namespace.to_owned()),
        ..object.metadata
    };
    object
}
