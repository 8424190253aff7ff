//! What `make boot-image` makes, for networks where nothing else is possible.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// What `make boot-image` makes for the bridge of a lab.
fn boot_image(lab: &Lab, more: &[String]) -> PathBuf {
    let out = lab.path().join("boot-image");
    let output = Command::new("make")
        .args(["--no-print-directory", "boot-image"])
        .arg(format!("BRIDGE=http://{SERVER}:9876"))
        .arg(format!("OUT={}", out.display()))
        .arg(format!("PROGRAMS={}", lab.tools.join("trixie/usr/lib/ipxe").display()))
        .arg("LKRN=/usr/lib/ipxe/ipxe.lkrn")
        .args(more)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    out
}

#[test]
fn a_cd_or_a_stick_boots_both_kinds_of_machine() {
    let Some(network) = BootNetwork::start() else { return };
    let _dhcp = network.lab.dnsmasq(&[]);
    let image = boot_image(&network.lab, &[]).join("ipxe-bridge.iso");
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let console = network
            .lab
            .guest(&format!("boot-image-cd-{firmware:?}"), firmware, MAC, 0)
            .cd(image.clone())
            .boot();
        network.assert_booted(&console);
        assert!(
            console.text.contains("ipxe-bridge: trying net0"),
            "{}",
            console.keep().display()
        );
        // Written to a stick it is a disk.
        let mut stick = network
            .lab
            .guest(&format!("boot-image-stick-{firmware:?}"), firmware, MAC, 0)
            .rom(BootRom::NotBooted);
        stick.disk = Some(image.clone());
        network.assert_booted(&stick.boot());
    }
}

/// Boots machines whose DHCP server names one file for all that asks, firmware and iPXE alike.
fn boot_by_one_name(network: &BootNetwork, folder: &Path, names: [(&str, BootRom); 2]) -> Program {
    let served = folder.to_str().unwrap();
    let netboot = network
        .lab
        .netboot("srv", &["--proxy-dhcp", "off", "--boot-programs", served]);
    for (name, rom) in names {
        let dhcp = network.lab.dnsmasq(&[&format!("--dhcp-boot={name},,{SERVER}")]);
        let mut guest = by_firmware(&network.lab, &format!("boot-image-tftp-{name}"), rom);
        guest.timeout = Duration::from_secs(200);
        let console = guest.boot();
        network.assert_booted(&console);
        assert!(
            console.text.contains("ipxe-bridge: the boot script comes from"),
            "{}",
            console.keep().display()
        );
        drop(dhcp);
    }
    netboot
}

#[test]
fn a_folder_boots_both_kinds_of_machine_where_dhcp_knows_one_name_only() {
    let Some(network) = BootNetwork::start() else { return };
    let folder = boot_image(&network.lab, &[]).join("tftp");
    // No ARM machine boots here: the one of the package lies there, to the byte.
    let arm64 = network.lab.tools.join("trixie/usr/lib/ipxe/ipxe-arm64.efi");
    assert!(std::fs::read(folder.join("ipxe-arm64.efi")).unwrap() == std::fs::read(arm64).unwrap());
    let names = [("pxelinux.0", BootRom::Usual), ("snponly.efi", BootRom::FirmwarePxe)];
    let netboot = boot_by_one_name(&network, &folder, names);
    assert!(netboot.log().contains("file=\"pxelinux.cfg/default\""), "{}", netboot.log());
}

#[test]
fn programs_that_hold_the_script_are_compiled_and_boot_where_there_is_ipxes_source() {
    let Some(source) = std::env::var_os("IPXE_SRC").filter(|source| !source.is_empty()) else {
        // The one test that may be left out in CI too: no registry of packages has that source.
        let test = "programs that hold the script";
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: {test}: IPXE_SRC names no folder with iPXE's source"
        );
        return;
    };
    let Some(network) = BootNetwork::start() else { return };
    let source = format!("IPXE_SRC={}", source.to_str().unwrap());
    let folder = boot_image(&network.lab, &[source]).join("embedded");
    for name in ["ipxe.lkrn", "ipxe.efi"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let names = [("undionly.kpxe", BootRom::Usual), ("snponly.efi", BootRom::FirmwarePxe)];
    let netboot = boot_by_one_name(&network, &folder, names);
    // The script is inside: none is fetched beside the program.
    assert!(!netboot.log().contains("autoexec.ipxe"), "{}", netboot.log());
}

#[test]
fn a_source_that_is_none_is_refused_before_anything_is_compiled() {
    let Some(network) = Lab::start() else { return };
    let folder = network.path().join("no-source");
    std::fs::create_dir(&folder).unwrap();
    let output = Command::new("make")
        .args(["--no-print-directory", "boot-image", "BRIDGE=http://192.0.2.1:9876"])
        .arg(format!("IPXE_SRC={}", folder.display()))
        .arg(format!("OUT={}", folder.join("out").display()))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("IPXE_SRC is the folder of iPXE's source, with src/Makefile in it"),
        "{said}"
    );
}
