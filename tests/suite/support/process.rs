//! Child processes that never outlive the test run.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A process that ends with this value, or with the test binary, however that one ends.
///
/// A value in a `static` is never dropped, and neither is any value when the binary is killed. So a small shell waits on a pipe
/// that only this process holds open: when the kernel closes it, the shell ends the child and removes its folder. (The kernel's own
/// parent-death signal follows the spawning *thread*, and each test has its own.)
pub struct Leashed {
    child: Child,
    keeper: Child,
}

impl Leashed {
    /// Starts the command; `folder` is what is left to remove if this process dies.
    pub fn spawn(command: &mut Command, folder: &Path) -> io::Result<Self> {
        // Own process groups: Ctrl-C in a terminal reaches the tests, and these through the pipe.
        let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
        let keeper = Command::new("sh")
            .args(["-c", r#"read -r _; kill -KILL "$1"; rm -rf "$2""#, "keeper"])
            .arg(child.id().to_string())
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match keeper {
            Ok(keeper) => Ok(Self { child, keeper }),
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(e)
            }
        }
    }

    /// The child's standard output, if the command asked for a pipe.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The child's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the child ended, `None` while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        // The keeper first: afterwards the child's id may belong to someone else.
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
