//! `seckill bench --bots`: a crowd of people and, on a few machines, ten times as many accounts of programs, which do not wait for the
//! sale to begin. Who gets the units, without a limit of an address and with one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::generator::{Load, Pace, Run, fire};
use super::measures::{open_db, target_api};
use super::own_stores::{Known, OwnStores};
use super::proof::Proof;
use super::server::{Server, migrate, this_program};
use crate::config::Config;
use crate::model::Timestamp;

const STOCK: usize = 1_000;
const PEOPLE: usize = 20_000;
/// How long after the start the first of them clicks, and within which time all of them do.
const REACTION: Duration = Duration::from_millis(150);
const PEOPLE_WITHIN: Duration = Duration::from_secs(1);
const BOTS: usize = 200_000;
/// Machines of theirs. Each has an address.
const BOT_ADDRESSES: usize = 50;
/// They click from so long before the start on, some of them twice.
const BOTS_AHEAD: Duration = Duration::from_millis(500);
const BOT_CLICKS: usize = 300_000;
/// Clicks under way at once, of either.
const CONNECTIONS: usize = 256;
/// For putting all these clicks together before the sale begins.
const PREPARATION: Duration = Duration::from_secs(15);
/// Units an address, where there is a limit.
const LIMIT: u32 = 2;

pub(super) async fn run(config: &Config, file: Option<&Path>) -> Result<(), String> {
    say!(
        "{STOCK} units; {PEOPLE} people, each at an address of their own; {BOTS} accounts of bots at {BOT_ADDRESSES} addresses"
    );
    for limit in [None, Some(LIMIT)] {
        let hold = async |stores: &OwnStores| hold_sale(stores, file, limit).await;
        let [people, bots] = OwnStores::lend(config, Known::ByThisBuild, hold).await?;
        let name = limit.map_or("no limit".to_owned(), |limit| format!("max_per_address {limit}"));
        say!(
            "{name:18} people got {:>4}, bots {:>4} of {STOCK} units; people were answered within {:.0} ms (99 of 100)",
            people.count("202"),
            bots.count("202"),
            people.percentile_ms(99.0)
        );
        for (who, run) in [("people", &people), ("bots", &bots)] {
            say!("                   {who}: {}", replies(run));
        }
    }
    Ok(())
}

fn replies(run: &Run) -> String {
    let replies: Vec<String> = run.replies.iter().map(|(reply, count)| format!("{count} x {reply}")).collect();
    replies.join(", ")
}

/// One sale: what became of the clicks of people and of bots.
async fn hold_sale(stores: &OwnStores, file: Option<&Path>, limit: Option<u32>) -> Result<[Run; 2], String> {
    let config = &stores.config;
    migrate(file, &stores.settings).await?;
    let mut settings = stores.settings.clone();
    // It is the proxy who says where a click comes from: this program.
    settings.push(("SECKILL__SERVER__TRUSTED_PROXIES", "127.0.0.1".to_owned()));
    let server = Server::start(&this_program()?, Path::new("."), file, &settings).await?;
    let api = target_api(server.address, config);
    let starts_at = Timestamp::now().after(PREPARATION);
    let limit = limit.map_or("null".to_owned(), |limit| limit.to_string());
    let terms = format!(r#","starts_at":"{starts_at}","max_per_address":{limit}"#);
    let product = api.new_product_with(STOCK, &terms).await?;
    let clicks_from = |first: usize, count: usize, address: fn(usize) -> String| -> Result<Vec<Vec<u8>>, String> {
        let clicks = api.clicks(product, first, count)?;
        Ok(clicks.into_iter().enumerate().map(|(number, click)| sent_on(click, &address(number))).collect())
    };
    let people = clicks_from(0, PEOPLE, |number| format!("10.{}.{}.1", number / 250, number % 250))?;
    let bots = clicks_from(PEOPLE, BOTS, |number| format!("198.51.100.{}", number % BOT_ADDRESSES + 1))?;
    let load = |requests, count, pace| Load {
        addresses: vec![server.address],
        requests,
        count,
        connections: CONNECTIONS,
        pace,
    };
    let pace = Pace::Open { per_second: PEOPLE as f64 / PEOPLE_WITHIN.as_secs_f64() };
    let people = begin(starts_at.after(REACTION), load(people, PEOPLE, pace));
    let bots = begin(starts_at.before(BOTS_AHEAD), load(bots, BOT_CLICKS, Pace::Closed));
    let (people, bots) = tokio::try_join!(people, bots)?;
    let accepted = people.count("202") + bots.count("202");
    Proof::wait(&open_db(config), product, accepted, |_| ()).await?.check()?;
    server.end().await;
    Ok([people, bots])
}

/// Sends a load from that time on.
async fn begin(at: Timestamp, load: Load) -> Result<Run, String> {
    let wait = at.since(Timestamp::now());
    if wait.is_zero() {
        return Err("the clicks were not ready when the sale began".to_owned());
    }
    tokio::time::sleep(wait).await;
    fire(load, Arc::default()).await.map_err(|error| format!("clicks: {error}"))
}

/// The same request, as a proxy sends it on for that address. It has no body.
fn sent_on(mut request: Vec<u8>, address: &str) -> Vec<u8> {
    request.truncate(request.len() - 2);
    request.extend_from_slice(format!("X-Forwarded-For: {address}\r\n\r\n").as_bytes());
    request
}

#[cfg(test)]
mod tests {
    use super::super::generator::request;
    use super::*;

    #[test]
    fn a_click_says_where_it_comes_from() {
        let click = String::from_utf8(sent_on(request("POST", "/seckill/1", Some("token"), None), "10.0.0.1")).unwrap();
        assert!(click.ends_with("Content-Length: 0\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"), "{click}");
    }
}
