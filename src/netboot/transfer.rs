//! TFTP: a request, then one file on its way. Pure: packets and timeouts in, packets out.
//!
//! RFC 1350 and its options: 2347, 2348 `blksize`, 2349 `timeout` and `tsize`, 7440 `windowsize`. Read only. Data is sent again when
//! time is up, not for an acknowledgement that came twice (RFC 1123 section 4.2.3.1).

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use strum::IntoStaticStr;

const OP_READ: u16 = 1;
const OP_WRITE: u16 = 2;
const OP_DATA: u16 = 3;
const OP_ACK: u16 = 4;
const OP_ERROR: u16 = 5;
const OP_OPTIONS: u16 = 6;

/// A block without the option (RFC 1350).
const BLOCK: usize = 512;
/// The smallest block (RFC 2348).
const MIN_BLOCK: usize = 8;
/// The largest block that an Ethernet frame holds: BIOS firmware may be unable to put fragments together.
const MAX_BLOCK: usize = 1468;
/// Longest request (RFC 2347).
const MAX_REQUEST: usize = 512;
/// Most blocks on their way at once.
const MAX_WINDOW: u64 = 16;
/// The longest wait that a client may ask for, in seconds: with 255 a request in another's name would hold its place for 25 minutes.
const MAX_TIMEOUT: u64 = 10;
/// How often is sent what was never acknowledged: a request can be sent in another's name.
const UNPROVEN_ATTEMPTS: u32 = 6;
/// How often is sent what was not acknowledged, once anything was.
const ATTEMPTS: u32 = 12;
/// The first wait for an acknowledgement, which doubles up to the second; unless the client says how long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// The same before anything was acknowledged. UEFI and atftp repeat a lost acknowledgement after four and five seconds: there is time for three.
const LONGEST_FIRST_WAIT: Duration = Duration::from_secs(4);

/// A request to read a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadRequest {
    /// The file, as it is called in the request.
    pub name: String,
    options: Vec<(Opt, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opt {
    BlockSize,
    Timeout,
    Size,
    Window,
}

/// Why a packet starts no transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Refused {
    /// No request: not answered, for an answer could start an exchange without end.
    NotARequest,
    /// A request whose text cannot be read.
    Malformed,
    /// A request to write.
    Write,
    /// A mode other than octet: netascii would change the bytes of a program, and costs a copy of it for whoever asks.
    Mode,
}

impl Refused {
    /// What the client is told.
    pub fn packet(self) -> Option<Vec<u8>> {
        match self {
            Self::NotARequest => None,
            Self::Malformed => Some(error(4, "malformed request")),
            Self::Write => Some(error(2, "nothing can be written here")),
            Self::Mode => Some(error(4, "mode octet is expected")),
        }
    }
}

/// An error packet (RFC 1350 section 5).
pub fn error(code: u16, text: &str) -> Vec<u8> {
    let mut packet = OP_ERROR.to_be_bytes().to_vec();
    packet.extend(code.to_be_bytes());
    packet.extend(text.bytes());
    packet.push(0);
    packet
}

/// What a client is told that asks for a name that is not in the table.
pub fn not_found() -> Vec<u8> {
    error(1, "no such file")
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

impl ReadRequest {
    /// Reads the first packet of a client.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refused> {
        match word(bytes, 0) {
            Some(OP_READ) => {}
            Some(OP_WRITE) => return Err(Refused::Write),
            _ => return Err(Refused::NotARequest),
        }
        let rest = &bytes[2..];
        if rest.len() > MAX_REQUEST || rest.last() != Some(&0) {
            return Err(Refused::Malformed);
        }
        let mut texts = rest[..rest.len() - 1].split(|byte| *byte == 0).map(std::str::from_utf8);
        let mut next = || texts.next().transpose().map_err(|_| Refused::Malformed);
        let name = next()?.filter(|name| !name.is_empty()).ok_or(Refused::Malformed)?.to_owned();
        if !next()?.ok_or(Refused::Malformed)?.eq_ignore_ascii_case("octet") {
            return Err(Refused::Mode);
        }
        let mut options: Vec<(Opt, u64)> = Vec::new();
        // Unknown options and values that make no sense are left out of the answer, which refuses them (RFC 2347).
        while let (Some(option), Some(value)) = (next()?, next()?) {
            let option = match option.to_ascii_lowercase().as_str() {
                "blksize" => Opt::BlockSize,
                "timeout" => Opt::Timeout,
                "tsize" => Opt::Size,
                "windowsize" => Opt::Window,
                _ => continue,
            };
            let Ok(value) = value.parse::<u64>() else { continue };
            let in_range = match option {
                Opt::BlockSize => (8..=65464).contains(&value),
                Opt::Timeout => (1..=MAX_TIMEOUT).contains(&value),
                Opt::Window => (1..=65535).contains(&value),
                Opt::Size => true,
            };
            if in_range && !options.iter().any(|(known, _)| *known == option) {
                options.push((option, value));
            }
        }
        Ok(Self { name, options })
    }

    /// The name as the table has it: firmware and people write `/a`, `\a` and `./a` for `a`, and `a//b` for `a/b`. Nothing else is taken
    /// away, so that a way out of the folder is a name that is not there.
    pub fn table_name(&self) -> String {
        let parts = self.name.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".");
        parts.collect::<Vec<_>>().join("/")
    }
}

