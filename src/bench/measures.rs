//! `seckill bench`: everything side by side in each round, so that a machine whose speed drifts disturbs all alike.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use url::Url;

use super::generator::{Load, Pace, request};
use super::log_ins::LogInLoad;
use super::own_stores::{Known, OwnStores};
use super::proof::Proof;
use super::report::{Backlog, FixedRate, Measure, Report, Series};
use super::sale::{Sample, Size, Target, cpu, expect_only, hold, spent};
use super::server::{Server, this_program};
use super::target::{TargetApi, fire_with_bar};
use super::{BenchArgs, backlog, baseline, raw_limits, unless_stopped};
use crate::config::{Backend, Config};
use crate::db::Db;
use crate::services::Tokens;

const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);
/// Requests that a bare endpoint or a reader gets: about a second's worth.
const PLAIN_REQUESTS: usize = 120_000;
/// Late buyers, and how many there are for each unit at most.
const LATE_BUYERS: usize = 100_000;
const LATE_PER_UNIT: usize = 2;
/// Purchases one after the other, each alone.
const LONE_PURCHASES: usize = 500;
/// Before them, nothing happens for this long.
const REST: Duration = Duration::from_millis(300);
/// Shares of the highest rate at which the latency is measured, for this long.
const SHARES: [f64; 3] = [0.1, 0.5, 0.8];
const FIXED_RATE_SECONDS: f64 = 3.0;

/// Everything that a run needs.
pub(super) struct Bench {
    pub(super) api: TargetApi,
    pub(super) db: Db,
    own: Option<Own>,
}

/// The processes that the bench has started itself, and their configuration.
struct Own {
    server: Server,
    baseline: Server,
    config: Config,
}

/// The database of the configured backend.
pub(super) fn open_db(config: &Config) -> Db {
    match config.backend {
        Backend::Embedded => Db::sqlite(&config.embedded.data_dir.join("seckill.db")),
        Backend::Distributed => Db::mysql(&config.mysql),
    }
}

impl Bench {
    /// Of a server of our own.
    async fn start(stores: &OwnStores, file: Option<&Path>) -> Result<Self, String> {
        let config = stores.config.clone();
        let server = Server::start(&this_program()?, Path::new("."), file, &stores.settings).await?;
        let (address, baseline) = (server.address, Server::start_baseline().await?);
        Ok(Self {
            api: target_api(address, &config),
            db: open_db(&config),
            own: Some(Own { server, baseline, config }),
        })
    }

    /// Of a server that runs on this configuration.
    fn of(url: &Url, mut config: Config) -> Result<Self, String> {
        if config.auth.jwt_secret.expose_secret().is_empty() {
            let path = config.embedded.data_dir.join("jwt_secret");
            let secret = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            config.auth.jwt_secret = secret.trim().into();
        }
        Ok(Self { api: target_api(resolve(url)?, &config), db: open_db(&config), own: None })
    }

    fn target(&self) -> Target<'_> {
        Target { api: &self.api, db: &self.db, server: self.own.as_ref().map(|own| &own.server) }
    }

    /// The same request again and again; what it costs the server.
    async fn repeat(
        &self,
        at: (SocketAddr, Option<&Server>),
        what: Vec<u8>,
        connections: usize,
        title: &str,
        reply: &str,
    ) -> Result<Sample, String> {
        let (address, server) = at;
        let count = PLAIN_REQUESTS;
        let load = Load { addresses: vec![address], requests: vec![what], count, connections, pace: Pace::Closed };
        let before = cpu(server);
        let run = fire_with_bar(load, title, &Arc::default()).await?;
        expect_only(&run, reply, count)?;
        Ok(Sample::new(run, spent(before, cpu(server))))
    }

    /// F, if there is a bare endpoint of ours.
    async fn baseline(&self, connections: usize, title: &str) -> Result<Option<Sample>, String> {
        let Some(own) = &self.own else { return Ok(None) };
        let request = request("POST", "/baseline", None, Some(baseline::BODY));
        let at = (own.baseline.address, Some(&own.baseline));
        self.repeat(at, request, connections, &format!("{title}: F"), "202").await.map(Some)
    }

    async fn round(&self, args: &BenchArgs, title: &str, series: &mut Series) -> Result<(), String> {
        let stock = args.stock as usize;
        for connections in args.connections() {
            let late = LATE_BUYERS.min(stock * LATE_PER_UNIT);
            let size = Size { stock, late, connections };
            let title = format!("{title}, {connections} connections");
            // Before and after: the machine drifts within a round, too.
            let before = self.baseline(connections, &title).await?;
            let sale = hold(&self.target(), size, &title).await?;
            if let Some((before, after)) = before.zip(self.baseline(connections, &title).await?) {
                series.add(Measure::Baseline, connections, before.mean(after));
            }
            series.add(Measure::Accepted, connections, sale.accepted);
            series.add(Measure::Refused, connections, sale.refused);
            series.written(connections, sale.written_per_second, sale.progress);
            series.proofs.push(sale.proof);
        }
        let connections = args.most_connections();
        let product = self.api.new_product(1).await?;
        let read = request("GET", &format!("/products/{product}"), None, None);
        let at = (self.api.address(), self.target().server);
        let reads = self.repeat(at, read, connections, &format!("{title}: reading"), "200").await?;
        series.add(Measure::Reads, connections, reads);
        if self.own.is_some() {
            self.during_log_ins(stock, connections, title, series).await?;
        }
        self.lone(title, series).await
    }

    /// A sale while more users log in than passwords can be hashed for.
    async fn during_log_ins(
        &self,
        stock: usize,
        connections: usize,
        title: &str,
        series: &mut Series,
    ) -> Result<(), String> {
        let load = LogInLoad::begin(self.api.address()).await;
        let size = Size { stock, late: 0, connections };
        let sale = hold(&self.target(), size, &format!("{title}, log-ins")).await?;
        series.log_ins.add(&load.end().await);
        series.add(Measure::DuringLogIns, connections, sale.accepted);
        series.proofs.push(sale.proof);
        Ok(())
    }

    /// Purchases one after the other on an idle system.
    async fn lone(&self, title: &str, series: &mut Series) -> Result<(), String> {
        let count = LONE_PURCHASES;
        let product = self.api.new_product(count).await?;
        let requests = self.api.clicks(product, 0, count)?;
        tokio::time::sleep(REST).await;
        let load = Load { addresses: vec![self.api.address()], requests, count, connections: 1, pace: Pace::Closed };
        let before = cpu(self.target().server);
        let run = fire_with_bar(load, &format!("{title}: alone"), &Arc::default()).await?;
        expect_only(&run, "202", count)?;
        series.add(Measure::Lone, 1, Sample::new(run, spent(before, cpu(self.target().server))));
        series.proofs.push(Proof::wait(&self.db, product, count as u64, |_| ()).await?);
        Ok(())
    }

    /// Purchases at a fixed rate, whatever the server does.
    async fn at_fixed_rate(&self, share: f64, most: f64, connections: usize) -> Result<(FixedRate, Proof), String> {
        let per_second = (share * most).max(1.0);
        let count = (per_second * FIXED_RATE_SECONDS) as usize;
        let product = self.api.new_product(count).await?;
        let requests = self.api.clicks(product, 0, count)?;
        let pace = Pace::Open { per_second };
        let load = Load { addresses: vec![self.api.address()], requests, count, connections, pace };
        let title = format!("{:.0} % of the highest rate", share * 100.0);
        let run = fire_with_bar(load, &title, &Arc::default()).await?;
        let proof = Proof::wait(&self.db, product, run.count("202"), |_| ()).await?;
        Ok((FixedRate::new(share, per_second, connections, run), proof))
    }
}

