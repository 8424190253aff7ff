//! From the power button to the bridge: real firmware on a segment with the site's DHCP server and `ipxe-bridge netboot`.

mod faults;
mod images;
mod machines;
mod sites;
mod tftp;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::lab::{Dhcp, Lab, Program, SERVER};
use crate::support::qemu::{BootRom, Console, Firmware, Guest, payload};
use crate::support::site::{Site, id};
use crate::upstream_service::{Content, Options, Target};

const MAC: &str = "52:54:00:cc:00:01";

/// A lab with a bridge and a machine that it knows.
struct BootNetwork {
    site: Site,
    bridge: Program,
    witness: Program,
    // Last: the others' logs are in it.
    lab: Lab,
}

impl BootNetwork {
    /// `None` where the machine cannot have one, which was then said. Blocks.
    fn start() -> Option<Self> {
        Self::with(&[])
    }

    /// With further flags for the bridge.
    fn with(flags: &[&str]) -> Option<Self> {
        let payload = payload()?;
        let lab = Lab::start()?;
        let site = lab.site(Options {
            kernel: Content::file(&payload.kernel),
            initrd: Content::file(&payload.initrd),
            rootfs: Content::random(2_000_000, 7),
            ..Options::default()
        });
        site.environment("a", "lab", "{}", false);
        for index in 1..=8 {
            site.host("a", &format!("n{index}"), &format!("52:54:00:cc:00:{index:02}"), Some("lab"));
        }
        let folder = site.path().to_str().unwrap();
        let mut arguments = vec!["server", "--manifests", folder, "--kernel-arguments", "console=ttyS0 quiet"];
        arguments.extend(flags);
        let bridge = lab.ours("srv", &arguments, "metrics are at");
        let witness = lab.spawn(
            "",
            "tcpdump",
            &["-U", "-Z", "root", "-n", "-i", "br0", "-w", "../witness.pcap", "udp"],
            "listening on br0",
        );
        Some(Self {
            site,
            bridge,
            witness,
            lab,
        })
    }

    /// What was on the wire so far.
    fn capture(&self) -> PathBuf {
        self.lab.path().join("witness.pcap")
    }

    /// What the bridge shows of how the machine came in its last boot.
    fn way(&self) -> Value {
        let boots = self
            .lab
            .run("srv", "curl", &["-sSf", &format!("http://{SERVER}:9876/boots/{MAC}")]);
        let boots: Value = serde_json::from_str(&boots).unwrap();
        let (network, begun) = (&boots[0]["network"], boots[0]["begun"].as_str().unwrap());
        let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let told = time(network["told"].as_str().unwrap_or_else(|| panic!("{boots}")));
        assert!(told < time(begun), "{boots}");
        if let Some(asked) = network["program"]["begun"].as_str() {
            assert!(told <= time(asked) && time(asked) < time(begun), "{boots}");
        }
        network.clone()
    }

    /// The machine ran the right kernel, and got the whole rootfs.
    #[track_caller]
    fn assert_booted(&self, console: &Console) {
        let rootfs = self.site.upstream.content(&id("a", "lab"), Target::Rootfs).unwrap();
        let (length, hash) = (rootfs.length().unwrap(), rootfs.sha256().unwrap());
        assert_eq!(console.line("ROOTFS "), format!("{hash} {length}"));
        assert!(
            console
                .line("BOOT-OK ")
                .contains(&format!("http://{SERVER}:9876/boot-artifacts/rootfs/a/lab"))
        );
        println!("booted in {:.0} s", console.seconds);
    }
}

impl Drop for BootNetwork {
    /// What was on the wire is kept when a test fails, or where IPXE_BRIDGE_KEEP_CAPTURES names a folder.
    fn drop(&mut self) {
        let kept = std::env::var_os("IPXE_BRIDGE_KEEP_CAPTURES").map(PathBuf::from);
        let target = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .unwrap()
            .join("boot-logs");
        let Some(folder) = kept.or_else(|| std::thread::panicking().then_some(target)) else {
            return;
        };
        let test = std::thread::current().name().unwrap_or("test").replace("::", "-");
        let _ = std::fs::create_dir_all(&folder);
        let file = folder.join(format!("{test}.pcap"));
        if std::fs::copy(self.capture(), &file).is_ok() {
            eprintln!("what was on the wire ({} saw it) is in {}", self.witness.id(), file.display());
        }
    }
}

/// What a machine is and boots by, for tests that differ in nothing else.
fn by_firmware(lab: &Lab, name: &str, rom: BootRom) -> Guest {
    let firmware = if rom == BootRom::Usual {
        Firmware::Bios
    } else {
        Firmware::Uefi
    };
    lab.guest(name, firmware, MAC, 0).rom(rom)
}
