//! A Redis that answers, but refuses: buyers are asked to come again, readiness says so, and it sells again by itself.

use std::fs;
use std::time::{Duration, Instant};

use deadpool_redis::redis::cmd;
use seckill::config::{Backend, Config};

use crate::client::{Answer, Client};
use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::{self, Link};
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

/// Once nothing is refused any more.
const SELLS_WITHIN: Duration = Duration::from_secs(2);
/// The same where the server's identity has changed, so that the gate is rebuilt.
const REBUILT_WITHIN: Duration = Duration::from_secs(10);

/// Long enough for both faults, however quick the machine is; whoever could not buy meanwhile tries on.
const CROWD: Plan =
    Plan { lasting: Duration::from_secs(6), patience: Duration::from_secs(120), ..Plan::rush(900, 1200) };
/// All that a purchase needs, and nothing else.
const RULES: &str =
    "+@hash +@sortedset +@string +@keyspace -@dangerous +@scripting +@transaction +@connection +info +time";

async fn tell(config: &Config, commands: &[&str]) {
    let mut redis = link::redis(config).await.expect("Redis");
    for command in commands {
        let mut words = command.split(' ');
        let mut command = cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>()).query_async::<()>(&mut redis).await.unwrap();
    }
}

/// A Redis of its own, and the configuration of a user who may do no more than it must.
async fn shop(trial: &mut Trial) -> (Daemon, Config) {
    let mut user = vec!["--user", "shop", "on", ">shop-password", "~seckill:*"];
    user.extend(RULES.split(' '));
    let redis = Daemon::start_with(Link::Redis, &mut trial.config, &user).await;
    let mut as_shop = trial.config.clone();
    as_shop.redis.username = "shop".to_owned();
    as_shop.redis.password = "shop-password".into();
    (redis, as_shop)
}

