//! Where somebody is, as limits and waiting lines count it: an IPv4 address, or the /64 of an IPv6 address, which is what one line gets.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};

/// One client, as far as an address tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

/// The lower half of an IPv6 address is its owner's choice.
const OWNERS_CHOICE: u128 = u64::MAX as u128;

impl Network {
    /// The network of an address; `::ffff:1.2.3.4` is 1.2.3.4.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !OWNERS_CHOICE))),
            address => Self(address),
        }
    }
}

/// Addresses and networks that somebody has listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Bits that say that the rest of an IPv6 address is one of IPv4.
const MAPPED_BITS: u8 = 96;

impl Networks {
    /// Adds an address, or a network such as `10.0.0.0/8`.
    pub fn add(&mut self, written: &str) -> Result<(), String> {
        let text = written.trim();
        let network = match text.parse::<IpAddr>() {
            Ok(address) => Ok(IpNet::from(address)),
            Err(_) => text.parse::<IpNet>(),
        };
        let network =
            network.map_err(|_| format!("`{text}` is neither an IP address nor a network like 10.0.0.0/8"))?;
        self.0.push(canonical(network));
        Ok(())
    }

    /// Whether an address is one of them, or in one.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// A network of mapped addresses (`::ffff:10.0.0.0/104`) is one of IPv4.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) if v6.prefix_len() >= MAPPED_BITS => v6.addr().to_ipv4_mapped(),
        _ => None,
    };
    let v4 = mapped.and_then(|address| Ipv4Net::new(address, network.prefix_len() - MAPPED_BITS).ok());
    v4.map_or(network, IpNet::V4)
}

/// The address, or the first of a /64.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_v6_line_is_one_place_and_a_mapped_address_is_a_v4_one() {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:1.2.3.4"), network("1.2.3.4"));
        assert_ne!(network("1.2.3.4"), network("1.2.3.5"));
    }
}
