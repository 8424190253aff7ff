//! Machines that really boot: QEMU with SeaBIOS or OVMF and the iPXE of the distribution, on QEMU's built-in network.
//!
//! That network needs no privileges, answers DHCP by itself and shows this machine's 127.0.0.1 as [`HOST`]: a server under test
//! listens on a free loopback port in the test's own process.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::process::Leashed;
use super::{require, tools};

/// The address under which a guest reaches a server on 127.0.0.1.
pub const HOST: &str = "10.0.2.2";

/// Software emulation keeps one core busy per guest; more of them only make each other time out.
const GUESTS_AT_ONCE: usize = 2;

/// One in a hundred guest kernels dies of this on a loaded machine, long before anything that is tested. Nothing else is retried.
const FLAKE: &str = "IO-APIC + timer doesn't work!";

/// Nothing follows any of these. iPXE's "Could not boot" is none: a script may go on, and the firmware tries its next device.
const DEAD_ENDS: [&str; 3] = ["Kernel panic", "No bootable device", "No bootable option"];

/// A small Linux that fetches the root file system its command line names and prints `ROOTFS <sha256> <size>`, `EFI=yes|no` and
/// `BOOT-OK <command line>`, each on a line of its own.
pub struct Payload {
    /// The kernel, 14 MB.
    pub kernel: PathBuf,
    /// The initial RAM disk, 1 MB.
    pub initrd: PathBuf,
}

/// The payload; QEMU and the firmware are installed then as well. `None` when the machine cannot have them.
pub fn payload() -> Option<Payload> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new(); // asking the package lists takes a second
    let found = FOUND.get_or_init(|| tools("boot"));
    let dir = require("QEMU with iPXE and a guest kernel", found.clone())?;
    Some(Payload {
        kernel: dir.join("vmlinuz"),
        initrd: dir.join("initrd.img"),
    })
}

/// What a machine starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS on an i440FX board.
    Bios,
    /// OVMF on a Q35 board, without Secure Boot.
    Uefi,
}

/// What a network card is plugged into.
#[derive(Clone, Debug)]
pub enum Wire {
    /// DHCP gives an address and this URL as boot file.
    Boot(String),
    /// DHCP gives an address, nothing to boot.
    Address,
    /// Nobody answers.
    Silent,
    /// The segment of a lab, through its tap of this name.
    Tap(String),
}

/// What a card boots by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum BootRom {
    /// QEMU's own: Debian's iPXE.
    #[default]
    Usual,
    /// Another option ROM.
    File(PathBuf),
    /// None: UEFI's own PXE client.
    FirmwarePxe,
    /// None: UEFI's own HTTP client.
    FirmwareHttp,
    /// The card is not booted from: the disk or the CD is.
    NotBooted,
}

/// A machine to be switched on. The first network card is the boot device, the disk the next one.
#[must_use]
pub struct Guest {
    /// Names the log; one per test.
    pub name: String,
    /// BIOS or UEFI.
    pub firmware: Firmware,
    /// MAC and wire of each network card.
    pub nics: Vec<(String, Wire)>,
    /// From [`disk_bios`](super::disk::disk_bios) or [`disk_uefi`](super::disk::disk_uefi): a raw image, or a folder shown as one.
    pub disk: Option<PathBuf>,
    /// A CD, or the image of one written to a USB stick, that is booted from.
    pub cd: Option<PathBuf>,
    /// What the first card boots by.
    pub rom: BootRom,
    /// The process whose network the machine is in, if another than ours.
    pub inside: Option<u32>,
    /// How long it may run.
    pub timeout: Duration,
    /// Texts on the console that end the run.
    pub stop_at: Vec<String>,
}

impl Guest {
    /// A machine with one network card whose DHCP server names the URL as boot file.
    pub fn new(name: &str, firmware: Firmware, mac: &str, url: &str) -> Self {
        Self {
            name: name.to_owned(),
            firmware,
            nics: vec![(mac.to_owned(), Wire::Boot(url.to_owned()))],
            disk: None,
            cd: None,
            rom: BootRom::Usual,
            inside: None,
            timeout: Duration::from_secs(90),
            stop_at: Vec::new(),
        }
    }

    /// Adds a network card, which is not booted from.
    pub fn nic(mut self, mac: &str, wire: Wire) -> Self {
        self.nics.push((mac.to_owned(), wire));
        self
    }

    /// Chooses what the first card boots by.
    pub fn rom(mut self, rom: BootRom) -> Self {
        self.rom = rom;
        self
    }

