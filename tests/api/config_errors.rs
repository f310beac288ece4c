//! The command itself: what it prints and how it ends.

use std::process::Command;

fn seckill() -> Command {
    Command::new(env!("CARGO_BIN_EXE_seckill"))
}

#[test]
fn a_mistake_in_the_configuration_stops_the_start_with_one_line() {
    for (variable, value) in [
        ("SECKILL__SERVER__PORT", "many"),
        ("SECKILL__SERVER__PROT", "1"),
        ("SECKILL__AUTH__JWT_SECRET", "short"),
        ("SECKILL__MYSQL__DSN", "buyer:hunter2@tcp(127.0.0.1:3306)/seckill"),
    ] {
        let output = seckill().env("SECKILL__BACKEND", "distributed").env(variable, value).output().unwrap();
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
    for word in ["serve", "migrate", "--config"] {
        assert!(help.contains(word), "{help}");
    }
}
