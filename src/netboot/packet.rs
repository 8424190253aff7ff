//! DHCP packets of machines: only what a decision needs, and never a value that could be read two ways.
//!
//! The header and the walk over options are `dhcproto`'s. Options are taken as bytes: its typed forms read one architecture where a
//! packet may name several, and stop at shapes that firmware really sends.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use dhcproto::v4::{MAGIC, Opcode};

use crate::boot::mac::MacAddr;

/// Codes of options (RFC 2132, 3004, 3046, 4578; 175 is iPXE's).
pub mod code {
    #![expect(missing_docs, reason = "their names say it")]
    pub const VENDOR: u8 = 43;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER: u8 = 54;
    pub const CLASS: u8 = 60;
    pub const BOOT_FILE: u8 = 67;
    pub const USER_CLASS: u8 = 77;
    pub const RELAY: u8 = 82;
    pub const ARCHITECTURE: u8 = 93;
    pub const MACHINE_ID: u8 = 97;
    pub const IPXE: u8 = 175;
}

/// Options that are looked at; all others are passed over.
const READ: [u8; 8] = [
    code::OVERLOAD,
    code::MESSAGE_TYPE,
    code::CLASS,
    code::USER_CLASS,
    code::RELAY,
    code::ARCHITECTURE,
    code::MACHINE_ID,
    code::IPXE,
];
/// The features of iPXE that say it can fetch by HTTP and by HTTPS (`ipxe:src/include/ipxe/features.h`).
const IPXE_HTTP: u8 = 0x13;
const IPXE_HTTPS: u8 = 0x14;
/// Features are written from this sub-option on; smaller ones are settings.
const IPXE_FEATURES: std::ops::RangeInclusive<u8> = 0x10..=0x4f;

/// What a machine asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The machine's card.
    pub mac: MacAddr,
    /// Transaction.
    pub xid: u32,
    /// Flags, as they came.
    pub flags: u16,
    /// The machine's own address, if it has one.
    pub ciaddr: Ipv4Addr,
    /// The relay's address, or 0.0.0.0.
    pub giaddr: Ipv4Addr,
    /// Option 53.
    pub message_type: u8,
    /// Option 60.
    pub class: Vec<u8>,
    /// Option 93, every code.
    pub architectures: Vec<u16>,
    /// What asks is iPXE, by option 77 or 175.
    pub ipxe: Option<Ipxe>,
    /// Option 97, if it has the one form that RFC 4578 defines: a 0 and 16 bytes.
    pub machine_id: Option<[u8; 17]>,
    /// Option 82, which goes back to the relay as it is.
    pub relay: Option<Vec<u8>>,
}

/// What iPXE says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipxe {
    /// It listed its features, and HTTP is not one of them.
    pub lacks_http: bool,
    /// The same of HTTPS.
    pub lacks_https: bool,
}

/// Why bytes are not the request of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header and the magic cookie.
    #[error("shorter than 240 bytes")]
    Short,
    /// The magic cookie is not there.
    #[error("not DHCP: no magic cookie")]
    NotDhcp,
    /// An answer, or an operation that BOOTP does not have.
    #[error("not a request")]
    NotARequest,
    /// Not Ethernet, or not six bytes of address.
    #[error("not an Ethernet address")]
    NotEthernet,
    /// A group address.
    #[error("a group address in place of a card's")]
    NotUnicast,
    /// No option 53, or not one byte.
    #[error("no message type")]
    NoMessageType,
    /// Option 82 does not fit into an answer.
    #[error("option 82 of more than 255 bytes")]
    LongRelay,
}

impl Request {
    /// Reads a packet.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let message = Message::new(bytes).map_err(|_| Malformed::Short)?;
        if bytes.get(236..240) != Some(&MAGIC[..]) {
            return Err(Malformed::NotDhcp);
        }
        if message.opcode() != Opcode::BootRequest {
            return Err(Malformed::NotARequest);
        }
        // Before the address is taken: the decoder trusts this length.
        let (1, 6, Some(card)) = (bytes[1], message.hlen(), bytes.get(28..34)) else {
            return Err(Malformed::NotEthernet);
        };
        let card = <[u8; 6]>::try_from(card).map_err(|_| Malformed::NotEthernet)?;
        let mac = MacAddr::try_from(card).map_err(|_| Malformed::NotUnicast)?;

        let mut options = Options::of(bytes, &message);
        let Some(&[message_type]) = options.get(code::MESSAGE_TYPE) else {
            return Err(Malformed::NoMessageType);
        };
        let relay = options.take(code::RELAY);
        if relay.as_ref().is_some_and(|relay| relay.len() > 255) {
            return Err(Malformed::LongRelay);
        }
        Ok(Self {
            mac,
            xid: message.xid(),
            flags: message.flags().into(),
            ciaddr: message.ciaddr(),
            giaddr: message.giaddr(),
            message_type,
            architectures: options.get(code::ARCHITECTURE).map(architectures).unwrap_or_default(),
            ipxe: ipxe(options.get(code::USER_CLASS), options.get(code::IPXE)),
            machine_id: options
                .get(code::MACHINE_ID)
                .and_then(|id| <[u8; 17]>::try_from(id).ok())
                .filter(|id| id[0] == 0),
            class: options.take(code::CLASS).unwrap_or_default(),
            relay,
        })
    }
}

