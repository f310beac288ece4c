//! One sale, measured: a crowd that gets a unit each, a second one that comes too late, and the proof.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::generator::{Load, Pace, Run};
use super::proof::{Proof, sold};
use super::server::Server;
use super::target::{TargetApi, fire_with_bar};
use crate::db::Db;
use crate::model::ProductId;

/// How often the progress of a sale is noted.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// The server that is measured, and its database.
pub(super) struct Target<'a> {
    pub(super) api: &'a TargetApi,
    pub(super) db: &'a Db,
    /// The process, if it is ours.
    pub(super) server: Option<&'a Server>,
}

/// How big a sale is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Units, and buyers who get one.
    pub(super) stock: usize,
    /// Buyers who come too late.
    pub(super) late: usize,
    pub(super) connections: usize,
}

/// The figures of one run.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) per_second: f64,
    pub(super) latencies: Histogram<u64>,
    /// CPU time of the server a request, where it is known.
    pub(super) server_cpu_us: Option<f64>,
    /// CPU time of the generator, as a share of one core.
    pub(super) generator_share: f64,
}

impl Sample {
    pub(super) fn new(run: Run, server_cpu: Option<Duration>) -> Self {
        Self {
            per_second: run.per_second(),
            server_cpu_us: server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / run.total().max(1) as f64),
            generator_share: run.generator_cpu.as_secs_f64() / run.elapsed.as_secs_f64(),
            latencies: run.latencies,
        }
    }

    /// Two runs of the same kind as one.
    pub(super) fn mean(self, other: Self) -> Self {
        let mean = |one: f64, other: f64| (one + other) / 2.0;
        Self {
            per_second: mean(self.per_second, other.per_second),
            latencies: self.latencies + other.latencies,
            server_cpu_us: self.server_cpu_us.zip(other.server_cpu_us).map(|(one, other)| mean(one, other)),
            generator_share: mean(self.generator_share, other.generator_share),
        }
    }
}

/// How far a sale was at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    pub(super) seconds: f64,
    pub(super) answered: usize,
    pub(super) written: i64,
}

/// What a sale has shown.
pub(super) struct SaleFigures {
    pub(super) accepted: Sample,
    pub(super) refused: Sample,
    /// From the first click until the last order was written.
    pub(super) written_per_second: f64,
    pub(super) progress: Vec<Progress>,
    pub(super) proof: Proof,
}

/// Holds a sale.
pub(super) async fn hold(target: &Target<'_>, size: Size, title: &str) -> Result<SaleFigures, String> {
    let Size { stock, late, connections } = size;
    let address = target.api.address();
    let product = target.api.new_product(stock).await?;
    let requests = target.api.clicks(product, 0, stock)?;
    let load = Load { addresses: vec![address], requests, count: stock, connections, pace: Pace::Closed };
    let before = cpu(target.server);
    let begun = Instant::now();
    let mut progress = Vec::new();
    let run = watched(target, product, load, &format!("{title}: buying"), &mut progress).await?;
    expect_only(&run, "202", stock)?;
    let proof = Proof::wait(target.db, product, run.count("202"), |written| {
        let seconds = begun.elapsed().as_secs_f64();
        if progress.last().is_none_or(|last: &Progress| seconds - last.seconds >= SAMPLE_EVERY.as_secs_f64()) {
            progress.push(Progress { seconds, answered: stock, written });
        }
    });
    let proof = proof.await?;
    let written_in = proof.written_at.duration_since(begun).as_secs_f64();
    let accepted = Sample::new(run, spent(before, cpu(target.server)));

    let requests = target.api.clicks(product, stock, late)?;
    let load = Load { addresses: vec![address], requests, count: late, connections, pace: Pace::Closed };
    let before = cpu(target.server);
    let run = fire_with_bar(load, &format!("{title}: refusing"), &Arc::default()).await?;
    expect_only(&run, "409 sold_out", late)?;
    let refused = Sample::new(run, spent(before, cpu(target.server)));
    let written_per_second = stock as f64 / written_in;
    Ok(SaleFigures { accepted, refused, written_per_second, progress, proof })
}

/// Fires a load and notes how far it is, and how many orders are written.
async fn watched(
    target: &Target<'_>,
    product: ProductId,
    load: Load,
    title: &str,
    progress: &mut Vec<Progress>,
) -> Result<Run, String> {
    let answered = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let watching = async {
        loop {
            let written = sold(target.db, product).await?;
            let seconds = begun.elapsed().as_secs_f64();
            progress.push(Progress { seconds, answered: answered.load(Ordering::Relaxed), written });
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    };
    tokio::select! {
        run = fire_with_bar(load, title, &answered) => run,
        failed = watching => failed,
    }
}

/// CPU time of the server so far, if it is ours.
pub(super) fn cpu(server: Option<&Server>) -> Option<Duration> {
    server.map(|server| server.usage().cpu)
}

/// CPU time between two looks.
pub(super) fn spent(before: Option<Duration>, after: Option<Duration>) -> Option<Duration> {
    Some(after?.saturating_sub(before?))
}

/// Checks that every request was answered like this.
pub(super) fn expect_only(run: &Run, reply: &str, count: usize) -> Result<(), String> {
    if run.count(reply) == count as u64 && run.total() == count as u64 {
        return Ok(());
    }
    Err(format!("expected {count} replies `{reply}`, got {:?}", run.replies))
}
