//! What a run has found: on the terminal, as JSON, and as a page with pictures.

mod table;

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::BenchArgs;
use super::generator::{Run, histogram, percentile_ms};
use super::log_ins::LogIns;
use super::pictures::{Bar, LatencyCurve, Timeline, latency_by_rate, over_time, throughput_against_baseline};
use super::proof::Proof;
use super::raw_limits::RawLimits;
use super::sale::{Progress, Sample};
use crate::config::Backend;

/// Percentiles of a curve: enough for a smooth line to the last request.
const CURVE: [f64; 14] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99];

/// In seconds.
const RATE_OVER: f64 = 0.25;

/// What is measured again and again. Names in report.json stay as they were: scripts read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Measure {
    #[serde(rename = "floor")]
    Baseline,
    Accepted,
    DuringLogIns,
    Refused,
    Reads,
    Lone,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Baseline => "F, a bare endpoint",
            Self::Accepted => "purchases accepted",
            Self::DuringLogIns => "  while users log in",
            Self::Refused => "sold-out refusals",
            Self::Reads => "reads of a product",
            Self::Lone => "a purchase alone",
        }
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Series {
    samples: BTreeMap<(Measure, usize), Vec<Sample>>,
    written: BTreeMap<usize, Vec<f64>>,
    /// Of the last of the sales at the most connections.
    progress: Vec<Progress>,
    pub(super) proofs: Vec<Proof>,
    pub(super) raw_limits: Vec<RawLimits>,
    pub(super) backlog: Option<Backlog>,
    pub(super) log_ins: LogIns,
}

/// Orders that had piled up, and how fast they were written.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Backlog {
    pub(super) orders: u32,
    pub(super) drained_per_second: f64,
}

impl Series {
    pub(super) fn add(&mut self, measure: Measure, connections: usize, sample: Sample) {
        self.samples.entry((measure, connections)).or_default().push(sample);
    }

    pub(super) fn written(&mut self, connections: usize, per_second: f64, progress: Vec<Progress>) {
        self.written.entry(connections).or_default().push(per_second);
        if self.written.keys().all(|others| *others <= connections) {
            self.progress = progress;
        }
    }

    /// The median over the rounds.
    pub(super) fn median(
        &self,
        measure: Measure,
        connections: usize,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<f64> {
        median(self.samples.get(&(measure, connections))?.iter().filter_map(figure).collect())
    }

    /// The median of what each round's figure was of another one's of the same round: the machine drifts from one to the
    /// next.
    fn share(&self, measure: Measure, of: Measure, connections: usize) -> Option<f64> {
        let rates = |measure| self.samples.get(&(measure, connections)).into_iter().flatten().map(|s| s.per_second);
        median(rates(measure).zip(rates(of)).map(|(rate, of)| rate / of).collect())
    }

    fn latencies(&self, measure: Measure, connections: usize) -> Histogram<u64> {
        let mut all = histogram();
        for sample in self.samples.get(&(measure, connections)).into_iter().flatten() {
            all += &sample.latencies;
        }
        all
    }

    /// By how much F differed between the rounds, in percent.
    fn baseline_spread(&self) -> Option<f64> {
        let spread = |samples: &Vec<Sample>| {
            let rates = || samples.iter().map(|sample| sample.per_second);
            (rates().fold(0.0, f64::max) / rates().fold(f64::MAX, f64::min) - 1.0) * 100.0
        };
        let baselines = self.samples.iter().filter(|((measure, _), _)| *measure == Measure::Baseline);
        baselines.map(|(_, samples)| spread(samples)).reduce(f64::max)
    }
}

pub(super) fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() {
        0 => None,
        count if count % 2 == 0 => Some((figures[middle - 1] + figures[middle]) / 2.0),
        _ => Some(figures[middle]),
    }
}

/// In milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p99_9: f64,
}

impl Percentiles {
    fn of(latencies: &Histogram<u64>) -> Self {
        let at = |percentile| percentile_ms(latencies, percentile);
        Self { p50: at(50.0), p90: at(90.0), p99: at(99.0), p99_9: at(99.9) }
    }
}

