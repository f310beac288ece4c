//! The nodes of `rabbitmq.url`, and in which order they are tried.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::login::Login;
use crate::config;

/// See the module. There is one, or several of a cluster, of which any will do.
pub(super) struct Nodes {
    logins: Vec<Login>,
    /// Where each kind of connection was made last.
    last: Mutex<HashMap<&'static str, usize>>,
}

impl Nodes {
    /// Reads `rabbitmq.url`. The default vhost is `%2f` or nothing.
    pub(super) fn new(settings: &config::RabbitMq) -> Result<Self, String> {
        let trust = settings.trust()?;
        let decode = |text: &str| {
            percent_encoding::percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| "rabbitmq.url: not UTF-8".to_owned())
        };
        let mut logins = Vec::new();
        for url in settings.nodes().map_err(|error| format!("rabbitmq.url: {error}"))? {
            let vhost = decode(url.path().strip_prefix('/').unwrap_or_default())?;
            logins.push(Login {
                host: url.host_str().unwrap_or("localhost").to_owned(),
                port: url.port().unwrap_or(settings.default_port()),
                user: decode(url.username())?,
                password: decode(url.password().unwrap_or_default())?,
                vhost: if vhost.is_empty() { "/".to_owned() } else { vhost },
                trust: trust.clone(),
            });
        }
        Ok(Self { logins, last: Mutex::default() })
    }

    /// All of them, beginning anywhere, so that instances spread over the cluster. The one that such a connection was made to
    /// last comes last: it has just failed, or this would not be asked.
    pub(super) fn in_turn(&self, name: &'static str) -> Vec<(usize, &Login)> {
        let count = self.logins.len();
        let start = if count == 1 { 0 } else { getrandom::u32().unwrap_or_default() as usize % count };
        let last = self.last.lock().get(name).copied();
        let mut order: Vec<usize> = (0..count).map(|step| (start + step) % count).collect();
        order.sort_by_key(|node| Some(*node) == last);
        order.into_iter().map(|node| (node, &self.logins[node])).collect()
    }

    /// Such a connection stands.
    pub(super) fn reached(&self, name: &'static str, node: usize) {
        self.last.lock().insert(name, node);
    }

    /// Hosts and ports, and the vhost, for people.
    pub(super) fn place(&self) -> String {
        let hosts: Vec<String> = self.logins.iter().map(Login::server).collect();
        let vhost = self.logins.first().map_or("/", |login| login.vhost.as_str());
        format!("{}/{}", hosts.join(","), if vhost == "/" { "%2f" } else { vhost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    fn nodes(url: &str) -> Nodes {
        Nodes::new(&config::RabbitMq {
            url: url.into(),
            queue: "q".to_owned(),
            consumers: 1,
            tls: Tls::Off,
            tls_ca_file: "".into(),
        })
        .unwrap()
    }

    #[test]
    fn the_first_may_be_any_and_the_one_that_failed_comes_last() {
        let nodes = nodes("amqp://u:p@a,b:7,c/%2f");
        assert_eq!(nodes.place(), "a:5672,b:7,c:5672/%2f");
        let order = || nodes.in_turn("consumer").iter().map(|(node, _)| *node).collect::<Vec<_>>();
        let firsts: std::collections::BTreeSet<usize> = (0..200).map(|_| order()[0]).collect();
        assert_eq!(firsts.len(), 3);
        nodes.reached("consumer", 1);
        for _ in 0..50 {
            let order = order();
            assert_eq!((order.len(), order[2]), (3, 1), "{order:?}");
        }
        assert!((0..200).any(|_| nodes.in_turn("publisher")[0].0 == 1), "another connection's node is as good as any");
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let nodes = nodes("amqp://u%40x:p%2C%2F@a/v%2Fw");
        let login = nodes.in_turn("x")[0].1;
        assert_eq!((login.user.as_str(), login.password.as_str(), login.vhost.as_str()), ("u@x", "p,/", "v/w"));
    }
}
