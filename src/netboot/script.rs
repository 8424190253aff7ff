//! The script beside every boot program: from wherever iPXE was started, to the bridge.
//!
//! It knows nothing but the bridge's address. The card that iPXE was loaded by has its address already, in versions that say which it
//! is; otherwise one card after the other is asked for one. Runs on iPXE from 2019 to today, BIOS and UEFI, from the network, a CD or
//! a disk; `make boot-image` takes the same file.

use crate::boot::way::{self, Way};

const HANDOVER: &str = include_str!("handover.ipxe");

/// The script for a bridge, and for a machine of which it is known how it came.
pub fn handover(bridge: &str, way: Option<&Way>) -> String {
    let query = way.map(|way| format!("?{}={way}", way::PARAMETER)).unwrap_or_default();
    let script = HANDOVER.replace("/boot.ipxe", &format!("/boot.ipxe{query}"));
    script.replace("@BRIDGE@", bridge)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_names_the_bridge_and_never_reports_success_to_firmware() {
        let script = super::handover("http://192.0.2.1:9876", None);
        assert!(script.starts_with("#!ipxe\n") && script.ends_with("exit 1\n"));
        assert!(script.contains("chain --replace --autofree http://192.0.2.1:9876/boot.ipxe ||") && !script.contains('@'));
        let way = crate::boot::way::Way { told: 16, program: None };
        let script = super::handover("http://192.0.2.1:9876", Some(&way));
        assert_eq!(
            script.matches("--autofree http://192.0.2.1:9876/boot.ipxe?way=10 ||").count(),
            2
        );
    }
}
