//! MAC addresses: every spelling people and firmware use goes in, one printed form comes out.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The longest text that can be a MAC address: `52%3A54%3A00%3Acc%3A00%3A01` is 27 characters, blanks around it are forgiven.
const MAX_TEXT: usize = 64;

/// A unicast 48-bit MAC address.
///
/// Parsed from `52:54:00:cc:00:01`, `52-54-00-CC-00-01`, `5254.00cc.0001`, `525400cc0001` and from percent-encoded colons, since
/// iPXE up to 1.21.1 sends `52%3A54%3A…` in a path. Printed as `52:54:00:cc:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// Why a text is not a MAC address. The message repeats the text only as far as it is harmless to print.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MacError {
    /// The text has another shape.
    #[error(
        "{0} is not a MAC address: expected twelve hexadecimal digits such as 52:54:00:cc:00:01, 52-54-00-cc-00-01, 5254.00cc.0001 or 525400cc0001"
    )]
    Shape(String),
    /// The address cannot belong to one machine's network card.
    #[error("{0} is not the address of a machine: expected a unicast MAC address, not {1}")]
    NotUnicast(MacAddr, &'static str),
}

impl MacAddr {
    /// An address of six bytes; `None` if it cannot be a machine's own.
    pub fn from_octets(octets: [u8; 6]) -> Option<Self> {
        let mac = Self(octets);
        mac.not_unicast().is_none().then_some(mac)
    }

    /// The six bytes in transmission order.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }

    /// `52-54-00-cc-00-01`: the form of iPXE's `:hexhyp`, safe in every path and file name.
    pub fn hyphenated(self) -> String {
        self.joined('-')
    }

    fn joined(self, separator: char) -> String {
        let mut text = String::with_capacity(17);
        for (index, byte) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(separator);
            }
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        text
    }

    /// Why this address cannot be a machine's own, if it cannot.
    fn not_unicast(self) -> Option<&'static str> {
        match self.0 {
            [0, 0, 0, 0, 0, 0] => Some("all zeros"),
            [255, 255, 255, 255, 255, 255] => Some("the broadcast address"),
            [first, ..] if first & 1 == 1 => Some("a multicast address"),
            _ => None,
        }
    }
}

impl TryFrom<[u8; 6]> for MacAddr {
    type Error = MacError;

    fn try_from(octets: [u8; 6]) -> Result<Self, MacError> {
        let mac = Self(octets);
        match mac.not_unicast() {
            Some(why) => Err(MacError::NotUnicast(mac, why)),
            None => Ok(mac),
        }
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let shape = || MacError::Shape(quoted(text));
        if text.len() > MAX_TEXT {
            return Err(shape());
        }
        let text = text.trim().replace("%3A", ":").replace("%3a", ":");
        let group = match text.bytes().find(|byte| !byte.is_ascii_hexdigit()) {
            None => 12,
            Some(b':' | b'-') => 2,
            Some(b'.') => 4,
            Some(_) => return Err(shape()),
        };
        let separator = match group {
            12 => None,
            _ => text.chars().nth(group),
        };
        let mut octets = [0; 6];
        let mut digits = 0;
        for (index, character) in text.chars().enumerate() {
            if group < 12 && index % (group + 1) == group {
                if Some(character) != separator {
                    return Err(shape());
                }
                continue;
            }
            let digit = character.to_digit(16).ok_or_else(shape)?;
            let octet: &mut u8 = octets.get_mut(digits / 2).ok_or_else(shape)?;
            *octet = *octet << 4 | digit as u8;
            digits += 1;
        }
        if digits != 12 || text.len() != 12 + 12 / group - 1 {
            return Err(shape());
        }
        Self::try_from(octets)
    }
}

/// The text in quotes, cut to a length that fits into a message, control characters escaped.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.joined(':'))
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_gives_the_same_address() {
        for text in [
            "52:54:00:cc:00:01",
            "52:54:00:CC:00:01",
            "52:54:00:cC:00:01",
            "52-54-00-cc-00-01",
            "52-54-00-CC-00-01",
            "5254.00cc.0001",
            "5254.00CC.0001",
            "525400cc0001",
            "525400CC0001",
            "52%3A54%3A00%3Acc%3A00%3A01",
            "52%3a54%3a00%3acc%3a00%3a01",
            "  52:54:00:cc:00:01",
            "52:54:00:cc:00:01\t",
            " 525400cc0001\n",
        ] {
            let mac: MacAddr = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(mac.to_string(), "52:54:00:cc:00:01", "{text:?}");
            assert_eq!(mac.hyphenated(), "52-54-00-cc-00-01");
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_is_expected() {
        let expected =
            "expected twelve hexadecimal digits such as 52:54:00:cc:00:01, 52-54-00-cc-00-01, 5254.00cc.0001 or 525400cc0001";
        for text in [
            "",
            " ",
            "52:54:00:cc:00",
            "52:54:00:cc:00:01:02",
            "52:54:00:cc:00:0",
            "52:54:00:cc:00:1",
            "52:54:00:cc:00:g1",
            "52:54-00:cc-00:01",
            "5254.00cc:0001",
            "5254-00cc-0001",
            "52.54.00.cc.00.01",
            "525400cc00012",
            "525400cc000",
            ":52:54:00:cc:00:01",
            "52:54:00:cc:00:01:",
            "52::54:00:cc:00:01",
            "52 54 00 cc 00 01",
            "${net0/mac}",
            "../../etc/passwd",
            "５2:54:00:cc:00:01",
            "localhost",
        ] {
            let error = text.parse::<MacAddr>().expect_err(text).to_string();
            assert_eq!(error, format!("{text:?} is not a MAC address: {expected}"));
        }
        let long = "5".repeat(100_000);
        assert!(long.parse::<MacAddr>().expect_err("long").to_string().len() < 300);
    }

    #[test]
    fn group_addresses_are_not_machines() {
        for (text, why) in [
            ("00:00:00:00:00:00", "all zeros"),
            ("ff:ff:ff:ff:ff:ff", "the broadcast address"),
            ("01:00:5e:00:00:01", "a multicast address"),
        ] {
            let error = text.parse::<MacAddr>().expect_err(text).to_string();
            assert_eq!(
                error,
                format!("{text} is not the address of a machine: expected a unicast MAC address, not {why}")
            );
        }
    }
}
