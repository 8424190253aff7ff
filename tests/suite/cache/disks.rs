//! Disks in trouble: machines boot all the same, and it is said what is wrong.

use std::process::Command;

use rustix::process::{Resource, Rlimit};

use super::*;
use crate::support::require;

/// A small file system of its own.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Of so many MiB; `None`, loudly, where nothing can be mounted.
    fn mount(mebibytes: u64) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("disk-").tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder.path())
            .output()
            .unwrap();
        let found = match mounted.status.success() {
            true => Ok(Self { folder }),
            false => Err(String::from_utf8_lossy(&mounted.stderr).into_owned()),
        };
        require("root, to mount a small disk,", found)
    }

    fn path(&self) -> String {
        self.folder.path().to_str().unwrap().to_owned()
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.folder.path())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}

async fn is_right(cached: &Cached, bridge: &Bridge) {
    for (path, target) in [(KERNEL, Target::Kernel), (ROOTFS, Target::Rootfs)] {
        let answer = fetch(bridge, path, &[]).await.expect("complete");
        assert!(answer.status == 200 && answer.body == cached.expected(target), "{path}");
    }
}

#[tokio::test]
async fn a_full_disk_is_passed_by_and_used_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(8) else {
        return;
    };
    let cached = Cached::start(6_000_000).await;
    let brim = disk.folder.path().join("others");
    std::fs::write(&brim, vec![0; 7_000_000]).unwrap();
    let bridge = cached.bridge_on(&disk.path(), &[]).await;
    is_right(&cached, &bridge).await;
    let cache = bridge.get("/cache").await.json();
    assert_eq!(cache["state"], "Trouble");
    let trouble = cache["trouble"].as_str().unwrap();
    assert!(
        trouble.contains("no file of 6000000 bytes can be made") && trouble.contains("No space left"),
        "{trouble}"
    );
    assert!(bridge.metrics().await.contains("ipxe_bridge_cache_enabled 0"));
    assert!(bridge.log().contains("the cache cannot be used, files are passed through"));
    assert_eq!(bridge.get("/readyz").await.status, 200);

    std::fs::remove_file(&brim).unwrap();
    eventually("the disk is used again", Duration::from_secs(30), async || {
        is_right(&cached, &bridge).await;
        let cache = bridge.get("/cache").await.json();
        cache["state"] == "InUse" && cache["artifacts"].as_array().unwrap().len() == 2
    })
    .await;
    filled(&bridge, 2).await;
    // Others fill the disk behind the back of the limit: what is not in use goes.
    std::fs::write(&brim, vec![0; 1_500_000]).unwrap();
    cached.site.upstream.new_build();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    is_right(&cached, &bridge).await;
}

