//! Where somebody is, as limits and waiting lines count it: an IPv4 address, or the /64 of an IPv6 address, which is what one line gets.

use std::net::{IpAddr, Ipv6Addr};

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
