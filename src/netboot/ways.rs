//! How each machine came so far: what it was told and what it fetched, until it asks for its script and takes that along.
//!
//! Bounded and short-lived. DHCP names machines by MAC address, TFTP and HTTP by the address that they have got: the kernel's table of
//! neighbours tells which is whose, and for machines behind a router their question on port 4011.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::boot::mac::MacAddr;
use crate::boot::way::{Fetched, Protocol, Way};

/// Machines that are remembered.
const MACHINES: usize = 4096;
/// Firmware that asks again within this time, in milliseconds, still boots; later it boots anew.
const ONE_BOOT: i64 = 120_000;

/// Milliseconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A file on its way to an address.
#[derive(Debug, Clone, Copy)]
pub struct Fetch {
    /// Who fetches it.
    pub client: IpAddr,
    /// By what.
    pub by: Protocol,
    /// When it was asked for, in milliseconds since 1970.
    pub asked: i64,
    /// Milliseconds that it took, where that can be told.
    pub took: Option<u32>,
    /// Its size.
    pub bytes: u64,
}

#[derive(Debug)]
struct Entry {
    way: Way,
    address: Option<Ipv4Addr>,
}

/// The ways of machines that boot now.
#[derive(Debug, Default)]
pub struct Ways(Mutex<HashMap<MacAddr, Entry>>);

impl Ways {
    fn lock(&self) -> MutexGuard<'_, HashMap<MacAddr, Entry>> {
        // Nothing that holds it can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine was told something to fetch. The first time counts: firmware asks several times, and on two ports.
    pub fn told(&self, mac: MacAddr, address: Option<Ipv4Addr>, is_firmware: bool, now: i64) {
        let mut machines = self.lock();
        if machines.len() >= MACHINES {
            machines.retain(|_, entry| now - entry.way.told < ONE_BOOT);
        }
        if machines.len() >= MACHINES {
            // A flood of invented machines: some way is not shown.
            machines.clear();
        }
        let new = || Entry {
            way: Way {
                told: now,
                program: None,
            },
            address: None,
        };
        // An address is one machine's: who had it before has it no more.
        if address.is_some() {
            let before = machines.values_mut().filter(|entry| entry.address == address);
            before.for_each(|entry| entry.address = None);
        }
        let entry = machines.entry(mac).or_insert_with(new);
        // Firmware that has its program and asks, boots anew.
        if now - entry.way.told >= ONE_BOOT || (is_firmware && entry.way.program.is_some()) {
            *entry = new();
        }
        entry.address = address.or(entry.address);
    }

    /// A machine has fetched a program.
    pub fn fetched(&self, fetch: Fetch) {
        let Some(mac) = self.owner(fetch.client) else { return };
        if let Some(entry) = self.lock().get_mut(&mac) {
            entry.way.program = Some(Fetched {
                by: fetch.by,
                after: u32::try_from((fetch.asked - entry.way.told).max(0)).unwrap_or(u32::MAX),
                took: fetch.took,
                bytes: fetch.bytes,
            });
        }
    }

    /// Whose an address is.
    fn owner(&self, client: IpAddr) -> Option<MacAddr> {
        let IpAddr::V4(client) = client else { return None };
        let mut asked = self
            .lock()
            .iter()
            .find(|(_, entry)| entry.address == Some(client))
            .map(|(mac, _)| *mac);
        if asked.is_none() {
            asked = neighbour(&std::fs::read_to_string("/proc/net/arp").ok()?, client);
        }
        asked
    }

    /// The way of who has an address, if it is known.
    pub fn of_address(&self, client: IpAddr, now: i64) -> Option<Way> {
        let mac = self.owner(client)?;
        let way = self.lock().get(&mac).map(|entry| entry.way);
        way.filter(|way| now - way.told < ONE_BOOT)
    }

    /// The way of a machine that asks for its script now.
    pub fn of(&self, mac: MacAddr, now: i64) -> Way {
        let known = self.lock().get(&mac).map(|entry| entry.way);
        known.filter(|way| now - way.told < ONE_BOOT).unwrap_or(Way {
            told: now,
            program: None,
        })
    }
}

/// Whose an address is, by the kernel's table: address, hardware type, flags, hardware address, mask, device.
fn neighbour(table: &str, address: Ipv4Addr) -> Option<MacAddr> {
    let address = address.to_string();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.into_iter()
        .find(|row| row.first() == Some(&address.as_str()))
        .and_then(|row| row.get(3)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(last: u8) -> MacAddr {
        MacAddr::from_octets([0x52, 0x54, 0, 0xcc, 0, last]).expect("unicast")
    }

    const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);

    fn fetch(asked: i64) -> Fetch {
        Fetch {
            client: CLIENT.into(),
            by: Protocol::Tftp,
            asked,
            took: Some(240),
            bytes: 1000,
        }
    }

    #[test]
    fn the_first_word_counts_and_a_new_boot_begins_anew() {
        let ways = Ways::default();
        ways.told(mac(1), None, true, 1_000);
        ways.told(mac(1), Some(CLIENT), true, 4_000);
        ways.fetched(fetch(4_100));
        // The program is iPXE, which asks as well.
        ways.told(mac(1), None, false, 6_000);
        let way = ways.of(mac(1), 6_000);
        let program = way.program.expect("a program");
        assert_eq!(
            (way.told, program.after, program.took, program.bytes),
            (1_000, 3_100, Some(240), 1_000)
        );
        ways.told(mac(1), None, true, 60_000);
        assert_eq!(
            ways.of(mac(1), 60_001),
            Way {
                told: 60_000,
                program: None
            }
        );
        assert_eq!(ways.of(mac(1), 60_000 + ONE_BOOT).told, 60_000 + ONE_BOOT, "too long ago");
        assert_eq!(ways.of(mac(2), 5).told, 5, "never told before");
    }

    #[test]
    fn an_address_is_the_machines_that_asked_from_it_last() {
        let ways = Ways::default();
        ways.told(mac(1), Some(CLIENT), true, 1_000);
        ways.told(mac(2), Some(CLIENT), true, 2_000);
        ways.fetched(fetch(2_100));
        assert_eq!(ways.of(mac(1), 2_200).program, None);
        assert!(ways.of(mac(2), 2_200).program.is_some());
    }

    #[test]
    fn memory_is_bounded() {
        let ways = Ways::default();
        for number in 0..10_000_u32 {
            let [_, b, c, d] = number.to_be_bytes();
            let mac = MacAddr::from_octets([0x52, 0x54, 0, b, c, d]).expect("unicast");
            ways.told(mac, None, true, i64::from(number));
        }
        assert!(ways.lock().len() <= MACHINES);
    }

    #[test]
    fn the_kernels_table_tells_whose_an_address_is() {
        let table = "IP address       HW type     Flags       HW address            Mask     Device\n\
            192.0.2.5        0x1         0x2         52:54:00:cc:00:09     *        eth0\n\
            192.0.2.50       0x1         0x2         52:54:00:cc:00:01     *        eth0\n\
            192.0.2.51       0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        assert_eq!(neighbour(table, CLIENT), Some(mac(1)));
        assert_eq!(neighbour(table, Ipv4Addr::new(192, 0, 2, 1)), None);
        assert_eq!(neighbour("", CLIENT), None);
    }
}