/// The sender of a packet, before anything else of it is known to be right.
pub fn chaddr(packet: &[u8]) -> Option<MacAddr> {
    MacAddr::from_octets(packet.get(28..34)?.try_into().ok()?)
}

/// The relay's address in bytes that may be a packet.
pub fn giaddr(bytes: &[u8]) -> Ipv4Addr {
    Message::new(bytes).map_or(Ipv4Addr::UNSPECIFIED, |message| message.giaddr())
}

/// The options that are looked at, each in the place that its code has in [`READ`].
#[derive(Default)]
struct Options([Option<Vec<u8>>; READ.len()]);

impl Options {
    /// Those of the `file` and `sname` fields follow where option 52 says that they are used so (RFC 2131 section 4.1); what comes in
    /// pieces is put together (RFC 3396).
    fn of(bytes: &[u8], message: &Message<'_>) -> Self {
        let mut found = Self::default();
        found.collect(message.opts());
        let overload = match found.get(code::OVERLOAD) {
            Some([overload @ 1..=3]) => *overload,
            _ => 0,
        };
        for (bit, field) in [(1, 108..236), (2, 44..108)] {
            if overload & bit != 0 {
                found.collect(DhcpOptionIterator::new(&bytes[field]));
            }
        }
        found
    }

    fn collect(&mut self, options: DhcpOptionIterator<'_>) {
        for option in options {
            let code: u8 = option.code().into();
            if let Some(place) = READ.iter().position(|read| *read == code) {
                self.0[place].get_or_insert_default().extend_from_slice(option.data());
            }
        }
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0[READ.iter().position(|read| *read == code)?].as_deref()
    }

    fn take(&mut self, code: u8) -> Option<Vec<u8>> {
        self.0[READ.iter().position(|read| *read == code)?].take()
    }
}

/// Option 93: two bytes a code.
fn architectures(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|code| u16::from_be_bytes([code[0], code[1]]))
        .collect()
}

/// Option 77 is iPXE's bare text, or a list in which each class has its length before it (RFC 3004).
fn ipxe(user_class: Option<&[u8]>, own: Option<&[u8]>) -> Option<Ipxe> {
    let names_ipxe = user_class.is_some_and(|bytes| bytes == b"iPXE" || classes(bytes).any(|class| class == b"iPXE"));
    let features: Vec<u8> = own
        .map(|bytes| {
            sub_options(bytes)
                .map(|(code, _)| code)
                .filter(|code| IPXE_FEATURES.contains(code))
                .collect()
        })
        .unwrap_or_default();
    let lacks = |feature| !features.is_empty() && !features.contains(&feature);
    (names_ipxe || own.is_some()).then(|| Ipxe {
        lacks_http: lacks(IPXE_HTTP),
        lacks_https: lacks(IPXE_HTTPS),
    })
}

fn classes(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first()?;
        let (class, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        Some(class)
    })
}

/// The options inside an option, such as 43 and 175: a code, a length, the value; 0 is padding, 255 the end.
fn sub_options(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        loop {
            match rest {
                [0, after @ ..] => rest = after,
                [255, ..] | [] | [_] => return None,
                [code, length, after @ ..] => {
                    let (value, after) = after.split_at_checked(usize::from(*length))?;
                    rest = after;
                    return Some((*code, value));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipxe_is_told_in_every_form() {
        let with_http = [0x13, 1, 1, 0x24, 1, 1, 0xeb, 3, 1, 21, 1];
        let with_both = [0x13, 1, 1, 0x14, 1, 1];
        for (user_class, own, expected) in [
            (Some(&b"iPXE"[..]), None, Some((false, false))),
            (Some(b"\x04iPXE"), None, Some((false, false))),
            (Some(b"\x03abc\x04iPXE"), None, Some((false, false))),
            (None, Some(&with_http[..]), Some((false, true))),
            (None, Some(&with_both), Some((false, false))),
            (Some(b"iPXE"), Some(&with_http), Some((false, true))),
            (Some(b"iPXE"), Some(&[0x24, 1, 1]), Some((true, true))),
            (None, Some(&[]), Some((false, false))),
            (None, Some(&[0xb1, 1, 1]), Some((false, false))),
            (Some(b"MSFT 5.0"), None, None),
            (Some(b"\xffiPXE"), None, None),
            (Some(b"gPXE"), None, None),
            (None, None, None),
        ] {
            assert_eq!(
                ipxe(user_class, own).map(|ipxe| (ipxe.lacks_http, ipxe.lacks_https)),
                expected,
                "{user_class:?} {own:?}"
            );
        }
    }

    #[test]
    fn sub_options_end_where_bytes_end() {
        let of = |bytes: &'static [u8]| sub_options(bytes).collect::<Vec<_>>();
        assert_eq!(of(&[0, 0, 6, 1, 8, 255, 9, 9]), [(6, &[8][..])]);
        assert_eq!(of(&[6, 200, 8]), []);
        assert_eq!(of(&[6]), []);
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn half_a_code_at_the_end_is_left_out() {
        assert_eq!(architectures(&[0, 7, 0, 9, 0]), [7, 9]);
    }
}