#[tokio::test]
async fn trouble_is_over_when_the_disk_is_well_although_no_machine_asks_again() {
    let Some(disk) = SmallDisk::mount(8) else {
        return;
    };
    let cached = Cached::start(6_000_000).await;
    let brim = disk.folder.path().join("others");
    std::fs::write(&brim, vec![0; 7_000_000]).unwrap();
    let bridge = cached.bridge_on(&disk.path(), &[]).await;
    is_right(&cached, &bridge).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(
        bridge.get("/cache").await.json()["state"],
        "Trouble",
        "the disk is still full"
    );
    std::fs::remove_file(&brim).unwrap();
    eventually("the trouble is over", Duration::from_secs(15), async || {
        bridge.metrics().await.contains("ipxe_bridge_cache_enabled 1")
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_is_removed_under_the_server_is_made_anew_and_locked() {
    let cached = Cached::start(3_000_000).await;
    let bridge = cached.bridge(&[]).await;
    let folder = cached.folder.path();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        match entry.file_type().unwrap().is_dir() {
            true => std::fs::remove_dir_all(entry.path()).unwrap(),
            false => std::fs::remove_file(entry.path()).unwrap(),
        }
    }
    is_right(&cached, &bridge).await;
    filled(&bridge, 2).await;
    assert_eq!(bridge.get("/cache").await.json()["state"], "InUse");
    assert_eq!(files(folder, "json").len(), 2);
    let second = cached.bridge(&[]).await;
    let cache = second.get("/cache").await.json();
    assert!(
        cache["trouble"]
            .as_str()
            .unwrap()
            .contains("another process uses this folder"),
        "{cache}"
    );
}

#[tokio::test]
async fn a_disk_that_fails_in_the_middle_of_a_fill_cuts_no_machine() {
    let cached = Cached::start(8_000_000).await;
    cached.slow(Target::Rootfs, 4_000_000);
    let bridge = cached.bridge(&[]).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(bridge.pid()).unwrap());
    let limit = |bytes| Rlimit {
        current: bytes,
        maximum: None,
    };
    let fetching = async { fetch(&bridge, ROOTFS, &[]).await.expect("not cut") };
    let failing = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        // From now on every write behind the first byte fails.
        rustix::process::prlimit(pid, Resource::Fsize, limit(Some(1))).unwrap();
        cached.well(Target::Rootfs);
    };
    let late = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        fetch(&bridge, ROOTFS, &[("range", "bytes=200000-")]).await.expect("not cut")
    };
    let (whole, (), part) = futures::join!(fetching, failing, late);
    let expected = cached.expected(Target::Rootfs);
    assert!(whole.body == expected && part.body == expected[200_000..]);
    // The log has a limit too: what it has to say stands in the API.
    let cache = bridge.get("/cache").await.json();
    assert!(
        cache["trouble"]
            .as_str()
            .unwrap()
            .contains("a file cannot be written: File too large"),
        "{cache}"
    );
    is_right(&cached, &bridge).await;
    rustix::process::prlimit(pid, Resource::Fsize, limit(None)).unwrap();
    eventually("the disk is used again", Duration::from_secs(30), async || {
        is_right(&cached, &bridge).await;
        bridge.get("/cache").await.json()["state"] == "InUse"
    })
    .await;
}

#[tokio::test]
async fn a_read_only_disk_is_passed_by_and_used_again_when_it_can_be_written() {
    let Some(disk) = SmallDisk::mount(32) else {
        return;
    };
    let cached = Cached::start(3_000_000).await;
    disk.remount("ro");
    let bridge = cached.bridge_on(&disk.path(), &[]).await;
    is_right(&cached, &bridge).await;
    let cache = bridge.get("/cache").await.json();
    assert!(
        cache["state"] == "Trouble" && cache["trouble"].as_str().unwrap().contains("Read-only"),
        "{cache}"
    );
    disk.remount("rw");
    eventually("it is used again by itself", Duration::from_secs(10), async || {
        bridge.get("/cache").await.json()["state"] == "InUse"
    })
    .await;
    is_right(&cached, &bridge).await;
    filled(&bridge, 2).await;
}

#[tokio::test]
async fn of_two_processes_on_one_folder_one_uses_it_and_the_other_takes_over() {
    let cached = Cached::start(3_000_000).await;
    let mut first = cached.bridge(&[]).await;
    is_right(&cached, &first).await;
    filled(&first, 2).await;
    let second = cached.bridge(&[]).await;
    is_right(&cached, &second).await;
    let cache = second.get("/cache").await.json();
    assert!(
        cache["trouble"]
            .as_str()
            .unwrap()
            .contains("another process uses this folder"),
        "{cache}"
    );
    is_right(&cached, &first).await;
    first.terminate();
    first.ended(Duration::from_secs(10)).await;
    eventually("the second one takes over", Duration::from_secs(15), async || {
        second.get("/cache").await.json()["state"] == "InUse"
    })
    .await;
    let fetched = cached.fetched(Target::Rootfs).0;
    is_right(&cached, &second).await;
    assert_eq!(cached.fetched(Target::Rootfs).0, fetched, "with what the first one left");
}

#[tokio::test]
async fn a_folder_of_another_owner_is_passed_by() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;

    let is_root = match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err("not root".to_owned()),
    };
    if require("root, to become somebody else,", is_root).is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Where everybody can reach it, and in which nobody else may write.
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("ipxe-bridge");
    std::fs::copy(env!("CARGO_BIN_EXE_ipxe-bridge"), &program).unwrap();
    let output = Command::new(&program)
        .args(["cache", "prune", "--cache-dir"])
        .arg(folder.path())
        .uid(12345)
        .gid(12345)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && error.contains("the folder cannot be made: Permission denied"),
        "{error}"
    );
}
