//! How a machine came to the bridge: what it was told by DHCP, and the boot program that it fetched. It travels in the address of the script,
//! as those who know it and the bridge may be two processes, and a DHCP packet holds an address of 127 bytes.
//!
//! ```text
//! 19ab8c9d0e1                   when it was told, in milliseconds since 1970 (hexadecimal)
//! 19ab8c9d0e1-t-3100-240-173792 and then the program: by t(ftp) or h(ttp), milliseconds until it was asked for, milliseconds that it took
//!                               (nothing where that is not known), bytes
//! ```
//!
//! Whoever asks for a script may say what they like of their own way: it is shown, and decides nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use strum::Display;

/// The name of the parameter in an address.
pub const PARAMETER: &str = "way";
/// The longest text that is read.
const MAX_TEXT: usize = 64;
/// A machine that took longer than this, in milliseconds, has another boot's way in its address; a clock may be that far ahead.
const OLD: i64 = 3_600_000;

/// What happened to a machine before it asked for a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Way {
    /// When it was told what to fetch, in milliseconds since 1970.
    pub told: i64,
    /// The boot program that it fetched; none if its firmware is iPXE already.
    pub program: Option<Fetched>,
}

/// A boot program that was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetched {
    /// By which protocol.
    pub by: Protocol,
    /// Milliseconds from when it was told until it asked.
    pub after: u32,
    /// Milliseconds that it took; `None` where nobody waited for its end.
    pub took: Option<u32>,
    /// Its size.
    pub bytes: u64,
}

/// By what a boot program was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display)]
#[strum(serialize_all = "UPPERCASE")]
pub enum Protocol {
    /// TFTP.
    Tftp,
    /// HTTP.
    Http,
}

impl Way {
    /// Whether it can be that of a boot that begins now, in milliseconds since 1970.
    pub fn is_of(&self, now: i64) -> bool {
        (now.saturating_sub(self.told)).abs() <= OLD
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.told)?;
        let Some(program) = &self.program else { return Ok(()) };
        let by = match program.by {
            Protocol::Tftp => 't',
            Protocol::Http => 'h',
        };
        write!(f, "-{by}-{}-", program.after)?;
        if let Some(took) = program.took {
            write!(f, "{took}")?;
        }
        write!(f, "-{}", program.bytes)
    }
}

impl From<Way> for String {
    fn from(way: Way) -> Self {
        way.to_string()
    }
}

impl TryFrom<String> for Way {
    type Error = NoWay;

    fn try_from(text: String) -> Result<Self, NoWay> {
        text.parse()
    }
}

/// A text that is no way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the way of a machine, such as 19ab8c9d0e1-t-3100-240-173792")]
pub struct NoWay;

impl FromStr for Way {
    type Err = NoWay;

    fn from_str(text: &str) -> Result<Self, NoWay> {
        if text.len() > MAX_TEXT || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(NoWay);
        }
        let parts: Vec<&str> = text.split('-').collect();
        let number = |text: &str| text.parse::<u64>().map_err(|_| NoWay);
        let short = |text: &str| number(text).and_then(|number| u32::try_from(number).map_err(|_| NoWay));
        let told = |text: &str| i64::from_str_radix(text, 16).map_err(|_| NoWay);
        match parts[..] {
            [at] => Ok(Self {
                told: told(at)?,
                program: None,
            }),
            [at, by, after, took, bytes] => Ok(Self {
                told: told(at)?,
                program: Some(Fetched {
                    by: match by {
                        "t" => Protocol::Tftp,
                        "h" => Protocol::Http,
                        _ => return Err(NoWay),
                    },
                    after: short(after)?,
                    took: match took {
                        "" => None,
                        took => Some(short(took)?),
                    },
                    bytes: number(bytes)?,
                }),
            }),
            _ => Err(NoWay),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_way_is_none() {
        for text in [
            "",
            "-",
            "xyz",
            "19ab8c9d0e1-t-1-2",
            "19ab8c9d0e1-u-1-2-3",
            "19ab8c9d0e1-t-1-2-3-4",
            "1-t-4294967296-2-3",
            "1-t--2-3",
            "1-t-1-2-",
            "${net0/mac}",
            "1\n2",
            "fffffffffffffffff",
        ] {
            assert_eq!(text.parse::<Way>(), Err(NoWay), "{text:?}");
        }
        assert_eq!("0".repeat(65).parse::<Way>(), Err(NoWay));
    }

    proptest! {
        #[test]
        fn a_way_comes_back_as_it_was(told in 0..i64::MAX, program in prop::option::of((any::<bool>(), any::<u32>(), prop::option::of(any::<u32>()), any::<u64>()))) {
            let program = program.map(|(tftp, after, took, bytes)| Fetched {
                by: if tftp { Protocol::Tftp } else { Protocol::Http },
                after,
                took,
                bytes,
            });
            let way = Way { told, program };
            prop_assert_eq!(way.to_string().parse(), Ok(way));
            // As replicas tell it to each other.
            let told = serde_json::to_string(&way).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Way>(&told).expect("a way"), way);
            // What it is pasted into has no syntax for these.
            prop_assert!(way.to_string().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && way.to_string().len() <= MAX_TEXT);
        }
    }
}
