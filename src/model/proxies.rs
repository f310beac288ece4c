//! Reverse proxies that are believed when they say whom a request comes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Networks;

/// Addresses and networks of the proxies, and whether those of this machine that speak through a Unix socket are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Networks,
    unix: bool,
}

/// What a request that came through a Unix socket is said to come from.
const UNIX: &str = "unix";

impl TrustedProxies {
    /// Reads addresses, networks (`10.0.0.0/8`) and `unix`.
    pub fn parse<'a>(written: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut proxies = Self::default();
        for text in written {
            match text.trim() {
                UNIX => proxies.unix = true,
                network => proxies.networks.add(network)?,
            }
        }
        Ok(proxies)
    }

    /// The client's address: the last one on its way that is not a proxy's. Each proxy appends the address it was called
    /// from to `X-Forwarded-For`, so the list is read from its end; what stands before an address that is not trusted is
    /// anybody's word.
    ///
    /// Without a peer's address the request came through a Unix socket.
    pub fn client(&self, peer: Option<IpAddr>, forwarded: &[&str]) -> IpAddr {
        let mut client = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.to_canonical());
        let mut trusted = self.is_peer(peer);
        let mut hops = forwarded.iter().rev().flat_map(|value| value.rsplit(',')).map(str::trim);
        while trusted && let Some(hop) = hops.next() {
            match address(hop) {
                Some(before) => {
                    client = before;
                    trusted = self.trust(before);
                }
                // Another proxy on the same machine.
                None if self.unix && hop.trim_end_matches(':') == UNIX => {}
                None => break,
            }
        }
        client
    }

    /// Whether a request comes from a proxy directly. Without a peer's address it came through a Unix socket.
    pub fn is_peer(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.unix, |peer| self.trust(peer))
    }

    /// Whether an address is a proxy's.
    pub fn trust(&self, address: IpAddr) -> bool {
        self.networks.contain(address)
    }
}

/// An address as proxies write it: `1.2.3.4`, `1.2.3.4:5678`, `::1`, `[::1]`, `[::1]:5678`.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse().ok().map(|hop: SocketAddr| hop.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(proxies: &[&str], peer: &str, forwarded: &[&str]) -> IpAddr {
        TrustedProxies::parse(proxies.iter().copied()).unwrap().client(Some(ip(peer)), forwarded)
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        let from = |peer: &str, forwarded: &[&str]| client(&["10.0.0.1", "10.0.0.2"], peer, forwarded);
        assert_eq!(from("1.2.3.4", &["9.9.9.9"]), ip("1.2.3.4"), "nobody of ours");
        assert_eq!(from("10.0.0.1", &["9.9.9.9"]), ip("9.9.9.9"));
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 9.9.9.9"]), ip("9.9.9.9"), "the first is the client's own word");
        assert_eq!(from("10.0.0.1", &["6.6.6.6, 9.9.9.9", "10.0.0.2"]), ip("9.9.9.9"), "two of ours in a row");
        assert_eq!(from("10.0.0.1", &["9.9.9.9, nonsense"]), ip("10.0.0.1"));
        assert_eq!(from("10.0.0.1", &[]), ip("10.0.0.1"));
    }

    #[test]
    fn proxies_are_addresses_or_networks_in_either_family() {
        for (proxy, peer) in [
            ("10.0.0.0/8", "10.200.3.4"),
            ("10.0.0.0/8", "::ffff:10.200.3.4"),
            ("::ffff:10.0.0.0/104", "10.200.3.4"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8:9::1"),
            ("0.0.0.0/0", "8.8.8.8"),
        ] {
            assert_eq!(client(&[proxy], peer, &["9.9.9.9"]), ip("9.9.9.9"), "{proxy} {peer}");
        }
        assert_eq!(client(&["10.0.0.0/8"], "11.0.0.1", &["9.9.9.9"]), ip("11.0.0.1"));
        assert_eq!(client(&[], "::ffff:1.2.3.4", &[]), ip("1.2.3.4"));
        for wrong in ["proxy.example", "10.0.0.0/33", "10.0.0", "", "10.0.0.1:80"] {
            assert!(TrustedProxies::parse([wrong]).unwrap_err().contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_hop_may_carry_a_port_and_be_a_unix_socket() {
        for (hop, address) in [
            ("1.2.3.4:5678", "1.2.3.4"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("[::ffff:1.2.3.4]:5", "1.2.3.4"),
        ] {
            assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &[hop]), ip(address), "{hop}");
        }
        assert_eq!(client(&["10.0.0.1"], "10.0.0.1", &["9.9.9.9, unix:"]), ip("10.0.0.1"));
        assert_eq!(client(&["10.0.0.1", "unix"], "10.0.0.1", &["9.9.9.9, unix:"]), ip("9.9.9.9"));
        let through_socket = TrustedProxies::parse(["unix"]).unwrap().client(None, &["9.9.9.9"]);
        assert_eq!(through_socket, ip("9.9.9.9"));
    }
}
