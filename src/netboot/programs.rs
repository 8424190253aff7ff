//! Boot programs: what a folder holds, and which of it suits which machine.
//!
//! Pure: names and bytes come in, a table goes out that never changes. Programs are told by what is in them, not by their names, and
//! are handed out as they are: a changed byte would break a signature.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use strum::VariantArray as _;

use super::architecture::Platform;

/// What a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// For what it was made; `None` for files that are only handed out.
    pub platform: Option<Platform>,
    /// The version of iPXE, where it can be read.
    pub version: Option<String>,
    /// Whether it carries a signature for Secure Boot. Whose is the firmware's to decide.
    pub is_signed: bool,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A fixed table of files by name, which is the path below the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Programs {
    files: BTreeMap<String, Program>,
    best: BTreeMap<Platform, [String; 2]>,
}

impl Programs {
    /// Looks at each file, and chooses for each platform.
    pub fn new(files: impl IntoIterator<Item = (String, Bytes)>) -> Self {
        let files: BTreeMap<_, _> = files.into_iter().map(|(name, bytes)| (name, Program::of(bytes))).collect();
        let choose = |platform, native| {
            let candidates = files.iter().filter(|(_, program)| program.platform == Some(platform));
            // Of two alike the one nearer to the top counts: what somebody put away in a folder below is not what is to be booted.
            let ranked = candidates
                .filter_map(|(name, program)| Some((rank(name, program, native, &files)?, name.matches('/').count(), name)));
            ranked.min().map(|(_, _, name)| name.clone())
        };
        let best = Platform::VARIANTS
            .iter()
            .filter_map(|platform| Some((*platform, [choose(*platform, false)?, choose(*platform, true)?])));
        Self {
            best: best.collect(),
            files,
        }
    }

    /// The name of the program for a machine; iPXE with drivers of its own is preferred where that is asked for.
    pub fn best(&self, platform: Platform, native_drivers: bool) -> Option<&str> {
        Some(&self.best.get(&platform)?[usize::from(native_drivers)])
    }

    /// A file.
    pub fn get(&self, name: &str) -> Option<&Program> {
        self.files.get(name)
    }

    /// Every file.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Program)> {
        self.files.iter().map(|(name, program)| (name.as_str(), program))
    }

    /// Whether no machine could be given a program.
    pub fn is_empty(&self) -> bool {
        self.best.is_empty()
    }

    /// Platforms that have a program.
    pub fn platforms(&self) -> impl Iterator<Item = Platform> {
        self.best.keys().copied()
    }

    /// Platforms of today's servers without a program.
    pub fn missing(&self) -> impl Iterator<Item = Platform> {
        [Platform::Bios, Platform::X64, Platform::Arm64]
            .into_iter()
            .filter(|platform| !self.best.contains_key(platform))
    }

    /// Shims that start nothing, each with what it would load, which is not there.
    pub fn incomplete(&self) -> impl Iterator<Item = (&str, String)> {
        let shims = self.files.iter().filter(|(_, program)| program.platform.is_some());
        shims.filter_map(|(name, program)| {
            let loader = loader(name)?;
            (!loads(program, &loader, &self.files)).then_some((name.as_str(), loader))
        })
    }
}

/// For people: `x86_64 x86_64-sb/snponly-shim.efi (signed), bios undionly.kpxe`.
impl fmt::Display for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (platform, [name, _])) in self.best.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{platform} {name}")?;
            let program = &self.files[name];
            let version = program.version.as_ref().map(|version| format!("iPXE {version}"));
            let signed = program.is_signed.then(|| "signed".to_owned());
            let known: Vec<_> = version.into_iter().chain(signed).collect();
            if !known.is_empty() {
                write!(f, " ({})", known.join(", "))?;
            }
        }
        Ok(())
    }
}