/// A line of the table: the medians of the rounds, the latencies of all of them together.
#[derive(Debug, Serialize)]
struct Throughput {
    measure: Measure,
    connections: usize,
    per_second: f64,
    #[serde(rename = "of_floor")]
    of_baseline: Option<f64>,
    written_per_second: Option<f64>,
    latency_ms: Percentiles,
    server_cpu_us: Option<f64>,
    /// Of one core.
    generator_share: f64,
    rounds: Vec<f64>,
}

/// What a fixed rate did.
#[derive(Debug, Serialize)]
pub(super) struct FixedRate {
    of_highest: f64,
    per_second: f64,
    connections: usize,
    latency_ms: Percentiles,
    curve: Vec<(f64, f64)>,
    replies: BTreeMap<String, u64>,
    generator_share: f64,
}

impl FixedRate {
    pub(super) fn new(of_highest: f64, per_second: f64, connections: usize, run: Run) -> Self {
        Self {
            of_highest,
            per_second,
            connections,
            latency_ms: Percentiles::of(&run.latencies),
            curve: CURVE.iter().map(|percentile| (*percentile, run.percentile_ms(*percentile))).collect(),
            generator_share: run.generator_cpu.as_secs_f64() / run.elapsed.as_secs_f64(),
            replies: run.replies,
        }
    }
}

#[derive(Debug, Serialize)]
struct Machine {
    cpu: String,
    cores: usize,
    system: String,
}

impl Machine {
    fn here() -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        let model = |info: String| {
            let line = info.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let kernel = read("/proc/sys/kernel/osrelease");
        Self {
            cpu: model(read("/proc/cpuinfo")).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, kernel.trim()).trim().to_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Proven {
    accepted: i64,
    live_orders: i64,
    units_sold: i64,
    oversold: i64,
    doubles: i64,
}

/// See the module.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    version: &'static str,
    backend: &'static str,
    /// Of somebody else's server; `machine` is then only the generator's.
    url: Option<String>,
    machine: Machine,
    rounds: u8,
    stock: u32,
    #[serde(rename = "floor_spread_percent")]
    baseline_spread_percent: Option<f64>,
    throughput: Vec<Throughput>,
    fixed_rates: Vec<FixedRate>,
    raw_limits: Option<RawLimits>,
    backlog: Option<Backlog>,
    log_ins: LogIns,
    /// What is left of the rate of accepted purchases while users log in.
    kept_during_log_ins: Option<f64>,
    peak_memory_mib: Option<f64>,
    proof: Proven,
}

impl Report {
    pub(super) fn new(
        backend: Backend,
        args: &BenchArgs,
        series: &Series,
        fixed_rates: Vec<FixedRate>,
        peak_memory_kib: Option<u64>,
    ) -> Self {
        let total = |figure: &dyn Fn(&Proof) -> i64| series.proofs.iter().map(figure).sum::<i64>();
        let raw = |figure: &dyn Fn(&RawLimits) -> f64| median(series.raw_limits.iter().map(figure).collect());
        let raw_limits = raw(&|limits| limits.evalsha_per_second).map(|evalsha_per_second| RawLimits {
            evalsha_per_second,
            confirmed_purchases_per_second: raw(&|limits| limits.confirmed_purchases_per_second).unwrap_or_default(),
            client_rows_per_second: raw(&|limits| limits.client_rows_per_second).unwrap_or_default(),
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            backend: match backend {
                Backend::Embedded => "embedded",
                Backend::Distributed => "distributed",
            },
            url: args.url.as_ref().map(ToString::to_string),
            machine: Machine::here(),
            rounds: args.rounds,
            stock: args.stock,
            baseline_spread_percent: series.baseline_spread(),
            throughput: series.samples.keys().map(|(measure, count)| throughput(series, *measure, *count)).collect(),
            fixed_rates,
            raw_limits,
            backlog: series.backlog,
            log_ins: series.log_ins.clone(),
            kept_during_log_ins: series.share(Measure::DuringLogIns, Measure::Accepted, args.most_connections()),
            peak_memory_mib: peak_memory_kib.map(|kib| kib as f64 / 1024.0),
            proof: Proven {
                accepted: total(&|proof| proof.accepted),
                live_orders: total(&|proof| proof.counted.live_orders),
                units_sold: total(&|proof| proof.counted.sold),
                oversold: total(&Proof::oversold),
                doubles: total(&Proof::doubles),
            },
        }
    }

    /// Writes `report.json`, `report.md` and its pictures into a folder.
    pub(super) fn save(&self, folder: &Path, series: &Series) -> Result<(), String> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let json = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        write("report.json", &json)?;
        let mut page = format!("# seckill bench\n\n{}", self.table());
        for (file, title, picture) in self.pictures(series) {
            match picture {
                Ok(svg) => {
                    write(file, &svg)?;
                    page += &format!("\n![{title}]({file})\n");
                }
                Err(problem) => tracing::warn!(file, problem, "A picture is missing"),
            }
        }
        write("report.md", &page)?;
        say!("- {} has this as a page with pictures, and report.json", folder.join("report.md").display());
        Ok(())
    }