/// Refuses twice in the middle of a sale. `relent` returns when it was over.
async fn refuses(
    fault: &str,
    word: &str,
    sells_within: Duration,
    refuse: impl AsyncFn(&mut Daemon, &Config),
    relent: impl AsyncFn(&mut Daemon, &Config),
) {
    let mut trial = Trial::begin(format!("Redis refuses: {fault}"), Backend::Distributed).await;
    let (mut redis, as_shop) = shop(&mut trial).await;
    let server = Server::start(&as_shop).await;
    let crowd = trial.open_sale(&[&server], CROWD).await;
    let mut refused = Duration::ZERO;
    for round in 1..=2 {
        crowd.sold(round * 25).await;
        let begun = Instant::now();
        refuse(&mut redis, &trial.config).await;
        trial.injected += 1;
        eventually_within(15, "readiness says so", || async {
            let (status, body) = server.readiness().await;
            status == 503 && body.contains(&format!("\"gate_trouble\":\"{word}\""))
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        relent(&mut redis, &trial.config).await;
        refused += begun.elapsed();
        let after = crowd.sells_after(Instant::now(), sells_within).await;
        trial.sold_again(after, sells_within);
        eventually_within(10, "it is ready again", || async { server.readiness().await.0 == 200 }).await;
    }
    trial.refused_meanwhile(&crowd);
    let log = server.log();
    let lines = log.lines().filter(|line| line.contains(&format!("{word}: "))).count();
    // The fault may be named by the purchases, by the look of `/readyz` and by the comparison of the stores.
    if !(1..=12).contains(&lines) {
        trial.problem(format!("{lines} lines of the log name {word}: {log}"));
    }
    let lines = log.lines().skip_while(|line| !line.contains("Serving HTTP"));
    let lines = lines.filter(|line| line.contains("WARN") || line.contains("ERROR")).count();
    // Each time: the trouble itself, the purchases, the sweep, readiness, and the rebuild after it; and a line a second.
    if lines as f64 > 12.0 + refused.as_secs_f64() {
        trial.problem(format!("{lines} warnings in {refused:?}: {log}"));
    }
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

macro_rules! refusals {
    ($($name:ident, $word:literal, $refuse:expr, $relent:expr, $within:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "minutes; make test-faults"]
        async fn $name() {
            let refuse = async |_: &mut Daemon, config: &Config| tell(config, &$refuse).await;
            let relent = async |_: &mut Daemon, config: &Config| tell(config, &$relent).await;
            refuses(stringify!($name), $word, $within, refuse, relent).await;
        })+
    };
}

refusals! {
    its_memory_is_full, "OOM", ["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"], SELLS_WITHIN;
    too_few_replicas, "NOREPLICAS", ["CONFIG SET min-replicas-to-write 1"], ["CONFIG SET min-replicas-to-write 0"],
        SELLS_WITHIN;
    it_became_a_replica, "READONLY", ["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"], REBUILT_WITHIN;
    its_user_may_not_evalsha, "NOPERM", ["ACL SETUSER shop -evalsha"], ["ACL SETUSER shop +evalsha"], SELLS_WITHIN;
    its_user_may_not_zadd, "ERR", ["ACL SETUSER shop -zadd"], ["ACL SETUSER shop +zadd"], SELLS_WITHIN;
    its_user_may_not_see_the_keys, "NOPERM", ["ACL SETUSER shop resetkeys"], ["ACL SETUSER shop ~seckill:*"], SELLS_WITHIN;
}

/// Has Redis fail to save, as on a full disk: a folder stands where its file belongs.
async fn cannot_save(redis: &mut Daemon, config: &Config) {
    fs::create_dir(redis.folder().join("dump.rdb")).unwrap();
    let mut conn = link::redis(config).await.expect("Redis");
    cmd("CONFIG").arg("SET").arg("save").arg("3600 1").query_async::<()>(&mut conn).await.unwrap();
    tell(config, &["BGSAVE"]).await;
}

async fn can_save_again(redis: &mut Daemon, config: &Config) {
    fs::remove_dir(redis.folder().join("dump.rdb")).unwrap();
    tell(config, &["BGSAVE"]).await;
    eventually_within(10, "it has saved", || async { info(config).await.contains("rdb_last_bgsave_status:ok") }).await;
    fs::remove_file(redis.folder().join("dump.rdb")).unwrap();
}

async fn info(config: &Config) -> String {
    cmd("INFO").query_async(&mut link::redis(config).await.expect("Redis")).await.unwrap()
}

/// Guards against: a full disk of Redis, which then takes no writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn it_cannot_save() {
    refuses("it_cannot_save", "MISCONF", REBUILT_WITHIN, cannot_save, can_save_again).await;
}

/// Has Redis start again with so much to read that it takes ten seconds: on a busy machine the first looks get no answer in time.
async fn start_with_much_to_read(redis: &mut Daemon, config: &Config) {
    let fill = "for n = 1, 800 do redis.call('SET', 'ballast:' .. n, string.rep('x', 4000)) end";
    let mut conn = link::redis(config).await.expect("Redis");
    cmd("EVAL").arg(fill).arg(0).query_async::<()>(&mut conn).await.unwrap();
    cmd("BGREWRITEAOF").query_async::<()>(&mut conn).await.unwrap();
    eventually_within(10, "it is written", || async {
        let info = info(config).await;
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    })
    .await;
    redis.kill().await;
    redis
        .arguments
        .extend(["--key-load-delay", "12000", "--loading-process-events-interval-bytes", "1024"].map(str::to_owned));
    redis.launch();
}

/// Guards against: a Redis that has come back and still reads its data, taken for one that is broken or for one that lost
/// everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn it_is_still_loading() {
    let loaded = async |redis: &mut Daemon, _: &Config| {
        redis.usable().await;
    };
    refuses("it_is_still_loading", "LOADING", REBUILT_WITHIN, start_with_much_to_read, loaded).await;
}

/// Has a script of somebody else run until it is stopped.
async fn run_a_long_script(_: &mut Daemon, config: &Config) {
    tell(config, &["CONFIG SET busy-reply-threshold 100"]).await;
    let mut conn = link::redis(config).await.expect("Redis");
    tokio::spawn(async move { cmd("EVAL").arg("while true do end").arg(0).query_async::<()>(&mut conn).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// No other command is answered meanwhile, the choice of a database included.
async fn stop_the_script(_: &mut Daemon, config: &Config) {
    let mut of_no_database = config.clone();
    of_no_database.redis.db = 0;
    tell(&of_no_database, &["SCRIPT KILL"]).await;
}

/// Guards against: a long script of somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn it_runs_a_long_script() {
    refuses("it_runs_a_long_script", "BUSY", SELLS_WITHIN, run_a_long_script, stop_the_script).await;
}

/// Starts while Redis refuses: it serves, says why it sells nothing, and sells by itself once Redis has relented.
async fn starts_beside(
    fault: &str,
    word: &str,
    refuse: impl AsyncFn(&mut Daemon, &Config),
    relent: impl AsyncFn(&mut Daemon, &Config),
) {
    let mut trial = Trial::begin(format!("start beside a Redis that refuses: {fault}"), Backend::Distributed).await;
    let (mut redis, as_shop) = shop(&mut trial).await;
    refuse(&mut redis, &trial.config).await;
    trial.injected += 1;
    let server = Server::start_unready(&as_shop).await;
    let named = || async { server.log().lines().any(|line| line.contains(&format!("{word}: "))) };
    eventually_within(5, "the log names it", named).await;
    eventually_within(5, "readiness names it", || async {
        let (status, body) = server.readiness().await;
        status == 503 && body.contains(&format!("\"gate_trouble\":\"{word}\""))
    })
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let lines = server.log().lines().filter(|line| line.contains(&format!("{word}: "))).count();
    assert!(lines <= 8, "{}", server.log());
    relent(&mut redis, &trial.config).await;
    eventually_within(10, "it is ready", || async { server.readiness().await.0 == 200 }).await;
    let client = Client::new(&trial.config, vec![server.url()]);
    let product = client.new_product(5).await;
    eventually_within(10, "it sells", || async { client.buy(&client.buyer(7), product, 0).await.answer.is_final() })
        .await;
    trial.finish(vec![server]).await;
}

macro_rules! starts {
    ($($name:ident, $word:literal, $refuse:expr, $relent:expr;)+) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            starts_beside(stringify!($name), $word, $refuse, $relent).await;
        })+
    };
}