/// Smaller is better; `None` for a program that would not start a machine by itself.
fn rank(name: &str, program: &Program, native: bool, files: &BTreeMap<String, Program>) -> Option<u8> {
    let (folder, base) = name.rsplit_once('/').map_or(("", name), |(folder, base)| (folder, base));
    let is_native = base.starts_with("ipxe") && !base.contains("snponly");
    let by_drivers = u8::from(is_native != native);
    if program.platform == Some(Platform::Bios) {
        let order = [
            "undionly.kpxe",
            "undionly.kkpxe",
            "undionly.pxe",
            "ipxe.kpxe",
            "ipxe.pxe",
            "lpxelinux.0",
            "pxelinux.0",
        ];
        return order
            .iter()
            .position(|known| *known == base)
            .and_then(|place| u8::try_from(place).ok());
    }
    if base.contains("shim") {
        return loads(program, &loader(name)?, files).then_some(by_drivers);
    }
    let is_ipxe = base.contains("ipxe") || base.contains("snponly") || folder.contains("ipxe") || program.version.is_some();
    // Signed programs behind their shim first, then the others of that kind.
    is_ipxe.then_some(2 + 2 * by_drivers + u8::from(!program.is_signed))
}

/// What a shim loads, as a path: it takes its own name without `-shim`, so that must lie beside it.
fn loader(name: &str) -> Option<String> {
    let (start, rest) = name.rsplit_once("-shim")?;
    (!rest.contains('/')).then(|| format!("{start}.efi"))
}

fn loads(shim: &Program, loader: &str, files: &BTreeMap<String, Program>) -> bool {
    files.get(loader).is_some_and(|loader| loader.platform == shim.platform)
}

