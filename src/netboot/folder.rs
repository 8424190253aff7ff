//! Reads the folder of boot programs, and again when it changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;

use super::programs::Programs;

/// Boot programs have 70 KiB to 2 MiB; an image of a CD with all of them has some more.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// All files together. While a changed folder is read the one before is in memory as well.
const MAX_TOTAL: u64 = 128 * 1024 * 1024;
/// Folders in folders: iPXE's release and PXELINUX have one level.
const MAX_DEPTH: usize = 3;
/// Where distributions have their package of iPXE: Debian, Fedora.
const USUAL: [&str; 2] = ["/usr/lib/ipxe", "/usr/share/ipxe"];

/// The folder that counts when none is named.
pub fn usual() -> PathBuf {
    let found = USUAL.iter().find(|folder| Path::new(folder).is_dir());
    PathBuf::from(found.unwrap_or(&USUAL[0]))
}

/// Name, size and time of every file: as long as they are the same the files are.
type Listing = Vec<(String, PathBuf, u64, Option<SystemTime>)>;

/// A folder and how it was when it was read last.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    seen: Listing,
}

impl Folder {
    /// A folder that was not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: Vec::new() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The programs, if anything changed. What cannot be read is told and left out.
    pub fn read(&mut self) -> io::Result<Option<Programs>> {
        let mut listing = Vec::new();
        list(&self.path, "", 0, &mut listing)?;
        listing.sort();
        if listing == self.seen && !listing.is_empty() {
            return Ok(None);
        }
        let mut total = 0;
        let mut files = Vec::new();
        for (name, path, size, _) in &listing {
            total += size;
            if *size > MAX_FILE || total > MAX_TOTAL {
                tracing::warn!(file = %path.display(), "left out: boot programs have at most {MAX_FILE} bytes, {MAX_TOTAL} together");
                total -= size;
                continue;
            }
            match fs::read(path) {
                Ok(bytes) => files.push((name.clone(), Bytes::from(bytes))),
                Err(error) => tracing::warn!(file = %path.display(), %error, "left out: it cannot be read"),
            }
        }
        self.seen = listing;
        Ok(Some(Programs::new(files)))
    }
}

fn list(folder: &Path, prefix: &str, depth: usize, listing: &mut Listing) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Only names that stand in a URL and in a DHCP packet as they are.
        let Some(name) = entry
            .file_name()
            .to_str()
            .filter(|name| is_plain(name))
            .map(|name| format!("{prefix}{name}"))
        else {
            continue;
        };
        // Follows links, which both the release archive and Debian's package have.
        let Ok(metadata) = fs::metadata(entry.path()) else { continue };
        if metadata.is_dir() && depth < MAX_DEPTH {
            // A folder inside that cannot be listed does not hide the others.
            if let Err(error) = list(&entry.path(), &format!("{name}/"), depth + 1, listing) {
                tracing::warn!(folder = %entry.path().display(), %error, "left out: it cannot be listed");
            }
        } else if metadata.is_file() {
            listing.push((name, entry.path(), metadata.len(), metadata.modified().ok()));
        }
    }
    Ok(())
}

fn is_plain(name: &str) -> bool {
    !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._+".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_with_its_links_and_again_only_when_it_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
        fs::create_dir(folder.path().join("x86_64")).expect("made");
        write("x86_64/snponly.efi", "a");
        write(".hidden", "b");
        write("with blank", "c");
        std::os::unix::fs::symlink("x86_64/snponly.efi", folder.path().join("link.efi")).expect("linked");
        std::os::unix::fs::symlink("nowhere", folder.path().join("broken")).expect("linked");
        let mut read = Folder::new(folder.path().to_owned());
        let programs = read.read().expect("read").expect("changed");
        let names: Vec<_> = programs.files().map(|(name, _)| name).collect();
        assert_eq!(names, ["link.efi", "x86_64/snponly.efi"]);
        assert!(read.read().expect("read").is_none());
        write("undionly.kpxe", "longer");
        assert!(read.read().expect("read").expect("changed").get("undionly.kpxe").is_some());
        fs::remove_dir_all(folder.path()).expect("removed");
        assert!(read.read().is_err());
    }
}
