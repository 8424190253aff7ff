//! A program under load: what it costs, and that it never outlives the run.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// A running program with everything that it started: a process group of its own.
///
/// A small shell waits on a pipe that only this process holds open: when the kernel closes it, however this process ended, the shell
/// ends the group.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    child: Child,
    keeper: Child,
}

/// Memory that is resident, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub now: f64,
    /// The most since the last [`Program::forget_peak`].
    pub peak: f64,
}

impl Program {
    /// Starts it; what it prints goes to the file.
    pub fn start(name: &'static str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let keeper = Command::new("sh")
            .args(["-c", r#"read -r _; kill -s KILL -- "-$1""#, "keeper"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match keeper {
            Ok(keeper) => Ok(Self { name, child, keeper }),
            Err(error) => {
                // The error is what counts.
                let _ = child.kill();
                let _ = child.wait();
                Err(error).context("no shell")
            }
        }
    }

    /// Fails if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}", self.name),
        }
    }

    /// The CPU time of the whole group so far, in seconds.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let mut seconds = 0.0;
        for entry in fs::read_dir("/proc")?.flatten() {
            // Other processes may end meanwhile.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            let stat = Stat::parse(&stat)?;
            if stat.group == i64::from(self.child.id()) {
                seconds += stat.own;
            }
        }
        Ok(seconds)
    }

    /// What the first process of the group holds.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
            let kibibytes: f64 = line.with_context(|| format!("no {name} of {}", self.name))?.trim().parse()?;
            anyhow::Ok(kibibytes * 1024.0)
        };
        Ok(Memory {
            now: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// Counts the peak from now on (proc(5), `clear_refs`).
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").context("the peak of memory cannot be reset")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The keeper first: afterwards the id may belong to someone else.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// The CPU time of this process, in seconds.
pub fn own_cpu() -> anyhow::Result<f64> {
    Ok(Stat::parse(&fs::read_to_string("/proc/self/stat")?)?.own)
}

/// The CPU time of everything that this process started and that has ended, in seconds.
pub fn cpu_of_ended() -> anyhow::Result<f64> {
    Ok(Stat::parse(&fs::read_to_string("/proc/self/stat")?)?.ended)
}

/// Waits until something is so; it is asked again every few milliseconds.
pub async fn until(what: &str, program: &mut Program, mut is_so: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    for _ in 0..6_000 {
        program.check()?;
        if is_so().await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("not so after a minute: {what}")
}

/// What is needed of `/proc/PID/stat` (proc(5)).
struct Stat {
    /// -1 for one that has ended.
    group: i64,
    own: f64,
    ended: f64,
}

impl Stat {
    fn parse(text: &str) -> anyhow::Result<Self> {
        // The name before the parenthesis may hold anything.
        let (_, rest) = text.rsplit_once(')').context("stat without a name")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |index: usize| -> anyhow::Result<u64> { Ok(fields.get(index).context("short stat")?.parse()?) };
        let seconds = |first: usize| anyhow::Ok((number(first)? + number(first + 1)?) as f64 / ticks());
        Ok(Self {
            group: fields.get(2).context("short stat")?.parse()?,
            own: seconds(11)?,
            ended: seconds(13)?,
        })
    }
}

fn ticks() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}
