//! Two builds in turn, pair by pair: what a change has made of the speed, on a machine whose own speed drifts.

use std::path::{Path, PathBuf};

use super::BenchArgs;
use super::measures::{open_db, target_api};
use super::own_stores::{Known, OwnStores};
use super::report::median;
use super::sale::{SaleFigures, Size, Target, hold};
use super::server::{Server, this_program};
use crate::config::Config;

/// Pairs for each round that would be measured of one build alone.
const PAIRS_A_ROUND: usize = 3;

/// A figure of a sale.
type Figure = (&'static str, fn(&SaleFigures) -> f64);

const FIGURES: [Figure; 5] = [
    ("purchases accepted a second", |sale| sale.accepted.per_second),
    ("orders written a second", |sale| sale.written_per_second),
    ("sold-out refusals a second", |sale| sale.refused.per_second),
    ("server CPU a purchase", |sale| sale.accepted.server_cpu_us.unwrap_or(f64::NAN)),
    ("server CPU a refusal", |sale| sale.refused.server_cpu_us.unwrap_or(f64::NAN)),
];

pub(super) async fn run(config: Config, file: Option<PathBuf>, other: &Path, args: &BenchArgs) -> Result<(), String> {
    let absolute = |path: &Path| path.canonicalize().map_err(|error| format!("{}: {error}", path.display()));
    let (this, other) = (this_program()?, absolute(other)?);
    let file = file.map(|file| absolute(&file)).transpose()?;
    let pairs = usize::from(args.rounds) * PAIRS_A_ROUND;
    let mut ratios: Vec<Vec<f64>> = vec![Vec::new(); FIGURES.len()];
    for pair in 1..=pairs {
        // Whoever comes second may find a warmer machine, or a slower one.
        let order = if pair % 2 == 0 { [&this, &other] } else { [&other, &this] };
        let mut figures = Vec::new();
        for program in order {
            let name = if program == &this { "this build" } else { "the other build" };
            let title = format!("pair {pair} of {pairs}, {name}");
            let measuring = async |stores: &OwnStores| measure(stores, file.as_deref(), program, args, &title).await;
            figures.push(OwnStores::lend(&config, Known::ByAnyBuild, measuring).await?);
        }
        if order[0] == &this {
            figures.swap(0, 1);
        }
        let [before, now] = &figures[..] else { return Err("a pair has two".to_owned()) };
        for (ratios, (_, figure)) in ratios.iter_mut().zip(FIGURES) {
            ratios.push(figure(now) / figure(before));
        }
    }
    say!("this build / {}, medians of {pairs} pairs", other.display());
    say!("| {:<28} | ratio | lowest | highest |\n|:{:-<28}-|------:|-------:|--------:|", "", "");
    for ((name, _), ratios) in FIGURES.iter().zip(ratios) {
        let (least, most) =
            (ratios.iter().copied().fold(f64::MAX, f64::min), ratios.iter().copied().fold(0.0, f64::max));
        let middle = median(ratios).unwrap_or(f64::NAN);
        say!("| {name:<28} | {middle:>5.2} | {least:>6.2} | {most:>7.2} |");
    }
    Ok(())
}

async fn measure(
    stores: &OwnStores,
    file: Option<&Path>,
    program: &Path,
    args: &BenchArgs,
    title: &str,
) -> Result<SaleFigures, String> {
    let config = &stores.config;
    // Where there is no config.yaml: each build has its own defaults, and may not know a key of the other's.
    let server = Server::start(program, stores.folder(), file, &stores.settings).await?;
    let api = target_api(server.address, config).with_tokens_as_issued(&config.auth.jwt_secret).await?;
    let stock = args.stock as usize;
    let size = Size { stock, late: stock, connections: args.most_connections() };
    let figures = hold(&Target { api: &api, db: &open_db(config), server: Some(&server) }, size, title).await?;
    server.end().await;
    figures.proof.check()?;
    Ok(figures)
}
