//! The ways to a machine's own disk.

use strum::{Display, EnumString, VariantNames};

/// How a machine is sent to its own disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Display, EnumString, VariantNames)]
#[strum(ascii_case_insensitive)]
pub enum LocalDisk {
    /// UEFI: back to the firmware's boot order with an error, which moves it on to the next entry; BIOS: the first disk directly.
    #[default]
    Platform,
    /// Back to the firmware with an error on both platforms.
    Exit,
    /// The first disk directly; UEFI builds of iPXE before 2024-03 cannot and go back to the firmware.
    Sanboot,
    /// No script at all: status 404.
    NotFound,
}

impl LocalDisk {
    /// The command; `None` where the answer is a 404. Never `exit 0`: UEFI firmware takes it for success and stops in its menu.
    pub fn command(self) -> Option<&'static str> {
        match self {
            Self::Platform => Some("iseq ${platform} efi && exit 1 || sanboot --no-describe --drive 0x80"),
            Self::Exit => Some("exit 1"),
            Self::Sanboot => Some("sanboot --no-describe --drive 0x80 || exit 1"),
            Self::NotFound => None,
        }
    }
}
