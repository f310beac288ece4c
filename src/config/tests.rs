//! Configurations, right and wrong, from the layers to the message.

use std::path::Path;

use secrecy::ExposeSecret;

use super::environment;
use crate::config::{Backend, Config, Provider};
use crate::model::TrustedProxies;

const SECRETS: &[(&str, &str)] = &[
    ("BACKEND", "distributed"),
    ("MYSQL__DSN", "mysql://u:p@127.0.0.1:3306/seckill"),
    ("RABBITMQ__URL", "amqp://u:p@127.0.0.1:5672/%2f"),
    ("AUTH__JWT_SECRET", "0123456789abcdef0123456789abcdef"),
    ("ADMIN__PASSWORD", "correct horse"),
];

fn load(yaml: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let file = std::env::temp_dir().join(format!("seckill-config-{}.yaml", uuid::Uuid::now_v7()));
    std::fs::write(&file, yaml).unwrap();
    let variables =
        SECRETS.iter().chain(variables).map(|(key, value)| (format!("SECKILL__{key}"), (*value).to_owned())).collect();
    let loaded = Config::load_with(Some(&file), environment(Some(variables)));
    std::fs::remove_file(file).unwrap();
    loaded.map_err(|error| error.to_string())
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let config = load("server: { port: 9000, host: 0.0.0.0 }", &[("SERVER__PORT", "9001")]).unwrap();
    assert_eq!((config.server.port, config.server.host.as_str()), (9001, "0.0.0.0"));
    assert_eq!(config.rabbitmq.queue, "seckill.orders");
}

#[test]
fn proxies_are_a_list_in_the_file_and_a_line_in_the_environment() {
    let proxies = TrustedProxies::parse(["10.0.0.0/8", "::1"]).unwrap();
    let file = load("server: { trusted_proxies: [10.0.0.0/8, '::1'] }", &[]).unwrap();
    assert_eq!(file.server.trusted_proxies, proxies);
    let line = load("{}", &[("SERVER__TRUSTED_PROXIES", "10.0.0.0/8, ::1")]).unwrap();
    assert_eq!(line.server.trusted_proxies, proxies);
    let none = load("{}", &[("SERVER__TRUSTED_PROXIES", "")]).unwrap();
    assert_eq!(none.server.trusted_proxies, TrustedProxies::default());
}

#[test]
fn shared_addresses_are_a_list_in_the_file_and_a_line_in_the_environment() {
    let file = load("limits: { shared_addresses: [203.0.113.0/24, '2001:db8::/32'] }", &[]).unwrap();
    let line = load("{}", &[("LIMITS__SHARED_ADDRESSES", "203.0.113.0/24, 2001:db8::/32")]).unwrap();
    assert_eq!(file.limits.shared_addresses, line.limits.shared_addresses);
    let shares = |text: &str| file.limits.shared_addresses.contain(text.parse().unwrap());
    assert!(shares("203.0.113.7") && shares("::ffff:203.0.113.7") && shares("2001:db8:1::5") && !shares("203.0.114.7"));
}

#[test]
fn pauses_between_tries_are_a_list_of_whole_seconds() {
    let defaults = load("{}", &[]).unwrap().webhooks;
    assert_eq!(defaults.retry_seconds, [0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]);
    assert!(!defaults.allow_private);
    assert_eq!(load("webhooks: { retry_seconds: [0, 1] }", &[]).unwrap().webhooks.retry_seconds, [0, 1]);
    let line = load("{}", &[("WEBHOOKS__RETRY_SECONDS", "0, 1,2"), ("WEBHOOKS__ALLOW_PRIVATE", "true")]).unwrap();
    assert_eq!((line.webhooks.retry_seconds.as_slice(), line.webhooks.allow_private), ([0, 1, 2].as_slice(), true));
    assert_eq!(load("{}", &[("WEBHOOKS__RETRY_SECONDS", "7")]).unwrap().webhooks.retry_seconds, [7]);
    for bad in ["[]", "[-1]", "[0.5]", "[604801]", "[x]", "{}", "''", "'1,,2'"] {
        let problem = load(&format!("webhooks: {{ retry_seconds: {bad} }}"), &[]).unwrap_err();
        assert!(problem.contains("webhooks.retry_seconds"), "{bad}: {problem}");
    }
    let open = load("{ webhooks: { allow_private: true }, server: { host: 0.0.0.0 } }", &[]).unwrap();
    assert!(open.warnings().iter().any(|warning| warning.starts_with("webhooks.allow_private: ")));
    assert!(line.warnings().iter().all(|warning| !warning.starts_with("webhooks.")), "nobody else reaches it");
}

