//! `seckill check-config`: what a start would do, without doing any of it. Connects to nothing, writes nothing, shows no
//! secret.

use secrecy::ExposeSecret;

use crate::config::{self, Backend, Config};
use crate::data_dir::{ADMIN_PASSWORD, JWT_SECRET, database_in, kept_secret};
use crate::db::check_mysql;

pub(super) fn run(config: &Config) -> Result<(), String> {
    let Config { server, auth, admin, .. } = config;
    match config.backend {
        Backend::Embedded => {
            let folder = std::path::absolute(&config.embedded.data_dir).map_err(|error| error.to_string())?;
            if folder.exists() && !folder.is_dir() {
                return Err(format!("embedded.data_dir: {} is not a folder", folder.display()));
            }
            let made = |name: &str, check: fn(&str) -> Result<(), String>| {
                let kept = kept_secret(&folder, name, check)?;
                Ok::<_, String>(if kept.is_some() {
                    "kept in the data folder"
                } else {
                    "will be made at the first start"
                })
            };
            let found = if database_in(&folder).exists() { "in use since an earlier start" } else { "will be made" };
            println!("backend          embedded");
            println!("data folder      {} ({found})", folder.display());
            let configured = |secret: &secrecy::SecretString| !secret.expose_secret().is_empty();
            let key =
                if configured(&auth.jwt_secret) { "configured" } else { made(JWT_SECRET, config::check_jwt_secret)? };
            println!("auth.jwt_secret  {key}");
            let password = match configured(&admin.password) {
                true => "configured; used only if the account is still to be made",
                false => made(ADMIN_PASSWORD, config::check_password)?,
            };
            println!("administrator    {}; password {password}", admin.username);
        }
        Backend::Distributed => {
            check_mysql(&config.mysql)?;
            let (mysql, redis, rabbitmq) = config.servers();
            println!("backend          distributed");
            println!("mysql            {mysql}\nredis            {redis}\nrabbitmq         {rabbitmq}");
            println!(
                "administrator    {}; the password is used only if the account is still to be made",
                admin.username
            );
        }
    }
    println!("listens on       {}:{}", server.host, server.port);
    if let Some((host, port)) = server.for_admins() {
        println!("administrators   {host}:{port}");
    }
    println!("log              {:?}", config.log.format);
    for warning in config.warnings() {
        println!("warning          {warning}");
    }
    println!("The configuration is valid. Nothing was connected to.");
    Ok(())
}