/// One file on its way to one client.
pub struct Transfer {
    data: Bytes,
    block: usize,
    window: u64,
    wait: Option<Duration>,
    /// The answer to the options, until block 0 is acknowledged.
    oack: Option<Vec<u8>>,
    proven: bool,
    /// Blocks are counted from 1, and never start over here: only the packets have 16 bits.
    acknowledged: u64,
    last: u64,
    attempt: u32,
    /// The window was sent again for an acknowledgement that came twice.
    repeated: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send what [`Transfer::packets`] gives, then wait.
    Send,
    /// Wait on.
    Wait,
    /// It is over.
    End(End),
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum End {
    /// Every byte was acknowledged.
    Complete,
    /// The client only wanted to know the size, as UEFI does first.
    SizeOnly,
    /// The client broke it off.
    Aborted,
    /// Every byte was sent, and the client did not say that the last ones came: most likely it has started what it fetched.
    Unconfirmed,
    /// The client was not heard of any more.
    Lost,
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} of {}", self.acknowledged, self.last)
    }
}

impl Transfer {
    /// A transfer of these bytes as the request wants it; [`packets`](Self::packets) are to be sent at once.
    pub fn new(request: &ReadRequest, data: Bytes) -> Self {
        let (mut block, mut window, mut wait) = (BLOCK, 1, None);
        let mut oack = OP_OPTIONS.to_be_bytes().to_vec();
        for (option, value) in &request.options {
            let (name, value) = match option {
                Opt::BlockSize => {
                    block = usize::try_from(*value).unwrap_or(MAX_BLOCK).clamp(MIN_BLOCK, MAX_BLOCK);
                    ("blksize", block as u64)
                }
                Opt::Timeout => {
                    wait = Some(Duration::from_secs(*value));
                    ("timeout", *value)
                }
                Opt::Size => ("tsize", data.len() as u64),
                Opt::Window => {
                    window = (*value).min(MAX_WINDOW);
                    ("windowsize", window)
                }
            };
            oack.extend(format!("{name}\0{value}\0").bytes());
        }
        Self {
            // A last block of less than full size ends it, if need be of none.
            last: (data.len() / block) as u64 + 1,
            data,
            block,
            window,
            wait,
            oack: (!request.options.is_empty()).then_some(oack),
            proven: false,
            acknowledged: 0,
            attempt: 1,
            repeated: false,
        }
    }

    /// How long to wait for the client.
    pub fn wait(&self) -> Duration {
        let longest = if self.proven { LONGEST_WAIT } else { LONGEST_FIRST_WAIT };
        self.wait
            .unwrap_or_else(|| (FIRST_WAIT * 2u32.saturating_pow(self.attempt - 1)).min(longest))
    }

    /// Bytes of the file that were acknowledged.
    pub fn sent(&self) -> u64 {
        (self.acknowledged * self.block as u64).min(self.data.len() as u64)
    }

    /// Size of the file.
    pub fn size(&self) -> u64 {
        self.data.len() as u64
    }

    /// Hands over every packet that is on its way now, one after the other, in a buffer of the caller.
    pub fn packets<E>(&self, buffer: &mut Vec<u8>, mut send: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if let Some(oack) = &self.oack {
            return send(oack);
        }
        let first = self.acknowledged + 1;
        for number in first..=self.last.min(self.acknowledged + self.window) {
            // Below the size of the file, which fits into memory.
            let start = (number - 1) as usize * self.block;
            let end = (start + self.block).min(self.data.len());
            buffer.clear();
            buffer.extend(OP_DATA.to_be_bytes());
            buffer.extend((number as u16).to_be_bytes());
            buffer.extend(&self.data[start..end]);
            send(buffer)?;
        }
        Ok(())
    }

    /// A packet of the client.
    pub fn receive(&mut self, packet: &[u8]) -> Step {
        match (word(packet, 0), word(packet, 2)) {
            (Some(OP_ACK), Some(block)) => self.acknowledge(block),
            (Some(OP_ERROR), _) => Step::End(match self.oack.is_some() {
                true => End::SizeOnly,
                false => End::Aborted,
            }),
            // Whatever it is, it is no part of this.
            _ => Step::Wait,
        }
    }

    fn acknowledge(&mut self, block: u16) -> Step {
        if self.oack.is_some() {
            return match block {
                0 => {
                    self.oack = None;
                    self.progress(0)
                }
                _ => Step::Wait,
            };
        }
        // How far this is ahead of what is acknowledged, in the arithmetic of the packets.
        let ahead = u64::from(block.wrapping_sub(self.acknowledged as u16));
        let on_their_way = self.window.min(self.last - self.acknowledged);
        match ahead {
            // With a window it tells that the first block of it was lost (RFC 7440 section 4); once, and no more until it goes on.
            0 if self.window > 1 && !self.repeated => {
                self.repeated = true;
                Step::Send
            }
            ahead if (1..=on_their_way).contains(&ahead) => self.progress(ahead),
            _ => Step::Wait,
        }
    }

    fn progress(&mut self, blocks: u64) -> Step {
        self.acknowledged += blocks;
        self.attempt = 1;
        self.proven = true;
        self.repeated = false;
        match self.acknowledged == self.last {
            true => Step::End(End::Complete),
            false => Step::Send,
        }
    }

    /// Nothing came within [`wait`](Self::wait).
    pub fn timeout(&mut self) -> Step {
        // The acknowledgement of the end is not repeated by every client: who has everything goes on.
        let is_end = self.proven && self.oack.is_none() && self.acknowledged + self.window >= self.last;
        let (most, end) = match (self.proven, is_end) {
            (true, true) => (UNPROVEN_ATTEMPTS, End::Unconfirmed),
            (true, false) => (ATTEMPTS, End::Lost),
            (false, _) => (UNPROVEN_ATTEMPTS, End::Lost),
        };
        if self.attempt >= most {
            return Step::End(end);
        }
        self.attempt += 1;
        Step::Send
    }
}

#[cfg(test)]
mod tests;
