//! The client for addresses of others: it trusts the certificates that this machine trusts, goes where it was sent and nowhere else, and
//! takes every answer for one, whatever its status. Proxies of the environment are used unless the caller says otherwise.

use std::time::Duration;

use ureq::config::ConfigBuilder;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

/// `timeout`: of one request, from the connection to the last byte.
pub fn http_client(timeout: Duration) -> ConfigBuilder<AgentScope> {
    ureq::Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        .user_agent(concat!("seckill/", env!("CARGO_PKG_VERSION")))
}
