//! `traces`: the checks, and what follows from the keys.

use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use ureq::http::{HeaderName, HeaderValue, Uri};

use super::checks::{ConfigError, invalid, is_loopback};
use super::schema::{Config, Traces};

/// What OTLP over HTTP appends to a collector's address.
const PATH: &str = "/v1/traces";

impl Traces {
    /// Where spans are sent; `None`: traces are off.
    pub fn url(&self) -> Option<String> {
        let base = self.endpoint.trim_end_matches('/');
        (!base.is_empty()).then(|| format!("{base}{PATH}"))
    }

    /// Whether the collector is on this machine.
    pub fn is_local(&self) -> bool {
        url::Url::parse(&self.endpoint).is_ok_and(|url| is_loopback(&url))
    }

    /// Headers of each request, as `name=value,name=value` says. The problem does not repeat them: they are secret.
    pub fn header_list(&self) -> Result<Vec<(String, String)>, String> {
        let headers = self.headers.expose_secret().split(',').map(str::trim).filter(|header| !header.is_empty());
        headers
            .map(|header| {
                let (name, value) = header.split_once('=')?;
                let (name, value) = (name.trim(), percent_decode_str(value.trim()).decode_utf8().ok()?);
                let is_valid = HeaderName::try_from(name).is_ok() && HeaderValue::try_from(&*value).is_ok();
                is_valid.then(|| (name.to_owned(), value.into_owned()))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| "must be name=value, with commas between several; %2C is a comma in a value".to_owned())
    }
}

impl Config {
    pub(super) fn validate_traces(&self) -> Result<(), ConfigError> {
        let Traces { endpoint, sample_ratio, .. } = &self.traces;
        if !(0.0..=1.0).contains(sample_ratio) {
            return Err(invalid("traces.sample_ratio", format!("must be 0 to 1, not {sample_ratio}")));
        }
        self.traces.header_list().map_err(|problem| invalid("traces.headers", problem))?;
        if endpoint.is_empty() {
            return Ok(());
        }
        let shape = "must be http://host:port or https://host:port, perhaps with a path before /v1/traces";
        let url = url::Url::parse(endpoint).map_err(|_| invalid("traces.endpoint", shape))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("traces.endpoint", "must hold no user and password; traces.headers is for them"));
        }
        if url.path().trim_end_matches('/').ends_with(PATH) {
            return Err(invalid("traces.endpoint", format!("must not end in {PATH}, which is appended to it")));
        }
        let is_base = matches!(url.scheme(), "http" | "https") && url.has_host();
        if !is_base || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("traces.endpoint", shape));
        }
        // The exporter reads it by a stricter rule.
        if self.traces.url().is_some_and(|url| url.parse::<Uri>().is_err()) {
            return Err(invalid("traces.endpoint", shape));
        }
        Ok(())
    }

    /// Whether what the headers hold can be read on its way.
    pub(super) fn traces_warning(&self) -> Option<String> {
        let url = url::Url::parse(&self.traces.endpoint).ok()?;
        let is_readable = url.scheme() == "http" && !is_loopback(&url);
        let tells = is_readable && !self.traces.headers.expose_secret().is_empty();
        tells.then(|| {
            "traces.headers: over http whoever is on the way to traces.endpoint can read them; use https".to_owned()
        })
    }
}