#[test]
fn a_directory_needs_an_issuer_and_one_source_of_keys() {
    const SECRET: &str = "fedcba9876543210fedcba9876543210";
    let load = |settings: &[(&str, &str)]| {
        let settings = settings.iter().map(|(key, value)| (format!("AUTH__EXTERNAL__{key}"), *value));
        let mut settings: Vec<(String, &str)> = settings.collect();
        settings.push(("AUTH__USERS".to_owned(), "external"));
        load("{}", &settings.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>())
    };
    load(&[("ISSUER", "https://shop.example"), ("SECRET", SECRET)]).unwrap();
    load(&[("ISSUER", "shop"), ("JWKS_URL", "https://shop.example/keys"), ("AUDIENCE", "seckill")]).unwrap();
    for (url, warned) in [
        ("http://shop.example/keys", true),
        ("http://10.0.0.1/keys", true),
        ("https://shop.example/keys", false),
        ("http://localhost:8000/keys", false),
        ("http://127.0.0.1/keys", false),
        ("http://[::1]/keys", false),
    ] {
        let config = load(&[("ISSUER", "shop"), ("JWKS_URL", url)]).unwrap();
        let is_warned = config.warnings().iter().any(|warning| warning.starts_with("auth.external.jwks_url: "));
        assert_eq!(is_warned, warned, "{url}");
    }
    for (settings, key) in [
        (&[][..], "issuer"),
        (&[("SECRET", SECRET)], "issuer"),
        (&[("ISSUER", "seckill"), ("SECRET", SECRET)], "issuer"),
        (&[("ISSUER", "shop")], "secret"),
        (&[("ISSUER", "shop"), ("SECRET", "short")], "secret"),
        (&[("ISSUER", "shop"), ("SECRET", "0123456789abcdef0123456789abcdef")], "secret"),
        (&[("ISSUER", "shop"), ("SECRET", SECRET), ("JWKS_FILE", "keys.json")], "jwks_file"),
        (&[("ISSUER", "shop"), ("JWKS_FILE", "keys.json"), ("JWKS_URL", "https://shop.example/")], "jwks_url"),
        (&[("ISSUER", "shop"), ("JWKS_URL", "ftp://shop.example/")], "jwks_url"),
        (&[("ISSUER", "shop"), ("SECRET", SECRET), ("TRUST_ROLE", "perhaps")], "trust_role"),
    ] {
        let message = load(settings).expect_err(key);
        assert!(message.starts_with(&format!("configuration: auth.external.{key}")), "{settings:?}: {message}");
        assert!(!message.contains('\n') && !message.contains(SECRET), "{message}");
    }
}

#[test]
fn a_number_is_taken_as_it_is_written_or_not_at_all() {
    assert_eq!(load("limits: { auth_per_minute: 30.0 }", &[]).unwrap().limits.auth_per_minute, 30);
    assert_eq!(load("{}", &[("LIMITS__AUTH_PER_MINUTE", "7")]).unwrap().limits.auth_per_minute, 7);
}

#[test]
fn the_go_spelling_of_pool_size_is_accepted_and_can_still_be_overridden() {
    assert_eq!(load("redis: { poolSize: 7 }", &[]).unwrap().redis.pool_size, 7);
    assert_eq!(load("redis: { poolSize: 7 }", &[("REDIS__POOL_SIZE", "8")]).unwrap().redis.pool_size, 8);
}

#[test]
fn a_secret_of_digits_keeps_its_leading_zeros() {
    let config = load("{}", &[("ADMIN__PASSWORD", "0012345678")]).unwrap();
    assert_eq!(config.admin.password.expose_secret(), "0012345678");
}

