//! A boot network of its own: a segment with servers, machines and nothing else on it.
//!
//! All of it is inside one private network and mount namespace, which is gone with its last process, also after a crash. `srv` has the
//! bridge and what is tested, `dhcp` the site's own DHCP server, `other` a second one of ours; machines are on `tap0` to `tap7`.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::Leashed;
use super::pxe::inside;
use super::qemu::{Firmware, Guest, Wire};
use super::site::Site;
use super::{require, tools};
use crate::upstream_service::Options;

/// Our own server, with the bridge.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

const SETUP: &str = r#"set -e
mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns; ip link set lo up
ip link add br0 type bridge; ip link set br0 type bridge stp_state 0 forward_delay 0; ip link set br0 up
add() { ip netns add $1; ip link add p-$1 type veth peer name eth0 netns $1; ip link set p-$1 master br0 up
        ip -n $1 link set lo up; ip -n $1 link set eth0 up; ip -n $1 addr add $2/24 dev eth0; }
add srv 10.77.0.1; add dhcp 10.77.0.2; add other 10.77.0.3; add client 10.77.0.9
ip -n dhcp addr add fd77::2/64 dev eth0 nodad
for i in 0 1 2 3 4 5 6 7; do ip tuntap add dev tap$i mode tap; ip link set tap$i master br0 up; done
# A bridge hears its own MAC only, and the witness hears all.
echo ready > "$1"; exec sleep infinity"#;

/// A boot network.
pub struct Lab {
    holder: Leashed,
    folder: TempDir,
    /// Packages of others: [`tools`] `netboot`.
    pub tools: PathBuf,
}

/// A program in a lab, and what it printed.
pub struct Program {
    process: Leashed,
    log: PathBuf,
    name: String,
}

/// Where packages of others are; `None` when the machine cannot have them.
pub fn netboot_tools() -> Option<PathBuf> {
    static FOUND: std::sync::OnceLock<Result<PathBuf, String>> = std::sync::OnceLock::new();
    require(
        "DHCP servers and iPXE of Debian",
        FOUND.get_or_init(|| tools("netboot")).clone(),
    )
}

impl Lab {
    /// A segment without any server; `None` where the machine cannot have one, which was then said.
    pub fn start() -> Option<Self> {
        let tools = netboot_tools()?;
        require("a network of its own (root, unshare, tap devices)", Self::set_up(tools))
    }

