//! Which addresses a webhook may go to: those that everybody on the Internet reaches alike. Who may register an endpoint must not be able
//! to have this machine call its neighbours.
//!
//! The tables are those of IANA's registries of special-purpose addresses. What is not known to be public is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 that is not reached from everywhere, or is nobody's.
static RESERVED_V4: LazyLock<Vec<Ipv4Net>> = LazyLock::new(|| {
    networks(&[
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        // Relays of 6to4, which are gone.
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ])
});

/// The only IPv6 that is given out to be reached from everywhere.
static GLOBAL_V6: LazyLock<Vec<Ipv6Net>> = LazyLock::new(|| networks(&["2000::/3"]));

/// What is special inside of that: protocols (Teredo, benchmarks, ORCHID and others), documentation, 6to4.
static RESERVED_V6: LazyLock<Vec<Ipv6Net>> =
    LazyLock::new(|| networks(&["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"]));

/// Where a translator of the network puts IPv4 addresses (NAT64): a network without IPv4 reaches every IPv4 address by these.
static TRANSLATED: LazyLock<Vec<Ipv6Net>> = LazyLock::new(|| networks(&["64:ff9b::/96"]));

fn networks<N: std::str::FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<N> {
    texts.iter().map(|text| text.parse().expect("the network is well formed")).collect()
}

/// Whether an address is reached from everywhere.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !RESERVED_V4.iter().any(|network| network.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let is_in = |networks: &[Ipv6Net]| networks.iter().any(|network| network.contains(&address));
    is_in(&GLOBAL_V6) && !is_in(&RESERVED_V6)
}

/// The IPv4 address that is meant by an IPv6 address.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    address.to_ipv4_mapped().or_else(|| {
        let is_translated = TRANSLATED.iter().any(|network| network.contains(&address));
        is_translated.then(|| Ipv4Addr::from_bits(address.to_bits() as u32))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 \
        169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.1 192.0.3.1 192.167.255.255 192.169.0.0 \
        198.17.255.255 198.20.0.0 198.51.99.1 203.0.112.255 203.0.114.0 223.255.255.255 \
        2606:4700:4700::1111 2a00:1450:4001::1 2001:200::1 2400::1 2003::1 3ffe::1 64:ff9b::808:808 ::ffff:8.8.8.8";

    /// This host, private, shared by carriers, loopback, link-local with the metadata of clouds; protocols, documentation, relays,
    /// benchmarks, multicast, reserved, broadcast.
    const RESERVED: &str = "0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.1.2.3 \
        127.255.255.255 169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.168.0.1 192.168.255.255 \
        192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 \
        224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.254 255.255.255.255";

    /// The same of IPv6.
    const RESERVED_IN_V6: &str = ":: ::1 fe80::1 febf::1 fec0::1 fc00::1 fd00::1 fd12:3456::1 ff02::1 ff0e::1 100::1 \
        2001::1 2001:2::1 2001:10::1 2001:20::1 2001:30::1 2001:1ff::1 2001:db8::1 3fff::1 5f00::1 4000::1 e000::1 \
        64:ff9b:1::1 64:ff9b:1::7f00:1";

    /// IPv4 in IPv6: mapped, compatible, translated, 6to4, Teredo.
    const EMBEDDED: &str = "::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::127.0.0.1 ::8.8.8.8 \
        64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b::a9fe:a9fe 2002:7f00:1::1 2002:a00:1:: 2002:c0a8:1::1 2002:808:808::1 \
        2001:0:4136:e378:8000:63bf:80ff:fffe";

    fn addresses(text: &str) -> impl Iterator<Item = IpAddr> {
        text.split_whitespace().map(|text| text.parse().unwrap())
    }

    #[test]
    fn only_what_everybody_reaches_is_public() {
        for address in addresses(PUBLIC) {
            assert!(is_public(address), "{address}");
        }
        for address in [RESERVED, RESERVED_IN_V6, EMBEDDED].into_iter().flat_map(addresses) {
            assert!(!is_public(address), "{address}");
        }
    }
}