/// Guards against: a key that says whose gates these are and was spoiled, taken for a Redis that is away, so that nothing says
/// why no instance starts to sell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_the_deployment_that_cannot_be_read_is_named() {
    let mut trial = Trial::begin("Redis: the deployment's key is spoiled", Backend::Distributed).await;
    let server = Server::start(&trial.config).await;
    let client = Client::new(&trial.config, vec![server.url()]);
    let product = client.new_product(5).await;
    tell(&trial.config, &["DEL seckill:deployment", "RPUSH seckill:deployment x"]).await;
    trial.injected += 1;
    let late = Server::start_unready(&trial.config).await;
    for server in [&server, &late] {
        eventually_within(5, "readiness names it", || async {
            let (status, body) = server.readiness().await;
            status == 503 && body.contains(r#""gate":"down","gate_trouble":"broken""#)
        })
        .await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for server in [&server, &late] {
        let log = server.log();
        let told = log.lines().filter(|line| line.contains("does not say whose gates these are")).count();
        assert_eq!(told, 1, "{log}");
        assert!(log.contains("deployment adopt --take"), "{log}");
    }
    // Whoever knew whose gates these are sells on, and nobody else.
    let at_late = Client::new(&trial.config, vec![late.url()]);
    assert!(client.buy(&client.buyer(1), product, 0).await.answer.is_final());
    assert_eq!(at_late.buy(&client.buyer(2), product, 0).await.answer, Answer::Later);
    seckill::app::membership(&trial.config).unwrap().adopt(true).await.unwrap();
    for (user, server, client) in [(3, &server, &client), (4, &late, &at_late)] {
        eventually_within(10, "it is ready", || async { server.readiness().await.0 == 200 }).await;
        let buyer = client.buyer(user);
        eventually_within(10, "it sells", || async { client.buy(&buyer, product, 0).await.answer.is_final() }).await;
    }
    trial.finish(vec![server, late]).await;
}

/// Guards against: a start that waits for ever for whose gates these are, or that takes a refusal for another deployment.
mod at_the_start {
    use super::*;

    starts! {
        its_memory_is_full, "OOM", async |_: &mut Daemon, config: &Config| tell(config, &["CONFIG SET maxmemory 1"]).await,
            async |_: &mut Daemon, config: &Config| tell(config, &["CONFIG SET maxmemory 0"]).await;
        too_few_replicas, "NOREPLICAS",
            async |_: &mut Daemon, config: &Config| tell(config, &["CONFIG SET min-replicas-to-write 1"]).await,
            async |_: &mut Daemon, config: &Config| tell(config, &["CONFIG SET min-replicas-to-write 0"]).await;
        it_is_a_replica, "READONLY",
            async |_: &mut Daemon, config: &Config| tell(config, &["REPLICAOF 127.0.0.1 1"]).await,
            async |_: &mut Daemon, config: &Config| tell(config, &["REPLICAOF NO ONE"]).await;
        it_cannot_save, "MISCONF", cannot_save, can_save_again;
        it_runs_a_long_script, "BUSY", run_a_long_script, stop_the_script;
        its_user_may_not_set, "ERR",
            async |_: &mut Daemon, config: &Config| tell(config, &["ACL SETUSER shop -setnx -set"]).await,
            async |_: &mut Daemon, config: &Config| tell(config, &["ACL SETUSER shop +setnx +set"]).await;
    }
}
