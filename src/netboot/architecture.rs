//! What kind of machine asks, by the code of DHCP option 93.
//!
//! RFC 4578 with its errata, RFC 5970 and the IANA registry "Processor Architecture Types".

use strum::{Display, IntoStaticStr, VariantArray};

/// What a boot program must be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Display, IntoStaticStr, VariantArray)]
pub enum Platform {
    /// PC with BIOS.
    #[strum(serialize = "bios")]
    Bios,
    /// 32-bit x86 with UEFI.
    #[strum(serialize = "i386")]
    X86,
    /// 64-bit x86 with UEFI.
    #[strum(serialize = "x86_64")]
    X64,
    /// 32-bit ARM with UEFI.
    #[strum(serialize = "arm32")]
    Arm32,
    /// 64-bit ARM with UEFI.
    #[strum(serialize = "arm64")]
    Arm64,
    /// 32-bit RISC-V with UEFI.
    #[strum(serialize = "riscv32")]
    RiscV32,
    /// 64-bit RISC-V with UEFI.
    #[strum(serialize = "riscv64")]
    RiscV64,
    /// 32-bit LoongArch with UEFI.
    #[strum(serialize = "loong32")]
    Loong32,
    /// 64-bit LoongArch with UEFI.
    #[strum(serialize = "loong64")]
    Loong64,
}

impl Platform {
    /// The platform of a code, whether its firmware fetches by TFTP or by HTTP. Codes without a program that could start there (U-Boot,
    /// Itanium, MIPS and others) and codes that nobody has assigned give `None`.
    pub fn of_code(code: u16) -> Option<Self> {
        Some(match code {
            0x00 | 0x14 => Self::Bios,
            0x06 | 0x0f => Self::X86,
            // 7 and 9 had changed places in RFC 4578 until its erratum of 2016: firmware sends either.
            0x07 | 0x09 | 0x10 | 0x11 => Self::X64,
            0x0a | 0x12 => Self::Arm32,
            0x0b | 0x13 => Self::Arm64,
            0x19 | 0x1a => Self::RiscV32,
            0x1b | 0x1c => Self::RiscV64,
            0x25 | 0x26 => Self::Loong32,
            0x27 | 0x28 => Self::Loong64,
            _ => return None,
        })
    }

    /// The first code of the list that is known.
    pub fn of_codes(codes: &[u16]) -> Option<Self> {
        codes.iter().find_map(|code| Self::of_code(*code))
    }

    /// Whether its firmware is UEFI.
    pub fn is_uefi(self) -> bool {
        self != Self::Bios
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_assigned_code_has_its_platform_or_none() {
        use Platform::*;
        let table: [(&[u16], Platform); 9] = [
            (&[0x00, 0x14], Bios),
            (&[0x06, 0x0f], X86),
            (&[0x07, 0x09, 0x10, 0x11], X64),
            (&[0x0a, 0x12], Arm32),
            (&[0x0b, 0x13], Arm64),
            (&[0x19, 0x1a], RiscV32),
            (&[0x1b, 0x1c], RiscV64),
            (&[0x25, 0x26], Loong32),
            (&[0x27, 0x28], Loong64),
        ];
        for code in 0..=u16::MAX {
            let expected = table
                .iter()
                .find(|(codes, _)| codes.contains(&code))
                .map(|(_, platform)| *platform);
            assert_eq!(Platform::of_code(code), expected, "{code:#x}");
        }
    }

    #[test]
    fn the_first_known_code_of_several_counts() {
        assert_eq!(Platform::of_codes(&[0x15, 0x0b, 0x07]), Some(Platform::Arm64));
        assert_eq!(Platform::of_codes(&[0x15, 0x18]), None);
        assert_eq!(Platform::of_codes(&[]), None);
    }
}
