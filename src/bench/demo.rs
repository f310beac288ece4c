//! `seckill demo`: a sale in half a minute. A server of its own in a folder of its own, a crowd that clicks too often,
//! and the proof.

use std::sync::Arc;

use clap::Args;

use super::generator::{Load, Pace};
use super::proof::Proof;
use super::target::{BenchFolder, TargetApi, fire_with_bar};
use crate::app::RunningApp;
use crate::config::{Backend, Config};
use crate::data_dir::{random_key, random_password};
use crate::db::Db;
use crate::services::Tokens;

/// What `seckill demo` can be told.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Units on sale.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    stock: u32,
    /// Buyers; each clicks twice.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=500_000))]
    buyers: u32,
}

/// Clicks under way at once.
const CONNECTIONS: usize = 256;

pub(super) async fn run(mut config: Config, args: &DemoArgs) -> Result<(), String> {
    let folder = BenchFolder::make()?;
    config.backend = Backend::Embedded;
    config.embedded.data_dir = folder.0.clone();
    config.server.host = "127.0.0.1".to_owned();
    config.server.port = 0;
    config.auth.jwt_secret = random_key().into();
    config.admin.password = random_password().into();
    let app = RunningApp::start(&config).await.map_err(|error| error.to_string())?;
    let tokens = Tokens::new(&config.auth.jwt_secret, std::time::Duration::from_secs(3600));
    let api = TargetApi::new(app.address(), tokens);
    let product = api.new_product(args.stock as usize).await?;

    say!("{} units go on sale, {} buyers click twice each.", args.stock, args.buyers);
    let first = api.clicks(product, 0, args.buyers as usize)?;
    let requests: Vec<_> = first.iter().flat_map(|click| [click.clone(), click.clone()]).collect();
    let count = requests.len();
    let load = Load { addresses: vec![api.address()], requests, count, connections: CONNECTIONS, pace: Pace::Closed };
    let run = fire_with_bar(load, "clicks", &Arc::default()).await?;
    let accepted = run.count("202");
    let db = Db::sqlite(&folder.0.join("seckill.db"));
    let proof = Proof::wait(&db, product, accepted, |_| ()).await?;
    app.stop().await;

    let rows = [
        ("clicks", run.total().to_string()),
        ("clicks a second", format!("{:.0}", run.per_second())),
        ("answered within", format!("{:.1} ms (99 of 100)", run.percentile_ms(99.0))),
        ("stock", args.stock.to_string()),
        ("accepted (202)", accepted.to_string()),
        ("refused, sold out", run.count("409 sold_out").to_string()),
        ("refused, already purchased", run.count("409 already_purchased").to_string()),
        ("refused, too soon again", run.count("429 rate_limited").to_string()),
        ("orders in the database", proof.counted.live_orders.to_string()),
        ("buyers with two orders", proof.doubles().to_string()),
        ("oversold", proof.oversold().to_string()),
    ];
    for (name, value) in rows {
        say!("  {name:28}{value:>12}");
    }
    let known = ["202", "409 sold_out", "409 already_purchased", "429 rate_limited"];
    let others = run.total() - known.iter().map(|reply| run.count(reply)).sum::<u64>();
    if others > 0 {
        return Err(format!("{others} clicks were answered otherwise: {:?}", run.replies));
    }
    proof.check()
}
