//! Interfaces of this machine: their IPv4 addresses now.

use std::io;
use std::net::Ipv4Addr;

use if_addrs::IfAddr;
use ipnet::Ipv4Net;

/// An interface that is there and has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's number for it: one that went and came back has another.
    pub index: u32,
    /// Its addresses, each with its network; never empty.
    pub addresses: Vec<Ipv4Net>,
}

/// An interface as a name was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It can be used.
    Usable(Interface),
    /// It is there and has no IPv4 address.
    NoAddress,
    /// There is none of this name; those that have an address are named.
    Absent(Vec<String>),
}

impl Interface {
    /// Looks a name up.
    pub fn find(name: &str) -> io::Result<Found> {
        let all = if_addrs::get_if_addrs()?;
        let of_name = all.iter().filter(|interface| interface.name == name);
        let addresses: Vec<Ipv4Net> = of_name
            .filter_map(|interface| match &interface.addr {
                IfAddr::V4(address) => Ipv4Net::with_netmask(address.ip, address.netmask).ok(),
                IfAddr::V6(_) => None,
            })
            .collect();
        Ok(match (index(name)?, addresses.is_empty()) {
            (Some(index), false) => Found::Usable(Self {
                name: name.to_owned(),
                index,
                addresses,
            }),
            (Some(_), true) => Found::NoAddress,
            (None, _) => {
                let mut names: Vec<String> = all.into_iter().map(|interface| interface.name).collect();
                names.sort();
                names.dedup();
                Found::Absent(names)
            }
        })
    }

    /// The address to answer with: that in the relay's network if there is one, otherwise the first.
    pub fn address_for(&self, relay: Ipv4Addr) -> Ipv4Addr {
        let near = self.addresses.iter().find(|network| network.contains(&relay));
        near.or(self.addresses.first()).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Net::addr)
    }
}

/// Not from /sys: that shows the network namespace in which it was mounted.
fn index(name: &str) -> io::Result<Option<u32>> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    match rustix::net::netdevice::name_to_index(&socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_answered_from_its_own_network() {
        let interface = Interface {
            name: "eth0".to_owned(),
            index: 2,
            addresses: ["10.0.0.1/24", "10.0.1.1/24"]
                .map(|network| network.parse().expect("a network"))
                .to_vec(),
        };
        for (relay, address) in [
            ([0, 0, 0, 0], [10, 0, 0, 1]),
            ([10, 0, 1, 254], [10, 0, 1, 1]),
            ([192, 0, 2, 1], [10, 0, 0, 1]),
        ] {
            assert_eq!(interface.address_for(relay.into()), Ipv4Addr::from(address));
        }
    }

    #[test]
    fn a_name_that_is_not_there_comes_with_those_that_are() {
        let Found::Absent(names) = Interface::find("nosuch0").expect("a list") else {
            panic!("found")
        };
        assert!(names.iter().any(|name| name == "lo"), "{names:?}");
    }
}