#[test]
fn every_mistake_is_one_line_that_names_the_key() {
    for (yaml, variable, key) in [
        ("server: { prot: 1 }", None, "server.prot"),
        ("sever: { port: 1 }", None, "sever"),
        ("server: { port: 70000 }", None, "server.port"),
        ("server: { port: many }", None, "server.port"),
        ("server: { trusted_proxies: [proxy.example] }", None, "server.trusted_proxies"),
        ("{}", Some(("BACKEND", "paper")), "backend"),
        ("embedded: { data_dir: '' }", Some(("BACKEND", "embedded")), "embedded.data_dir"),
        ("{}", Some(("SERVER__PROT", "1")), "server.prot"),
        ("{}", Some(("MYSQL__DSN", "")), "mysql.dsn"),
        ("{}", Some(("MYSQL__DSN", "user:pass@tcp(127.0.0.1:3306)/seckill")), "mysql.dsn"),
        ("{}", Some(("RABBITMQ__URL", "http://localhost")), "rabbitmq.url"),
        ("{}", Some(("AUTH__JWT_SECRET", "")), "auth.jwt_secret"),
        ("{}", Some(("AUTH__JWT_SECRET", "short")), "auth.jwt_secret"),
        ("{}", Some(("ADMIN__PASSWORD", "")), "admin.password"),
        ("{}", Some(("ADMIN__USERNAME", "a b")), "admin.username"),
        ("{}", Some(("ADMIN__PASSWORD", "correct\0horse")), "admin.password"),
        ("{}", Some(("AUTH__USERS", "theirs")), "auth.users"),
        ("auth: { registration: ajar }", None, "auth.registration"),
        ("server: { trusted_proxies: [10.0.0.0/33] }", None, "server.trusted_proxies"),
        ("limits: { shared_addresses: [office] }", None, "limits.shared_addresses"),
        ("auth: { bcrypt_cost: 3 }", None, "auth.bcrypt_cost"),
        ("auth: { bcrypt_cost: 16 }", None, "auth.bcrypt_cost"),
        ("redis: { addr: localhost }", None, "redis.addr"),
        ("redis: { key_prefix: 'shop {1}' }", None, "redis.key_prefix"),
        ("redis: { key_prefix: '' }", None, "redis.key_prefix"),
        ("redis: { username: seckill }", None, "redis.password"),
        ("redis: { mode: many }", None, "redis.mode"),
        ("redis: { nodes: ['a:1'] }", None, "redis.nodes"),
        ("redis: { mode: cluster }", None, "redis.nodes"),
        ("redis: { mode: cluster, nodes: ['a:1', 'b'] }", None, "redis.nodes"),
        ("redis: { mode: cluster, nodes: ['a:1'], db: 1 }", None, "redis.db"),
        ("redis: { mode: sentinel, nodes: ['a:1'], master_name: '' }", None, "redis.master_name"),
        ("redis: { mode: sentinel, nodes: ['a:1'], sentinel_username: x }", None, "redis.sentinel_password"),
        ("redis: { mode: cluster, nodes: ['a:1'], sentinel_password: x }", None, "redis.sentinel_password"),
        ("{}", Some(("MYSQL__DSN", "mysql://u:p@one,two:x/seckill")), "mysql.dsn"),
        ("{}", Some(("RABBITMQ__URL", "amqps://u:p@localhost/%2f")), "rabbitmq.url"),
        ("mysql: { tls: on }", None, "mysql.tls"),
        ("redis: { tls: verify, tls_ca_file: no/such.pem }", None, "redis.tls_ca_file"),
        ("rabbitmq: { tls: verify, tls_ca_file: no/such.pem }", None, "rabbitmq.tls_ca_file"),
        ("rabbitmq: { consumers: 0 }", None, "rabbitmq.consumers"),
        ("rabbitmq: { queue: shop.dead }", None, "rabbitmq.queue"),
        ("rabbitmq: { queue: amq.orders }", None, "rabbitmq.queue"),
        ("mysql: { pool_size: 2 }", None, "mysql.pool_size"),
        ("limits: { auth_per_minute: -1 }", None, "limits.auth_per_minute"),
        ("limits: { purchases_waiting: 0 }", None, "limits.purchases_waiting"),
        ("log: { format: xml }", None, "log.format"),
        ("server: { drain_seconds: 3601 }", None, "server.drain_seconds"),
        ("server: { admin_port: 8080 }", None, "server.admin_port"),
        ("server: { admin_host: 127.0.0.1 }", None, "server.admin_host"),
    ] {
        let message = load(yaml, variable.as_slice()).expect_err(yaml);
        assert!(message.starts_with(&format!("configuration: {key}")), "{yaml} {variable:?}: {message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn mistakes_are_told_in_words_of_people() {
    for (yaml, variable, message) in [
        ("{}", Some(("BACKEND", "sqlite")), "backend: must be embedded or distributed, not `sqlite`"),
        ("log: { format: xml }", None, "log.format: must be text or json, not `xml`"),
        ("server: { port: many }", None, "server.port: must be a whole number"),
        ("server: { port: 70000 }", None, "server.port: is out of range"),
        ("server: { port: -1 }", None, "server.port: is out of range"),
        ("limits: { auth_per_minute: 1.5 }", None, "limits.auth_per_minute: must be a whole number"),
        ("limits: { auth_per_minute: true }", None, "limits.auth_per_minute: must be a whole number"),
        ("{}", Some(("LIMITS__AUTH_PER_MINUTE", "1.5")), "limits.auth_per_minute: must be a whole number"),
        ("{}", Some(("SERVER__PORT", "on")), "server.port: must be a whole number"),
        ("rabbitmq: { consumers: 2.5 }", None, "rabbitmq.consumers: must be a whole number"),
        ("auth: { token_ttl_seconds: 0.5 }", None, "auth.token_ttl_seconds: must be a whole number"),
        ("server: { host: [1] }", None, "server.host: must be text"),
        ("server: []", None, "server: must be an object"),
        (
            "server: { cors_origins: [shop.example] }",
            None,
            "server.cors_origins: `shop.example` is not as https://shop.example",
        ),
        (
            "{}",
            Some(("SERVER__CORS_ORIGINS", "https://a.example, https://a.example/")),
            "server.cors_origins: `https://a.example/` is not as https://shop.example",
        ),
        ("shop: { name: ' ' }", None, "shop.name: must be 1 to 80 characters, not all of them blank"),
        (
            "{}",
            Some(("SHOP__TIME_ZONE", "Europe/Berln")),
            "shop.time_zone: `Europe/Berln` is no time zone of the IANA database, such as Europe/Berlin",
        ),
    ] {
        let said = load(yaml, variable.as_slice()).expect_err(yaml);
        assert_eq!(said, format!("configuration: {message}"), "{yaml} {variable:?}");
    }
    let unknown = load("server: { prot: 1 }", &[]).unwrap_err();
    assert!(unknown.starts_with("configuration: server.prot: is not known here; known are host, port"), "{unknown}");
}

#[test]
fn the_embedded_backend_needs_no_secret_and_no_server() {
    let nothing = [("MYSQL__DSN", ""), ("RABBITMQ__URL", ""), ("AUTH__JWT_SECRET", ""), ("ADMIN__PASSWORD", "")];
    let config = load("backend: embedded", &[&nothing[..], &[("BACKEND", "embedded")]].concat()).unwrap();
    assert_eq!(config.backend, Backend::Embedded);
}

#[test]
fn what_is_set_for_servers_while_the_backend_is_embedded_is_refused_by_name() {
    let nothing = [("MYSQL__DSN", ""), ("RABBITMQ__URL", ""), ("AUTH__JWT_SECRET", ""), ("ADMIN__PASSWORD", "")];
    let embedded = [&nothing[..], &[("BACKEND", "embedded")]].concat();
    for (yaml, variable, key) in [
        ("mysql: { dsn: 'mysql://u:p@db/seckill' }", None, "mysql.dsn"),
        ("redis: { addr: 'redis:6379' }", None, "redis.addr"),
        ("redis: { nodes: ['redis:6379'] }", None, "redis.nodes"),
        ("{}", Some(("REDIS__NODES", "a:1,b:1")), "redis.nodes"),
        ("redis: { sentinel_password: hunter2 }", None, "redis.sentinel_password"),
        ("{}", Some(("REDIS__PASSWORD", "hunter2")), "redis.password"),
        ("{}", Some(("RABBITMQ__URL", "amqp://u:hunter2@mq:5672/%2f")), "rabbitmq.url"),
    ] {
        let mut variables = embedded.clone();
        if yaml.contains("dsn") {
            variables.retain(|(name, _)| *name != "MYSQL__DSN");
        }
        variables.extend(variable);
        let set = variables.iter().map(|(key, value)| (format!("SECKILL__{key}"), (*value).to_owned())).collect();
        let file = std::env::temp_dir().join(format!("seckill-config-{}.yaml", uuid::Uuid::now_v7()));
        std::fs::write(&file, yaml).unwrap();
        let message = Config::load_with(Some(&file), environment(Some(set))).unwrap_err().to_string();
        std::fs::remove_file(file).unwrap();
        assert!(message.starts_with(&format!("configuration: {key}: ")), "{message}");
        assert!(message.contains("backend is embedded") && !message.contains("hunter2"), "{message}");
    }
    let same_as_default = "redis: { addr: '127.0.0.1:6379', password: '' }";
    assert!(load(same_as_default, &embedded).is_ok(), "the file that ships with the project sets it");
    let folder = load("embedded: { data_dir: elsewhere }", &[]).unwrap();
    assert!(folder.warnings().iter().any(|warning| warning.starts_with("embedded.data_dir")));
}

#[test]
fn every_secret_can_be_in_a_file_beside_the_configuration_and_is_checked_there_too() {
    let folder = std::env::temp_dir().join(format!("seckill-config-{}", uuid::Uuid::now_v7()));
    std::fs::create_dir(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let load = |yaml: &str| {
        write("config.yaml", yaml);
        let loaded = Config::load_with(Some(&folder.join("config.yaml")), environment(Some(config::Map::new())));
        loaded.map_err(|error| error.to_string())
    };
    write("dsn", "mysql://u:p@127.0.0.1:3306/seckill\n");
    write("redis", "redis secret\r\n");
    write("url", "amqp://u:p@127.0.0.1:5672/%2f");
    write("jwt", "0123456789abcdef0123456789abcdef\n");
    write("admin", "correct horse\n");
    let servers = "backend: distributed\nmysql: { dsn_file: dsn }\nredis: { password_file: redis }\n\
                   rabbitmq: { url_file: url }\nadmin: { password_file: admin }\n";
    let config = load(&format!("{servers}auth: {{ jwt_secret_file: jwt }}")).unwrap();
    assert_eq!(config.redis.password.expose_secret(), "redis secret");
    assert_eq!(config.admin.password.expose_secret(), "correct horse");
    assert_eq!(config.auth.jwt_secret.expose_secret(), "0123456789abcdef0123456789abcdef");
    assert_eq!(config.servers().0, "127.0.0.1:3306/seckill");

    write("short", "short\n");
    for (auth, key, problem) in [
        ("{ jwt_secret_file: short }", "auth.jwt_secret", "at least 32 bytes"),
        ("{ jwt_secret_file: short }", "auth.jwt_secret", "short, which auth.jwt_secret_file names"),
        ("{ jwt_secret_file: missing }", "auth.jwt_secret_file", "no such file"),
        ("{ jwt_secret_file: jwt, jwt_secret: 0123456789abcdef0123456789abcdef }", "auth.jwt_secret_file", "set too"),
        ("{ bcrypt_cost_file: jwt }", "auth.bcrypt_cost_file", "is not known here"),
    ] {
        let message = load(&format!("{servers}auth: {auth}")).unwrap_err();
        assert!(message.starts_with(&format!("configuration: {key}: ")) && message.contains(problem), "{message}");
    }
    assert_eq!(load("embedded: { data_dir: here }").unwrap().embedded.data_dir, folder.join("here"));
    assert_eq!(load("embedded: { data_dir: /there }").unwrap().embedded.data_dir, Path::new("/there"));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_file_that_is_named_but_missing_is_an_error() {
    let error = Config::load(Some(Path::new("no/such/file.yaml"))).unwrap_err();
    assert!(error.to_string().contains("no/such/file.yaml"), "{error}");
}

#[test]
fn a_payment_service_needs_a_key_and_an_address() {
    const KEY: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    let load = |settings: &[(&str, &str)]| {
        let settings: Vec<_> = settings.iter().map(|(key, value)| (format!("PAYMENTS__{key}"), *value)).collect();
        load("{}", &settings.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>())
    };
    let external = |key, url| load(&[("PROVIDER", "external"), ("WEBHOOK_SECRET", key), ("CHECKOUT_URL", url)]);
    assert_eq!(external(KEY, "https://pay.example/{payment_id}").unwrap().provider(), Provider::External);
    for (key, url, named) in [
        ("", "https://pay.example/", "payments.webhook_secret: is missing"),
        ("0123456789abcdef0123456789abcdef", "https://pay.example/", "payments.webhook_secret: must be whsec_"),
        ("whsec_c2hvcnQ=", "https://pay.example/", "payments.webhook_secret: must be whsec_"),
        (KEY, "", "payments.checkout_url: is missing"),
        (KEY, "http://pay.example/", "payments.checkout_url: must be"),
        (KEY, "https://pay.example/{id}", "payments.checkout_url: names {id}"),
    ] {
        let problem = external(key, url).unwrap_err();
        assert!(problem.contains(named) && (key.is_empty() || !problem.contains(key)), "{problem}");
    }
    for (key, value) in [("PROVIDER", "paypal"), ("PROVIDER", ""), ("LATE", "later"), ("ALLOW_TEST", "perhaps")] {
        let problem = load(&[(key, value)]).unwrap_err();
        assert!(problem.contains(&format!("payments.{}", key.to_lowercase())), "{problem}");
    }
}

#[test]
fn stripe_needs_its_two_secrets_each_in_its_place_and_a_way_back() {
    const GOOD: [(&str, &str); 3] = [
        ("SECRET_KEY", "sk_test_abc"),
        ("WEBHOOK_SECRET", "whsec_def"),
        ("RETURN_URL", "https://shop.example/orders/{order_id}"),
    ];
    let with = |changed: &[(&str, &str)]| {
        let mut settings = vec![("PAYMENTS__PROVIDER".to_owned(), "stripe")];
        let kept = GOOD.iter().filter(|(key, _)| !changed.iter().any(|(other, _)| other == key));
        settings.extend(kept.chain(changed).map(|(key, value)| (format!("PAYMENTS__STRIPE__{key}"), *value)));
        load("{}", &settings.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>())
    };
    assert_eq!(with(&[]).unwrap().provider(), Provider::Stripe);
    for good in [("SECRET_KEY", "rk_live_abc"), ("API_BASE", "http://127.0.0.1:9000")] {
        with(&[good]).unwrap();
    }
    for (key, value, problem) in [
        ("SECRET_KEY", "", "is missing"),
        ("SECRET_KEY", "pk_live_abc", "must be sk_"),
        ("SECRET_KEY", "whsec_def", "must be sk_"),
        ("SECRET_KEY", "sk_", "must be sk_"),
        ("WEBHOOK_SECRET", "", "is missing"),
        ("WEBHOOK_SECRET", "sk_test_abc", "must be whsec_"),
        ("API_BASE", "http://api.stripe.com", "must begin with https"),
        ("API_BASE", "https://api.stripe.com/", "must be as https://api.stripe.com, with nothing"),
        ("API_BASE", "api.stripe.com", "must begin with https"),
        ("RETURN_URL", "", "is missing"),
        ("RETURN_URL", "http://shop.example/", "must be an address"),
        ("RETURN_URL", "https://shop.example/{id}", "names {id}"),
    ] {
        let said = with(&[(key, value)]).unwrap_err();
        let expected = format!("payments.stripe.{}: {problem}", key.to_lowercase());
        assert!(said.contains(&expected), "{said}");
        assert!(value.is_empty() || !key.contains("SECRET") || !said.contains(&format!("`{value}`")), "{said}");
    }
}

#[test]
fn the_test_provider_counts_only_where_nobody_else_comes() {
    for (host, allowed, counts) in [
        ("127.0.0.1", false, true),
        ("::1", false, true),
        ("localhost", false, true),
        ("0.0.0.0", false, false),
        ("192.0.2.1", false, false),
        ("shop.example", false, false),
        ("0.0.0.0", true, true),
        // The other port shows the provider's page, too.
        ("127.0.0.1', admin_port: 8081, admin_host: '127.0.0.2", false, true),
        ("127.0.0.1', admin_port: 8081, admin_host: '10.0.0.5", false, false),
    ] {
        let yaml = format!("server: {{ host: '{host}' }}\npayments: {{ allow_test: {allowed} }}");
        let config = load(&yaml, &[]).unwrap();
        let is_warned = config.warnings().iter().any(|warning| warning.starts_with("payments.provider: "));
        assert_eq!((config.provider() == Provider::Test, is_warned), (counts, !counts), "{host}");
    }
}