impl Program {
    fn of(bytes: Bytes) -> Self {
        let efi = efi(&bytes);
        Self {
            platform: efi
                .map(|(platform, _)| platform)
                .or_else(|| is_bios(&bytes).then_some(Platform::Bios)),
            is_signed: efi.is_some_and(|(_, is_signed)| is_signed),
            version: efi.and_then(|_| version(&bytes)),
            bytes,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The machine of an EFI application and whether it has a table of certificates (Microsoft PE format, "Optional Header").
fn efi(bytes: &[u8]) -> Option<(Platform, bool)> {
    // A Linux kernel that is also a BIOS program begins in the same way, and has no PE header where this points.
    if bytes.get(..2) != Some(b"MZ") {
        return None;
    }
    let header = usize::try_from(u32_at(bytes, 0x3c)?).ok()?;
    if bytes.get(header..header.checked_add(4)?) != Some(b"PE\0\0") {
        return None;
    }
    let platform = match u16_at(bytes, header + 4)? {
        0x014c => Platform::X86,
        0x8664 => Platform::X64,
        0x01c0 | 0x01c2 | 0x01c4 => Platform::Arm32,
        0xaa64 => Platform::Arm64,
        0x5032 => Platform::RiscV32,
        0x5064 => Platform::RiscV64,
        0x6232 => Platform::Loong32,
        0x6264 => Platform::Loong64,
        _ => return None,
    };
    let optional = header + 24;
    let directories = match u16_at(bytes, optional)? {
        0x010b => optional + 96,
        0x020b => optional + 112,
        _ => return None,
    };
    // The fifth directory is that of certificates.
    let size = u32_at(bytes, directories + 4 * 8 + 4).unwrap_or(0);
    Some((platform, size > 0))
}

/// A network boot program of a BIOS is started at its first byte: iPXE's and PXELINUX's begin with a jump and hold a known word.
fn is_bios(bytes: &[u8]) -> bool {
    let has = |word: &[u8]| {
        bytes
            .get(..64 * 1024)
            .unwrap_or(bytes)
            .windows(word.len())
            .any(|window| window == word)
    };
    let jumps = matches!(bytes.first(), Some(0xea | 0xeb | 0xe9 | 0xfa | 0xfc | 0x66 | 0x90));
    jumps && (has(b"iPXE") || has(b"PXELINUX") || has(b"UNDI"))
}

/// The version of iPXE: in the line about it for revocations (SBAT), which programs have since 2023; older ones hold it as text of two
/// bytes a character. Programs for a BIOS are packed and tell none.
fn version(bytes: &[u8]) -> Option<String> {
    sbat(bytes).or_else(|| {
        let starts = bytes.windows(4).enumerate();
        let starts = starts.filter(|(_, window)| matches!(window, [digit, 0, b'.', 0] if digit.is_ascii_digit()));
        starts
            .map(|(at, _)| wide_text(&bytes[at..]))
            .find_map(|text| leading_version(&text))
    })
}

/// `ipxe,1,iPXE,snponly.efi,1.21.1+git…,https://ipxe.org` (shim's SBAT.md).
fn sbat(bytes: &[u8]) -> Option<String> {
    const START: &[u8] = b"ipxe,";
    let at = bytes.windows(START.len()).position(|window| window == START)?;
    let line: Vec<u8> = bytes[at..]
        .iter()
        .copied()
        .take(256)
        .take_while(u8::is_ascii_graphic)
        .collect();
    let line = String::from_utf8(line).ok()?;
    leading_version(line.split(',').nth(4)?)
}

fn wide_text(bytes: &[u8]) -> String {
    let readable = bytes.chunks_exact(2).map_while(|unit| match unit {
        [byte, 0] if byte.is_ascii_graphic() => Some(char::from(*byte)),
        _ => None,
    });
    readable.take(64).collect()
}

/// `1.21.1+git-…` at the beginning of a text: three numbers.
fn leading_version(text: &str) -> Option<String> {
    let core = text.split(['+', '-', '(']).next()?;
    let numbers: Vec<_> = core.split('.').collect();
    let is_version = numbers.len() == 3
        && numbers
            .iter()
            .all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    is_version.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An EFI program of a machine type, signed or not, that names a version.
    pub(crate) fn efi_program(machine: u16, signed: bool, version: &str) -> Bytes {
        let mut bytes = vec![0; 0x200];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
        bytes[0x98..0x9a].copy_from_slice(&0x020bu16.to_le_bytes());
        bytes[0x98 + 112 + 36] = u8::from(signed);
        bytes.extend(version.bytes().flat_map(|byte| [byte, 0]));
        bytes.into()
    }

    fn bios() -> Bytes {
        Bytes::from_static(b"\xea\x05\x00\xc0\x07 iPXE")
    }

    fn folder(names: &[(&str, Bytes)]) -> Programs {
        Programs::new(names.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())))
    }

    #[test]
    fn of_two_alike_the_one_nearer_to_the_top_counts() {
        let program = || efi_program(0x8664, false, "");
        let programs = folder(&[("backup/snponly.efi", program()), ("snponly.efi", program())]);
        assert_eq!(programs.best(Platform::X64, false), Some("snponly.efi"));
    }

    #[test]
    fn every_layout_gives_each_platform_its_program() {
        let (x64, arm, x86) = (
            || efi_program(0x8664, false, ""),
            || efi_program(0xaa64, false, ""),
            || efi_program(0x14c, false, ""),
        );
        let signed = |machine| efi_program(machine, true, "");
        let debian = folder(&[
            ("undionly.kpxe", bios()),
            ("ipxe.efi", x64()),
            ("snponly.efi", x64()),
            ("ipxe-arm64.efi", arm()),
            ("ipxe.pxe", bios()),
        ]);
        assert_eq!(debian.best(Platform::Bios, false), Some("undionly.kpxe"));
        assert_eq!(debian.best(Platform::X64, false), Some("snponly.efi"));
        assert_eq!(debian.best(Platform::X64, true), Some("ipxe.efi"));
        assert_eq!(debian.best(Platform::Arm64, false), Some("ipxe-arm64.efi"));
        assert_eq!(debian.best(Platform::X86, false), None);
        assert_eq!(debian.missing().count(), 0);

        let fedora = folder(&[
            ("undionly.kpxe", bios()),
            ("ipxe-x86_64.efi", x64()),
            ("ipxe-snponly-x86_64.efi", x64()),
            ("ipxe-i386.efi", x86()),
            ("ipxe-snponly-i386.efi", x86()),
            ("arm64-efi/ipxe.efi", arm()),
            ("arm64-efi/snponly.efi", arm()),
        ]);
        assert_eq!(fedora.best(Platform::X64, false), Some("ipxe-snponly-x86_64.efi"));
        assert_eq!(fedora.best(Platform::X64, true), Some("ipxe-x86_64.efi"));
        assert_eq!(fedora.best(Platform::X86, false), Some("ipxe-snponly-i386.efi"));
        assert_eq!(fedora.best(Platform::Arm64, false), Some("arm64-efi/snponly.efi"));

        let release = folder(&[
            ("undionly.kpxe", bios()),
            ("x86_64/snponly.efi", x64()),
            ("x86_64/ipxe.efi", x64()),
            ("x86_64-sb/snponly.efi", signed(0x8664)),
            ("x86_64-sb/ipxe.efi", signed(0x8664)),
            ("x86_64-sb/shimx64.efi", signed(0x8664)),
            ("x86_64-sb/ipxe-shim.efi", signed(0x8664)),
            ("x86_64-sb/snponly-shim.efi", signed(0x8664)),
            ("arm64-sb/snponly-shim.efi", signed(0xaa64)),
            ("arm64-sb/snponly.efi", signed(0xaa64)),
            ("riscv64/snponly.efi", efi_program(0x5064, false, "")),
            ("loong64/ipxe.efi", efi_program(0x6264, false, "")),
        ]);
        assert_eq!(release.best(Platform::X64, false), Some("x86_64-sb/snponly-shim.efi"));
        assert_eq!(release.best(Platform::X64, true), Some("x86_64-sb/ipxe-shim.efi"));
        assert_eq!(release.incomplete().count(), 0);
        assert_eq!(release.best(Platform::Arm64, false), Some("arm64-sb/snponly-shim.efi"));
        assert_eq!(release.best(Platform::RiscV64, false), Some("riscv64/snponly.efi"));
        assert_eq!(release.best(Platform::Loong64, false), Some("loong64/ipxe.efi"));
        assert!(
            release.to_string().contains("x86_64 x86_64-sb/snponly-shim.efi (signed)"),
            "{release}"
        );
    }

    #[test]
    fn a_shim_without_its_loader_starts_nothing() {
        let shim = folder(&[
            ("snponly-shim.efi", efi_program(0x8664, true, "")),
            ("shimx64.efi", efi_program(0x8664, true, "")),
        ]);
        assert!(shim.is_empty());
        let incomplete: Vec<_> = shim.incomplete().collect();
        assert_eq!(incomplete, [("snponly-shim.efi", "snponly.efi".to_owned())]);
        assert!(shim.get("snponly-shim.efi").is_some(), "it is handed out all the same");
    }

    #[test]
    fn a_version_is_read_where_it_stands() {
        for (text, version) in [
            ("\u{1}1.0.0+git-20190125.36a4c85-5.1", Some("1.0.0+git-20190125.36a4c85-5.1")),
            ("iPXE 1.21.1+", Some("1.21.1+")),
            ("iPXE initialising", None),
            ("10.0", None),
        ] {
            let program = Program::of(efi_program(0x8664, false, text));
            assert_eq!(program.version.as_deref(), version, "{text}");
        }
        let mut sbat = efi_program(0x8664, false, "").to_vec();
        sbat.extend(b"\0\0sbat,1,SBAT Version,sbat\nipxe,1,iPXE,snponly.efi,2.0.0,https://ipxe.org\n");
        assert_eq!(Program::of(sbat.into()).version.as_deref(), Some("2.0.0"));
    }

    #[test]
    fn other_files_are_for_no_machine() {
        for bytes in [&b""[..], b"MZ", b"#!ipxe\n", b"MZ\0\0PE", b"\xea", &[b'M'; 100]] {
            assert_eq!(Program::of(Bytes::copy_from_slice(bytes)).platform, None);
        }
        let mut endless = b"MZ".to_vec();
        endless.resize(0x3c, 0);
        endless.extend([0xff; 4]);
        assert_eq!(Program::of(endless.into()).platform, None);
    }
}