    /// Boots from a CD in place of the network.
    pub fn cd(mut self, image: PathBuf) -> Self {
        self.cd = Some(image);
        self.rom = BootRom::NotBooted;
        self
    }

    /// Adds the disk.
    pub fn disk(mut self, disk: PathBuf) -> Self {
        self.disk = Some(disk);
        self
    }

    /// Ends the run when the console shows this text. A BIOS console breaks lines after 80 characters: keep it short.
    pub fn stop_at(mut self, text: &str) -> Self {
        self.stop_at.push(text.to_owned());
        self
    }

    /// Runs the machine until it powers off or resets, prints what ends the run, or takes too long. Blocks the thread.
    pub fn boot(&self) -> Console {
        let _slot = slot();
        let console = self.run();
        if !console.text.contains(FLAKE) {
            return console;
        }
        eprintln!("{}: the guest's timer failed, one more try", self.name);
        self.run()
    }

    /// The same beside machines that run already, however many: for tests of many at once.
    pub fn boot_at_once(&self) -> Console {
        self.run()
    }

    fn run(&self) -> Console {
        let dir = tempfile::Builder::new().prefix("guest-").tempdir().unwrap();
        let messages = dir.path().join("qemu.log");
        let started = Instant::now();
        let mut machine = Leashed::spawn(
            self.command(dir.path())
                .stdout(Stdio::piped())
                .stderr(File::create(&messages).unwrap()),
            dir.path(),
        )
        .unwrap();

        let serial = chunks(machine.take_stdout().unwrap());
        let mut screen = Screen::default();
        let end = loop {
            match serial.recv_timeout(self.timeout.saturating_sub(started.elapsed())) {
                Ok(chunk) => screen.show(&chunk),
                Err(RecvTimeoutError::Disconnected) => break End::Off,
                Err(RecvTimeoutError::Timeout) => break End::Timeout,
            }
            let shown = |text: &str| screen.text.contains(text);
            if self.stop_at.iter().any(|text| shown(text)) {
                break End::Stopped;
            }
            if DEAD_ENDS.into_iter().chain([FLAKE]).any(shown) {
                break End::Dead;
            }
        };
        drop(machine);

        let mut text = screen.text;
        text.push_str(&fs::read_to_string(&messages).unwrap());
        let console = Console {
            name: self.name.clone(),
            seconds: started.elapsed().as_secs_f64(),
            text,
            end,
        };
        if end == End::Timeout {
            console.keep();
        }
        console
    }

