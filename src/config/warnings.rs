//! What is valid and unwise.

use std::collections::HashSet;
use std::net::IpAddr;

use secrecy::ExposeSecret;
use url::Url;

use super::checks::is_loopback;
use super::schema::{Config, Users};
use crate::model::TrustedProxies;

/// 32 random digits of base 16 have fewer different ones in one of ten million cases.
const LEAST_DIFFERENT: usize = 8;

impl Config {
    /// What an operator should know of this configuration, although it is valid.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.proxy_warning());
        warnings.extend(self.admin_port_warning());
        let secrets =
            [("auth.jwt_secret", &self.auth.jwt_secret), ("auth.external.secret", &self.auth.external.secret)];
        for (key, secret) in secrets {
            if is_made_up(secret.expose_secret()) {
                warnings.push(format!("{key}: does not look random; a random one: openssl rand -hex 32"));
            }
        }
        if self.auth.bcrypt_cost < 10 {
            warnings.push(format!("auth.bcrypt_cost: {} is for tests; 10 or more", self.auth.bcrypt_cost));
        }
        if self.auth.users == Users::External
            && let Ok(url) = Url::parse(&self.auth.external.jwks_url)
            && url.scheme() == "http"
            && !is_loopback(&url)
        {
            let problem = "auth.external.jwks_url: over http whoever is on the way can choose the keys; use https";
            warnings.push(problem.to_owned());
        }
        warnings.extend(self.payment_warning());
        warnings.extend(self.traces_warning());
        if self.webhooks.allow_private && !self.is_private() {
            let problem =
                "webhooks.allow_private: whoever registers a webhook can have this machine call others of its network";
            warnings.push(problem.to_owned());
        }
        if let Some(key) = self.unused {
            warnings.push(format!("{key}: is set, but backend is distributed, which does not use it"));
        }
        warnings
    }

    /// If others can connect to `server.host`, and no proxy is named that would encrypt what they send.
    fn proxy_warning(&self) -> Option<String> {
        let host = &self.server.host;
        let is_reached = !is_this_machine(host) && self.server.trusted_proxies == TrustedProxies::default();
        is_reached.then(|| {
            let merchants = match self.server.for_admins() {
                Some(_) => "",
                None => ", and so can /metrics and the merchant's paths (server.admin_port)",
            };
            format!(
                "server.host: {host} can be reached by others{merchants}; passwords and tokens are sent in the clear: put a proxy \
                 before it that ends TLS, and name that in server.trusted_proxies"
            )
        })
    }

    /// If the port for administrators is open to everybody.
    fn admin_port_warning(&self) -> Option<String> {
        let (host, port) = self.server.for_admins().filter(|(host, _)| !is_inner(host))?;
        let key = if self.server.admin_host.is_empty() { "server.host" } else { "server.admin_host" };
        Some(format!(
            "server.admin_port: {port} is open on {host} ({key}), where everybody may come; set server.admin_host to 127.0.0.1 or to \
             an address of the inner network"
        ))
    }
}

/// Whether nobody else reaches this address.
pub(super) fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether it is no address of the public network, nor all addresses there are.
fn is_inner(host: &str) -> bool {
    is_this_machine(host)
        || match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => address.is_private() || address.is_link_local(),
            Ok(IpAddr::V6(address)) => address.is_unique_local() || address.is_unicast_link_local(),
            Err(_) => false,
        }
}

/// Whether somebody has typed a key instead of drawing it.
fn is_made_up(secret: &str) -> bool {
    !secret.is_empty() && secret.bytes().collect::<HashSet<_>>().len() < LEAST_DIFFERENT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changed from the defaults.
    fn warned(change: impl FnOnce(&mut Config), key: &str) -> Option<String> {
        let mut config = Config::load(Some(std::path::Path::new("config.yaml"))).unwrap();
        change(&mut config);
        config.warnings().into_iter().find(|warning| warning.starts_with(key))
    }

    fn server(
        host: &'static str,
        admin: Option<&'static str>,
        proxies: &'static [&'static str],
    ) -> impl FnOnce(&mut Config) {
        move |config| {
            config.server.host = host.to_owned();
            if let Some(admin_host) = admin {
                config.server.admin_port = 8081;
                config.server.admin_host = admin_host.to_owned();
            }
            config.server.trusted_proxies = TrustedProxies::parse(proxies.iter().copied()).unwrap();
        }
    }

    #[test]
    fn what_others_reach_without_a_proxy_is_warned_of() {
        let open = warned(server("0.0.0.0", None, &[]), "server.host: ").unwrap();
        assert!(open.contains("server.admin_port") && open.contains("server.trusted_proxies"), "{open}");
        let two_ports = warned(server("0.0.0.0", Some("127.0.0.1"), &[]), "server.host: ").unwrap();
        assert!(!two_ports.contains("admin_port"), "{two_ports}");
        for (host, admin) in
            [("localhost", None), ("127.0.0.1", Some("")), ("::1", Some("10.0.0.5")), ("127.0.0.1", Some("fd00::1"))]
        {
            assert_eq!(warned(server(host, admin, &[]), "server."), None, "{host}, {admin:?}");
        }
        assert_eq!(warned(server("0.0.0.0", None, &["10.0.0.1"]), "server."), None);
    }

    #[test]
    fn a_port_for_administrators_that_is_open_to_everybody_is_warned_of() {
        for (host, admin) in
            [("0.0.0.0", ""), ("127.0.0.1", "0.0.0.0"), ("127.0.0.1", "::"), ("127.0.0.1", "198.51.100.7")]
        {
            let warning = warned(server(host, Some(admin), &["10.0.0.1"]), "server.admin_port: ");
            assert!(warning.is_some_and(|warning| warning.contains("8081")), "{host}, {admin}");
        }
    }

    #[test]
    fn a_key_that_was_typed_is_warned_of_and_not_shown() {
        for (secret, is_warned) in [
            ("secretsecretsecretsecretsecretsecret", true),
            ("00000000000000000000000000000000", true),
            ("0123456789abcdef0123456789abcdef", false),
            ("", false),
        ] {
            let warning = warned(|config| config.auth.jwt_secret = secret.into(), "auth.jwt_secret: ");
            assert_eq!(warning.is_some(), is_warned, "{secret}");
            assert!(warning.is_none_or(|warning| !warning.contains(secret)), "a secret in the log");
        }
    }
}
