//! The address of an endpoint: what is wrong with it, and where it leads.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use url::{Host, Url};

use super::addresses::is_public;
use crate::error::{Error, Result};

/// As many as the table holds.
const MAX_URL_BYTES: usize = 2_048;
/// A name must be found by then.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
const NOT_PUBLIC: &str = "url: leads to an address that is not public (webhooks.allow_private)";

/// An address that a webhook can be sent to, as far as it says itself. Numbers that stand for an IPv4 address, in whatever form, are one
/// here. Whether its name leads somewhere else, each connect finds out.
pub(super) fn parse(text: &str, allow_private: bool) -> Result<Url> {
    let invalid = |problem: &str| Error::Invalid(format!("url: {problem}"));
    if text.len() > MAX_URL_BYTES {
        return Err(invalid("must be at most 2048 bytes"));
    }
    if text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(invalid("must not hold spaces or control characters"));
    }
    let url = Url::parse(text).map_err(|_| invalid("must be an address such as https://shop.example/webhooks"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_private => {}
        _ => return Err(invalid("must begin with https://")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("must not hold a user or a password"));
    }
    if url.fragment().is_some() {
        return Err(invalid("must not hold a fragment (#)"));
    }
    // What it becomes when it is brought to one form.
    if url.as_str().len() > MAX_URL_BYTES {
        return Err(invalid("must be at most 2048 bytes"));
    }
    let is_private = match url.host() {
        None => return Err(invalid("must name a host")),
        Some(Host::Ipv4(address)) => !is_public(address.into()),
        Some(Host::Ipv6(address)) => !is_public(address.into()),
        Some(Host::Domain(_)) => false,
    };
    if is_private && !allow_private {
        return Err(Error::Invalid(NOT_PUBLIC.to_owned()));
    }
    if url.port() == Some(0) {
        return Err(invalid("must not name port 0"));
    }
    Ok(url)
}

/// Looks where the name leads now, so that a mistake is seen at once. Where private addresses are allowed, it may lead nowhere yet.
pub(super) async fn check_name(url: &Url, allow_private: bool) -> Result<()> {
    if allow_private {
        return Ok(());
    }
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    let port = url.port_or_known_default().unwrap_or(443);
    let unknown = || Error::Invalid(format!("url: no address was found for {name}"));
    let found = tokio::time::timeout(LOOK_UP_TIMEOUT, tokio::net::lookup_host((name, port))).await;
    let found: Vec<SocketAddr> = found.map_err(|_| unknown())?.map_err(|_| unknown())?.collect();
    if found.is_empty() {
        return Err(unknown());
    }
    match found.iter().map(SocketAddr::ip).all(is_public) {
        true => Ok(()),
        false => Err(Error::Invalid(NOT_PUBLIC.to_owned())),
    }
}

/// Whether all these addresses may be connected to.
pub(super) fn may_connect(addresses: impl IntoIterator<Item = IpAddr>, allow_private: bool) -> bool {
    allow_private || addresses.into_iter().all(is_public)
}

/// Without what may be a secret, for logs: scheme, host and port.
pub(super) fn origin(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "-".to_owned(), |url| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str, allow_private: bool) -> Option<String> {
        parse(text, allow_private).err().map(|error| error.to_string())
    }

    #[test]
    fn an_address_is_public_and_https_unless_private_ones_are_allowed() {
        for good in [
            "https://shop.example/webhooks",
            "https://shop.example:8443/hooks?token=1",
            "HTTPS://SHOP.example",
            "https://8.8.8.8/",
            "https://[2606:4700:4700::1111]/",
            "https://bücher.example/",
        ] {
            assert_eq!(problem(good, false), None, "{good}");
            assert_eq!(problem(good, true), None, "{good}");
        }
        for private in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://0/",
            "https://127.0.0.1./",
            "https://１２７.0.0.1/",
            "https://127。0。0。1/",
            "https://%31%32%37.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[fd00::1]/",
            "https://10.0.0.1:8080/",
            "https://169.254.169.254/latest/meta-data/",
        ] {
            let problem = problem(private, false).unwrap_or_default();
            assert!(problem.starts_with("url: ") && problem.contains("not public"), "{private}: {problem}");
            assert_eq!(super::parse(private, true).err().map(|error| error.to_string()), None, "{private}");
        }
        assert!(problem("http://shop.example/", false).unwrap().contains("https"));
        assert_eq!(problem("http://shop.example/", true), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("https://shop.example/{}", "x".repeat(MAX_URL_BYTES));
        for bad in [
            "",
            "shop.example",
            "/webhooks",
            "ftp://shop.example/",
            "file:///etc/passwd",
            "gopher://shop.example/",
            "javascript:alert(1)",
            "https://",
            "https://user@shop.example/",
            "https://user:pass@shop.example/",
            "https://:pass@shop.example/",
            "https://shop.example/#part",
            "https://shop.example:0/",
            "https://shop.example:99999/",
            "https://shop example/",
            "https://shop.example/a b",
            "https://shop.example/\n",
            "https://[fe80::1%25eth0]/",
            "https://999.1.1.1/",
            &long,
        ] {
            for allow_private in [false, true] {
                let problem = problem(bad, allow_private).unwrap_or_else(|| panic!("{bad:?} is taken"));
                assert!(problem.starts_with("url: "), "{bad:?}: {problem}");
            }
        }
    }

    #[test]
    fn a_host_with_any_private_address_is_refused() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert!(may_connect(addresses(&["8.8.8.8", "2606:4700:4700::1111"]), false));
        assert!(!may_connect(addresses(&["8.8.8.8", "127.0.0.1"]), false));
        assert!(may_connect(addresses(&["8.8.8.8", "127.0.0.1"]), true));
    }

    #[test]
    fn a_log_names_an_address_without_what_may_be_a_secret() {
        assert_eq!(origin("https://shop.example:8443/hooks/token?key=1"), "https://shop.example:8443");
        assert_eq!(origin("nonsense"), "-");
    }
}