    fn command(&self, dir: &Path) -> Command {
        let mut qemu = match self.inside {
            None => Command::new("qemu-system-x86_64"),
            Some(process) => {
                let mut command = Command::new("nsenter");
                command.args(["-t", &process.to_string(), "-n", "-m", "qemu-system-x86_64"]);
                command
            }
        };
        // -nographic is what sends the text of SeaBIOS and iPXE to the serial line. OVMF has no network without a random source.
        qemu.args(["-nographic", "-nodefaults", "-no-reboot"])
            .args(["-serial", "stdio", "-device", "virtio-rng-pci"]);
        match self.firmware {
            Firmware::Bios => {
                qemu.args(["-machine", "pc,accel=tcg", "-m", "256"]);
            }
            Firmware::Uefi => {
                let variables = dir.join("vars.fd");
                fs::copy("/usr/share/OVMF/OVMF_VARS_4M.fd", &variables).unwrap();
                // iPXE is the card's boot program; OVMF's own clients would only follow it with minutes of waiting.
                let off: &[&str] = match self.rom {
                    BootRom::FirmwarePxe => &["IPv6PXESupport"],
                    _ => &["IPv4PXESupport", "IPv6PXESupport"],
                };
                for client in off {
                    qemu.args(["-fw_cfg", &format!("name=opt/org.tianocore/{client},string=n")]);
                }
                qemu.args(["-machine", "q35,accel=tcg", "-m", "512"])
                    .args([
                        "-drive",
                        "if=pflash,format=raw,unit=0,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
                    ])
                    .args(["-drive", &format!("if=pflash,format=raw,unit=1,file={}", variables.display())]);
            }
        }
        for (n, (mac, wire)) in self.nics.iter().enumerate() {
            let network = match wire {
                Wire::Boot(url) => format!("user,id=n{n},bootfile={}", escaped(url)),
                Wire::Address => format!("user,id=n{n}"),
                Wire::Silent => format!("hubport,id=n{n},hubid={n}"),
                Wire::Tap(name) => format!("tap,id=n{n},ifname={name},script=no,downscript=no"),
            };
            let order = match (&self.rom, n) {
                (BootRom::NotBooted, _) => ",romfile=".to_owned(),
                (BootRom::Usual, 0) => ",bootindex=0".to_owned(),
                // QEMU puts the card's number only into its own ROM, which is that of an older card.
                (BootRom::File(rom), 0) => format!(
                    ",bootindex=0,disable-legacy=on,romfile={}",
                    escaped(&rom.display().to_string())
                ),
                (BootRom::FirmwarePxe | BootRom::FirmwareHttp, 0) => ",bootindex=0,romfile=".to_owned(),
                _ => String::new(),
            };
            qemu.args(["-netdev", &network])
                .args(["-device", &format!("virtio-net-pci,netdev=n{n},mac={mac}{order}")]);
        }
        if let Some(image) = &self.cd {
            let file = escaped(&image.display().to_string());
            qemu.args([
                "-drive",
                &format!("if=none,id=cd,media=cdrom,format=raw,readonly=on,file={file}"),
            ]);
            match self.firmware {
                Firmware::Bios => qemu.args(["-device", "ide-cd,drive=cd,bootindex=0"]),
                Firmware::Uefi => qemu.args([
                    "-device",
                    "ich9-ahci,id=ahci",
                    "-device",
                    "ide-cd,bus=ahci.0,drive=cd,bootindex=0",
                ]),
            };
        }
        if let Some(disk) = &self.disk {
            let fat = if disk.is_dir() { "fat:" } else { "" };
            let file = escaped(&disk.display().to_string());
            qemu.args(["-drive", &format!("if=none,id=disk,format=raw,snapshot=on,file={fat}{file}")])
                .args(["-device", "virtio-blk-pci,drive=disk,bootindex=1"]);
        }
        qemu
    }
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The machine powered off or reset.
    Off,
    /// The console showed a text of `stop_at`.
    Stopped,
    /// The machine gave up: panic, or nothing left to boot.
    Dead,
    /// Time was up.
    Timeout,
}

/// What a machine printed. The text is kept in `target/boot-logs` when time was up or the test fails.
pub struct Console {
    /// All lines, without terminal control codes; QEMU's own complaints at the end.
    pub text: String,
    /// How long the machine ran.
    pub seconds: f64,
    /// Why it ended.
    pub end: End,
    name: String,
}

impl Console {
    /// The rest of the last line that starts with this text; the test fails when there is none.
    #[track_caller]
    pub fn line(&self, start: &str) -> &str {
        let found = self.text.lines().rev().find_map(|line| line.strip_prefix(start));
        match found {
            Some(rest) => rest.trim(),
            None => panic!(
                "no line {start:?} on the console of {}, which ended as {:?} after {:.0} s",
                self.name, self.end, self.seconds
            ),
        }
    }

    /// Writes the text to a file and says where.
    pub fn keep(&self) -> PathBuf {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let dir = target.join("boot-logs");
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join(format!("{}.log", self.name));
        fs::write(&path, &self.text).unwrap();
        eprintln!("{}: console text is in {}", self.name, path.display());
        path
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep();
        }
    }
}

/// Waits for its turn. Lock files, since some runners give each test a process of its own.
fn slot() -> File {
    loop {
        for n in 0..GUESTS_AT_ONCE {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("guest-{n}.lock"));
            let file = File::create(path).unwrap();
            match file.try_lock() {
                Ok(()) => return file,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(e)) => panic!("locking a guest slot: {e}"),
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// QEMU splits option values at commas; a doubled one stands for itself.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

/// What arrives on the pipe, so that waiting for it can have a limit.
fn chunks(mut pipe: ChildStdout) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = pipe.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Drops the control codes that firmware sends to a terminal.
#[derive(Default)]
struct Screen {
    text: String,
    code: Code,
}

#[derive(Default)]
enum Code {
    #[default]
    None,
    Escape,
    Parameters,
}

impl Screen {
    fn show(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.code = match (&self.code, byte) {
                (_, 0x1b) => Code::Escape,
                (Code::Escape, b'[') => Code::Parameters,
                (Code::Parameters, b' '..=b'?') => Code::Parameters,
                (Code::None, b'\r') => Code::None,
                (Code::None, _) => {
                    self.text.push(char::from(byte));
                    Code::None
                }
                // The last byte of a code.
                (Code::Escape | Code::Parameters, _) => Code::None,
            };
        }
    }
}