pub(super) async fn run(config: Config, file: Option<PathBuf>, args: &BenchArgs) -> Result<(), String> {
    match &args.url {
        Some(url) => unless_stopped(Bench::of(url, config.clone())?.run(args, config.backend)).await,
        None => {
            let measuring = async |stores: &OwnStores| {
                let bench = Bench::start(stores, file.as_deref()).await?;
                bench.run(args, config.backend).await
            };
            OwnStores::lend(&config, Known::ByThisBuild, measuring).await
        }
    }
}

impl Bench {
    async fn run(self, args: &BenchArgs, backend: Backend) -> Result<(), String> {
        // What is measured of the servers beneath.
        let beneath = self.own.as_ref().map(|own| &own.config).filter(|_| backend == Backend::Distributed);
        let mut series = Series::default();
        if let Some(config) = beneath {
            // First: the table that the raw limit is measured with is empty, too.
            let (drained_per_second, proof) = backlog::drain(&self.target(), config, args.stock as usize).await?;
            series.backlog = Some(Backlog { orders: args.stock, drained_per_second });
            series.proofs.push(proof);
        }
        for number in 1..=args.rounds {
            let title = format!("round {number} of {}", args.rounds);
            self.round(args, &title, &mut series).await?;
            if let Some(config) = beneath {
                match raw_limits::measure(config).await {
                    Ok(limits) => series.raw_limits.push(limits),
                    Err(problem) => eprintln!("The raw limits are left out: {problem}"),
                }
            }
        }
        let connections = args.most_connections();
        let most = series.median(Measure::Accepted, connections, |sample| Some(sample.per_second)).unwrap_or(1.0);
        let mut fixed_rates = Vec::new();
        for share in SHARES {
            let (figures, proof) = self.at_fixed_rate(share, most, connections).await?;
            fixed_rates.push(figures);
            series.proofs.push(proof);
        }
        self.api.end_sales().await?;
        let peak_memory_kib = self.own.as_ref().map(|own| own.server.usage().peak_memory_kib);
        if let Some(own) = self.own {
            own.server.end().await;
        }
        let report = Report::new(backend, args, &series, fixed_rates, peak_memory_kib);
        crate::output::print(format_args!("{}", report.table()));
        report.save(&args.output, &series)?;
        series.proofs.iter().try_for_each(Proof::check)
    }
}

/// A server on this configuration, whose tokens are signed here.
pub(super) fn target_api(address: SocketAddr, config: &Config) -> TargetApi {
    TargetApi::new(address, Tokens::new(&config.auth.jwt_secret, TOKEN_LIFETIME))
}

fn resolve(url: &Url) -> Result<SocketAddr, String> {
    let problem = |what: &str| format!("--url {url}: {what}");
    if url.scheme() != "http" || !matches!(url.path(), "" | "/") {
        return Err(problem("must be http://host:port"));
    }
    let found = url.socket_addrs(|| None).map_err(|error| problem(&error.to_string()))?;
    found.into_iter().next().ok_or_else(|| problem("has no address"))
}
