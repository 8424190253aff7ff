//! Disks of "installed" machines: whoever boots from one prints [`MARKER`] on the serial line and powers the machine off.
//!
//! The programs on them are so small that their machine code stands here, with the assembly it was made from.

use std::fs;
use std::path::{Path, PathBuf};

/// What a machine prints that came up from its disk.
pub const MARKER: &str = "DISK-OK";

const SECTOR: usize = 512;

/// Writes the marker to COM1, then asks the BIOS to power off. Loaded at 0x7c00 in real mode.
#[rustfmt::skip]
const BOOT_SECTOR: [u8; 45] = [
    0x31, 0xc0,             //       xor  ax, ax
    0x8e, 0xd8,             //       mov  ds, ax
    0xfc,                   //       cld
    0xbe, 0x2d, 0x7c,       //       mov  si, 0x7c2d     the text behind this code
    0xac,                   // next: lodsb
    0x84, 0xc0,             //       test al, al
    0x74, 0x12,             //       jz   done
    0x88, 0xc4,             //       mov  ah, al
    0xba, 0xfd, 0x03,       //       mov  dx, 0x3fd      COM1's line status
    0xec,                   // busy: in   al, dx
    0xa8, 0x20,             //       test al, 0x20
    0x74, 0xfb,             //       jz   busy
    0xba, 0xf8, 0x03,       //       mov  dx, 0x3f8      COM1's data
    0x88, 0xe0,             //       mov  al, ah
    0xee,                   //       out  dx, al
    0xeb, 0xe9,             //       jmp  next
    0xb8, 0x07, 0x53,       // done: mov  ax, 0x5307     APM: set power state
    0xbb, 0x01, 0x00,       //       mov  bx, 1          of all devices
    0xb9, 0x03, 0x00,       //       mov  cx, 3          to off
    0xcd, 0x15,             //       int  0x15
    0xf4,                   // hang: hlt
    0xeb, 0xfd,             //       jmp  hang
];

/// Prints the text behind it on the firmware's console, then shuts the machine down. Runs wherever it is loaded.
#[rustfmt::skip]
const EFI_CODE: [u8; 45] = [
    0x53,                                       //       push rbx
    0x48, 0x83, 0xec, 0x20,                     //       sub  rsp, 32
    0x48, 0x89, 0xd3,                           //       mov  rbx, rdx          the system table
    0x48, 0x8b, 0x4a, 0x40,                     //       mov  rcx, [rdx+0x40]   ConOut
    0x48, 0x8d, 0x15, 0x1a, 0x00, 0x00, 0x00,   //       lea  rdx, [rip+0x1a]   the text
    0xff, 0x51, 0x08,                           //       call [rcx+0x08]        OutputString
    0x48, 0x8b, 0x43, 0x58,                     //       mov  rax, [rbx+0x58]   RuntimeServices
    0xb9, 0x02, 0x00, 0x00, 0x00,               //       mov  ecx, 2            EfiResetShutdown
    0x31, 0xd2,                                 //       xor  edx, edx
    0x45, 0x31, 0xc0,                           //       xor  r8d, r8d
    0x45, 0x31, 0xc9,                           //       xor  r9d, r9d
    0xff, 0x50, 0x68,                           //       call [rax+0x68]        ResetSystem
    0xf4,                                       // hang: hlt
    0xeb, 0xfd,                                 //       jmp  hang
];

/// A disk that a BIOS boots: its first sector is all there is to run.
pub fn disk_bios(dir: &Path) -> PathBuf {
    let mut sector = BOOT_SECTOR.to_vec();
    sector.extend(format!("\r\n{MARKER}\r\n\0").bytes());
    sector.resize(SECTOR, 0);
    sector[SECTOR - 2..].copy_from_slice(&[0x55, 0xaa]);
    let path = dir.join("bios.img");
    fs::write(&path, sector).unwrap();
    // Firmware wants more than a single sector to call it a disk; a hole costs nothing.
    let image = fs::File::options().write(true).open(&path).unwrap();
    image.set_len(1 << 20).unwrap();
    path
}

/// A disk that UEFI boots: a folder, which QEMU shows as a FAT partition with this content.
pub fn disk_uefi(dir: &Path) -> PathBuf {
    let root = dir.join("uefi");
    let boot = root.join("EFI/BOOT");
    fs::create_dir_all(&boot).unwrap();
    fs::write(boot.join("BOOTX64.EFI"), efi_program()).unwrap();
    root
}

/// The smallest PE32+ image that EDK2 loads: headers in the first sector, code and text as the only section in the second.
fn efi_program() -> Vec<u8> {
    let mut image = b"MZ".to_vec();
    image.resize(0x3c, 0);
    image.extend(0x40_u32.to_le_bytes()); // where the PE header starts
    image.extend(b"PE\0\0");
    for word in [0x8664_u16, 1, 0, 0, 0, 0, 0, 0, 240, 0x22] {
        image.extend(word.to_le_bytes()); // x86-64, one section, size of the next header, executable
    }
    image.extend([0x0b, 0x02, 0, 0]); // PE32+
    for word in [
        0x200_u32, 0, 0, 0x1000, 0x1000, // code: size, entry, base
        0, 0, 0x1000, 0x200, // image base, alignment in memory and in the file
        0, 0, 0, 0, // versions
        0x2000, 0x200, 0, 10, // size of image and headers, no checksum, EFI application
        0, 0, 0, 0, 0, 0, 0, 0, 0, 16, // stack and heap are the firmware's; sixteen directories
    ] {
        image.extend(word.to_le_bytes());
    }
    image.extend([0; 16 * 8]); // none of the directories is used, relocations neither
    image.extend(b".text\0\0\0");
    for word in [0x200_u32, 0x1000, 0x200, 0x200, 0, 0, 0, 0x6000_0020] {
        image.extend(word.to_le_bytes()); // sizes and places in memory and file; code that may run and be read
    }
    image.resize(SECTOR, 0);
    image.extend(EFI_CODE);
    for unit in format!("\r\n{MARKER}\r\n\0").encode_utf16() {
        image.extend(unit.to_le_bytes());
    }
    image.resize(2 * SECTOR, 0);
    image
}