    fn set_up(tools: PathBuf) -> Result<Self, String> {
        let folder = tempfile::Builder::new().prefix("lab-").tempdir().unwrap();
        let (ready, log) = (folder.path().join("ready"), folder.path().join("lab.log"));
        let mut command = Command::new("unshare");
        command
            .args(["-n", "-m", "--propagation", "private", "sh", "-c", SETUP, "lab"])
            .arg(&ready);
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut holder = Leashed::spawn(&mut command, folder.path()).map_err(|error| format!("unshare: {error}"))?;
        let start = Instant::now();
        while !ready.exists() {
            if holder.ended().is_some() || start.elapsed() > Duration::from_secs(20) {
                return Err(fs::read_to_string(&log).unwrap_or_default());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { holder, folder, tools })
    }

    /// A folder for files of this lab.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command in a namespace of the lab; without a name, where the segment itself is.
    pub fn command(&self, namespace: &str, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        let exec: &[&str] = if namespace.is_empty() {
            &[]
        } else {
            &["ip", "netns", "exec", namespace]
        };
        // Entering a mount namespace changes to its root, hence the folder.
        command
            .args(["-t", &self.holder.id().to_string(), "-n", "-m", "--wd=."])
            .args(exec)
            .arg(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("LD_LIBRARY_PATH", self.tools.join("servers/usr/lib/x86_64-linux-gnu"));
        command
    }

    /// What a command printed; the test fails if it failed.
    #[track_caller]
    pub fn run(&self, namespace: &str, program: &str, arguments: &[&str]) -> String {
        let output = self.command(namespace, program, arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts a program and waits until it prints what says that it is ready.
    #[track_caller]
    pub fn spawn(&self, namespace: &str, program: &str, arguments: &[&str], ready: &str) -> Program {
        let mut started = self.begin(namespace, program, arguments);
        started.wait_for(ready, Duration::from_secs(30));
        started
    }

    /// Starts a program.
    pub fn begin(&self, namespace: &str, program: &str, arguments: &[&str]) -> Program {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = Path::new(program).file_name().unwrap().to_string_lossy().into_owned();
        let log = self.path().join(format!("{name}-{number}.log"));
        let folder = self.path().join(format!("of-{number}"));
        fs::create_dir(&folder).unwrap();
        let file = File::create(&log).unwrap();
        let mut command = self.command(namespace, program, arguments);
        command.current_dir(&folder).stdout(file.try_clone().unwrap()).stderr(file);
        Program {
            process: Leashed::spawn(&mut command, &folder).unwrap(),
            log,
            name,
        }
    }

    /// `ipxe-bridge` with these arguments.
    #[track_caller]
    pub fn ours(&self, namespace: &str, arguments: &[&str], ready: &str) -> Program {
        self.spawn(namespace, env!("CARGO_BIN_EXE_ipxe-bridge"), arguments, ready)
    }

    /// `ipxe-bridge netboot` on eth0, once it answers machines.
    #[track_caller]
    pub fn netboot(&self, namespace: &str, arguments: &[&str]) -> Program {
        let bridge = format!("http://{SERVER}:9876");
        let mut all = vec!["netboot", "--interface", "eth0", "--bridge", &bridge];
        all.extend(arguments);
        let ready = if arguments.contains(&"all") {
            "metrics are at"
        } else {
            "the bridge tells its machines"
        };
        self.ours(namespace, &all, ready)
    }

    /// The site's own DHCP server, which knows nothing of booting: dnsmasq.
    #[track_caller]
    pub fn dnsmasq(&self, more: &[&str]) -> Program {
        self.dnsmasq_on("dhcp", more)
    }

    /// The same in another namespace.
    #[track_caller]
    pub fn dnsmasq_on(&self, namespace: &str, more: &[&str]) -> Program {
        // With router advertisements, see `advertise`; and no ping before each lease.
        let mut all = vec![
            "--no-daemon",
            "--conf-file=/dev/null",
            "--user=root",
            "--port=0",
            "--interface=eth0",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--dhcp-range=10.77.0.50,10.77.0.199,255.255.255.0,1h",
            "--dhcp-leasefile=leases",
            "--log-dhcp",
            "--no-ping",
            "--enable-ra",
            "--dhcp-range=fd77::,ra-only",
            "--ra-param=eth0,4,0",
        ];
        all.extend(more);
        self.spawn(namespace, "dnsmasq", &all, "DHCP, sockets bound exclusively to interface")
    }

    /// A second segment, 10.78.0.0/24, behind a router in the namespace `relay`; a machine's tap is moved there.
    pub fn relayed_segment(&self, tap: usize) {
        let script = format!(
            "set -e; ip netns add relay; ip link add br1 type bridge; ip link set br1 type bridge stp_state 0 forward_delay 0; ip link set br1 up
             ip link add p-relay type veth peer name eth0 netns relay; ip link set p-relay master br0 up
             ip link add q-relay type veth peer name eth1 netns relay; ip link set q-relay master br1 up
             ip -n relay link set lo up; ip -n relay link set eth0 up; ip -n relay link set eth1 up
             ip -n relay addr add 10.77.0.5/24 dev eth0; ip -n relay addr add 10.78.0.1/24 dev eth1; ip -n relay addr add fd78::1/64 dev eth1 nodad
             ip netns exec relay sysctl -qw net.ipv4.ip_forward=1
             for n in srv dhcp; do ip -n $n route add 10.78.0.0/24 via 10.77.0.5; done
             ip link set tap{tap} master br1"
        );
        self.run("", "sh", &["-c", &script]);
    }

    /// Router advertisements: without them iPXE waits 13 seconds for one. The interface has an address of the network.
    #[track_caller]
    pub fn advertise(&self, namespace: &str, interface: &str, network: &str) -> Program {
        let (interface, range) = (format!("--interface={interface}"), format!("--dhcp-range={network},ra-only"));
        let every = format!("--ra-param={},4,0", interface.trim_start_matches("--interface="));
        let arguments = [
            "--no-daemon",
            "--conf-file=/dev/null",
            "--user=root",
            "--port=0",
            &interface,
            "--enable-ra",
            &range,
            &every,
            "--dhcp-leasefile=leases6",
        ];
        self.spawn(namespace, "dnsmasq", &arguments, "router advertisement on")
    }

    /// A thread in a namespace of the lab: sockets that it opens are there.
    pub fn enter<T: Send + 'static>(&self, namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let path = format!("/proc/{}/root/run/netns/{namespace}", self.holder.id());
        inside(Path::new(&path), work)
    }

    /// A sample upstream on the loopback of `srv`, and manifests.
    pub fn site(&self, options: Options) -> Site {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.enter("srv", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                sender.send(Site::with(options).await).unwrap();
                // It ends with the test's process.
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().unwrap()
    }

    /// A machine on the segment.
    pub fn guest(&self, name: &str, firmware: Firmware, mac: &str, tap: usize) -> Guest {
        let mut guest = Guest::new(name, firmware, mac, "");
        guest.nics[0].1 = Wire::Tap(format!("tap{tap}"));
        guest.inside = Some(self.holder.id());
        guest.timeout = Duration::from_secs(150);
        guest
    }
}

impl Program {
    /// What it printed so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has printed something.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, within: Duration) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(
                self.process.ended().is_none() && start.elapsed() < within,
                "{} did not print {text:?}: {}",
                self.name,
                self.log()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("last lines of {}:", self.name);
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            lines[lines.len().saturating_sub(25)..]
                .iter()
                .for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// DHCP servers of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dhcp {
    Dnsmasq,
    Dhcpd,
    Kea,
}

impl Lab {
    /// Starts a DHCP server with a configuration of `deploy/dhcp` and this lab's addresses, or with one that knows nothing of booting.
    #[track_caller]
    pub fn dhcp(&self, server: Dhcp, edit: impl FnOnce(String) -> String) -> Vec<Program> {
        let name = match server {
            Dhcp::Dnsmasq => "dnsmasq.conf",
            Dhcp::Dhcpd => "dhcpd.conf",
            Dhcp::Kea => "kea-dhcp4.conf",
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/dhcp").join(name);
        let text = edit(fs::read_to_string(&source).unwrap()).replace("192.0.2.", "10.77.0.");
        let file = self.path().join(name);
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let of = |program: &str| self.tools.join("servers/usr/sbin").join(program).to_str().unwrap().to_owned();
        let server = match server {
            Dhcp::Dnsmasq => {
                let arguments = [
                    "--no-daemon",
                    "--user=root",
                    "--log-dhcp",
                    "--no-ping",
                    "--dhcp-leasefile=leases",
                    "--conf-file",
                ];
                let mut arguments = arguments.map(str::to_owned).to_vec();
                *arguments.last_mut().unwrap() = format!("--conf-file={file}");
                self.spawn(
                    "dhcp",
                    "dnsmasq",
                    &arguments.iter().map(String::as_str).collect::<Vec<_>>(),
                    "DHCP, IP range",
                )
            }
            Dhcp::Dhcpd => {
                let leases = self.path().join("dhcpd.leases");
                fs::write(&leases, "").unwrap();
                let leases = leases.to_str().unwrap();
                let arguments = ["-4", "-f", "-d", "--no-pid", "-cf", file, "-lf", leases, "eth0"];
                self.spawn("dhcp", &of("dhcpd"), &arguments, "Server starting service")
            }
            Dhcp::Kea => {
                let folder = self.path().to_str().unwrap().to_owned();
                let variables = format!(
                    "KEA_PIDFILE_DIR={folder} KEA_LOCKFILE_DIR={folder} exec {} -c {file}",
                    of("kea-dhcp4")
                );
                self.spawn("dhcp", "sh", &["-c", &variables], "DHCP4_STARTED")
            }
        };
        let advertises = self.advertise("dhcp", "eth0", "fd77::");
        vec![server, advertises]
    }

    /// The same servers as they are before anyone thinks of booting.
    #[track_caller]
    pub fn plain_dhcp(&self, server: Dhcp) -> Vec<Program> {
        self.dhcp(server, |text| match server {
            Dhcp::Dnsmasq => text
                .lines()
                .take_while(|line| !line.contains("iPXE"))
                .collect::<Vec<_>>()
                .join("\n"),
            Dhcp::Dhcpd => {
                let (before, _) = text.split_once("  next-server").unwrap();
                format!("{before}}}\n")
            }
            Dhcp::Kea => {
                let (before, rest) = text.split_once("    // The first class").unwrap();
                format!("{before}    \"subnet4\"{}", rest.split_once("\"subnet4\"").unwrap().1)
            }
        })
    }
}
