//! The command itself: what it prints and how it ends.

use crate::command::seckill;

#[test]
fn a_mistake_in_the_configuration_stops_the_start_with_one_line() {
    for (variable, value) in [
        ("SECKILL__SERVER__PORT", "many"),
        ("SECKILL__SERVER__PROT", "1"),
        ("SECKILL__AUTH__JWT_SECRET", "short"),
        ("SECKILL__MYSQL__DSN", "buyer:hunter2@tcp(127.0.0.1:3306)/seckill"),
        // Beside the same key itself.
        ("SECKILL__AUTH__JWT_SECRET_FILE", "/nowhere/jwt_secret"),
    ] {
        let mut command = seckill();
        for (key, value) in [
            ("BACKEND", "distributed"),
            ("MYSQL__DSN", "mysql://u:hunter2@127.0.0.1:9/seckill"),
            ("RABBITMQ__URL", "amqp://u:hunter2@127.0.0.1:9/%2f"),
            ("AUTH__JWT_SECRET", "0123456789abcdef0123456789abcdef"),
            ("ADMIN__PASSWORD", "correct horse"),
        ] {
            command.env(format!("SECKILL__{key}"), value);
        }
        let output = command.env(variable, value).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let key = variable.trim_start_matches("SECKILL__").to_lowercase().replace("__", ".");
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&key), "{key}: {stderr}");
        assert!(!stderr.contains("hunter2"), "a secret in the log: {stderr}");
    }
}

#[test]
fn help_names_every_command() {
    let output = seckill().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for word in ["serve", "migrate", "dead-letters", "--config"] {
        assert!(help.contains(word), "{help}");
    }
    // The guest, if it is in.
    for word in ["demo", "bench"] {
        let named = help.lines().any(|line| line.split_whitespace().next() == Some(word));
        assert_eq!(named, cfg!(feature = "bench"), "{word}: {help}");
    }
}

/// Some of its buyers never pay, so it takes as long as they have time.
#[cfg(feature = "bench")]
#[test]
fn the_demo_sells_what_comes_back_and_proves_units_and_money() {
    let output = seckill().args(["demo", "--stock", "40", "--buyers", "400"]).output().unwrap();
    let (said, problems) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}\n{problems}");
    let value = |name: &str| said.lines().rev().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    for (name, expected) in [("stock", "40"), ("paid", "40"), ("left", "0"), ("expired, units came back", "4")] {
        assert_eq!(value(name), Some(expected), "{name}: {said}");
    }
    assert_eq!((value("money that came"), value("oversold")), (Some("7960.00"), Some("0")), "{said}");
    assert!(said.contains("36 of 40 buyers pay; 4 never do"), "{said}");
}