    fn pictures(&self, series: &Series) -> [(&'static str, &'static str, Result<String, String>); 3] {
        let curve = |rate: &FixedRate| LatencyCurve {
            label: format!("{:.0} % of the highest rate: {:.0}/s", rate.of_highest * 100.0, rate.per_second),
            points: rate.curve.clone(),
        };
        let curves: Vec<LatencyCurve> = self.fixed_rates.iter().map(curve).collect();
        let bar = |line: &Throughput| {
            let name = format!("{}, {} connections", line.measure.name(), line.connections);
            Some(Bar { name, of_baseline: line.of_baseline?, per_second: line.per_second })
        };
        let bars: Vec<Bar> = self.throughput.iter().filter_map(bar).collect();
        let latency = "Latency of a purchase at fixed rates";
        let throughput = "Throughput against a bare endpoint (F)";
        let written = "A sale: promises and orders written";
        [
            ("latency.svg", latency, latency_by_rate(latency, &curves)),
            ("throughput.svg", throughput, throughput_against_baseline(throughput, &bars)),
            ("written.svg", written, over_time(written, &timelines(&series.progress))),
        ]
    }
}

fn throughput(series: &Series, measure: Measure, connections: usize) -> Throughput {
    let median_of = |figure: &dyn Fn(&Sample) -> Option<f64>| series.median(measure, connections, figure);
    let per_second = median_of(&|sample| Some(sample.per_second)).unwrap_or_default();
    let written = series.written.get(&connections).filter(|_| measure == Measure::Accepted);
    Throughput {
        measure,
        connections,
        per_second,
        of_baseline: series.share(measure, Measure::Baseline, connections),
        written_per_second: written.and_then(|figures| median(figures.clone())),
        latency_ms: Percentiles::of(&series.latencies(measure, connections)),
        server_cpu_us: median_of(&|sample| sample.server_cpu_us),
        generator_share: median_of(&|sample| Some(sample.generator_share)).unwrap_or_default(),
        rounds: series.samples[&(measure, connections)].iter().map(|sample| sample.per_second).collect(),
    }
}

/// Rates over the last [`RATE_OVER`] before each look: orders are written by the hundred, so shorter times show only that.
fn timelines(progress: &[Progress]) -> [Timeline; 2] {
    let rates = |count: &dyn Fn(&Progress) -> f64| {
        let rate = |to: &Progress| {
            let from = progress.iter().rfind(|from| to.seconds - from.seconds >= RATE_OVER)?;
            Some((to.seconds, (count(to) - count(from)) / (to.seconds - from.seconds)))
        };
        progress.iter().filter_map(rate).collect()
    };
    [
        Timeline { label: "202s a second".to_owned(), points: rates(&|at| at.answered as f64) },
        Timeline { label: "orders written a second".to_owned(), points: rates(&|at| at.written as f64) },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }
}
