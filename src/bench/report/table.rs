//! The report as a table in Markdown, which is as legible on a terminal.

use std::fmt::Write;

use super::{FixedRate, Machine, Measure, Percentiles, Proven, Report, Throughput};
use crate::bench::log_ins::{self, LogIns};

impl Report {
    /// See the module.
    pub(in crate::bench) fn table(&self) -> String {
        let mut text = String::new();
        self.write_table(&mut text).expect("a string takes everything");
        text
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let Machine { cpu, cores, system } = &self.machine;
        match &self.url {
            Some(url) => writeln!(out, "{url}, {} backend; the generator on {cores} x {cpu}, {system}", self.backend)?,
            None => writeln!(out, "{} backend, seckill {}, {cores} x {cpu}, {system}", self.backend, self.version)?,
        }
        writeln!(out, "{} units a sale, medians of {} rounds\n", self.stock, self.rounds)?;
        writeln!(
            out,
            "| {:<22} | conns | per second | of F | p50 ms | p90 ms | p99 ms | p99.9 ms | server CPU us | generator |",
            ""
        )?;
        let right = "------:|-----------:|-----:|-------:|-------:|-------:|---------:|--------------:|----------:|";
        writeln!(out, "|:{:-<22}-|{right}", "")?;
        for line in &self.throughput {
            self.write_line(out, line)?;
        }
        writeln!(
            out,
            "\n| at a fixed rate        | conns | per second | p50 ms | p90 ms | p99 ms | p99.9 ms | replies |"
        )?;
        writeln!(
            out,
            "|:-----------------------|------:|-----------:|-------:|-------:|-------:|---------:|:--------|"
        )?;
        for FixedRate { of_highest, per_second, connections, latency_ms, replies, .. } in &self.fixed_rates {
            let Percentiles { p50, p90, p99, p99_9 } = latency_ms;
            let name = format!("{:.0} % of the highest", of_highest * 100.0);
            let replies: Vec<String> = replies.iter().map(|(reply, count)| format!("{reply}: {count}")).collect();
            writeln!(
                out,
                "| {name:<22} | {connections:>5} | {per_second:>10.0} | {p50:>6.2} | {p90:>6.2} | {p99:>6.2} | {p99_9:>8.2} | {} |",
                replies.join(", ")
            )?;
        }
        writeln!(out)?;
        if let Some(raw) = self.raw_limits {
            let accepted = self.throughput.iter().filter(|line| line.measure == Measure::Accepted);
            let most = accepted.map(|line| line.per_second).fold(0.0, f64::max);
            let mut limit = |name: &str, figure: f64, ours: f64| {
                writeln!(out, "- {name}: {figure:.0}/s; ours is {:.2} of it", ours / figure)
            };
            limit("Redis, EVALSHA pipelined, one purchase each", raw.evalsha_per_second, most)?;
            limit("RabbitMQ, purchases in confirmed messages of 32", raw.confirmed_purchases_per_second, most)?;
            match self.backlog {
                Some(backlog) => limit(
                    &format!("MariaDB's own client, rows; a backlog of {} is drained", backlog.orders),
                    raw.client_rows_per_second,
                    backlog.drained_per_second,
                )?,
                None => limit("MariaDB's own client, rows", raw.client_rows_per_second, most)?,
            }
        }
        self.write_log_ins(out)?;
        if let Some(peak) = self.peak_memory_mib {
            writeln!(out, "- the server's memory, peak: {peak:.0} MiB")?;
        }
        if let Some(spread) = self.baseline_spread_percent {
            writeln!(out, "- F differed between rounds by {spread:.0} %: differences below that mean nothing")?;
        }
        let Proven { accepted, live_orders, units_sold, oversold, doubles } = self.proof;
        writeln!(
            out,
            "- proof from the database: accepted {accepted} = live orders {live_orders} = units sold {units_sold}; \
             oversold {oversold}, doubles {doubles}"
        )
    }

    fn write_log_ins(&self, out: &mut String) -> std::fmt::Result {
        let Some(kept) = self.kept_during_log_ins else { return Ok(()) };
        let LogIns { replies, slowest_refusal_ms } = &self.log_ins;
        let replies: Vec<String> = replies.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        writeln!(
            out,
            "- during {} log-ins a second at bcrypt cost {}, purchases keep {kept:.2} of their rate; log-ins answered: \
             {}; the slowest 429 took {slowest_refusal_ms:.0} ms",
            log_ins::PER_SECOND,
            log_ins::BCRYPT_COST,
            replies.join(", ")
        )
    }

    fn write_line(&self, out: &mut String, line: &Throughput) -> std::fmt::Result {
        let or_dash = |figure: Option<f64>, digits: usize| figure.map_or("-".to_owned(), |f| format!("{f:.digits$}"));
        let Percentiles { p50, p90, p99, p99_9 } = line.latency_ms;
        writeln!(
            out,
            "| {:<22} | {:>5} | {:>10.0} | {:>4} | {p50:>6.2} | {p90:>6.2} | {p99:>6.2} | {p99_9:>8.2} | {:>13} | {:>7.0} % |",
            line.measure.name(),
            line.connections,
            line.per_second,
            or_dash(line.of_baseline, 2),
            or_dash(line.server_cpu_us, 1),
            line.generator_share * 100.0
        )?;
        if let Some(written) = line.written_per_second {
            let of_baseline = line.of_baseline.map(|share| share * written / line.per_second);
            writeln!(
                out,
                "| {:<22} | {:>5} | {written:>10.0} | {:>4} | {:>6} | {:>6} | {:>6} | {:>8} | {:>13} | {:>9} |",
                "  written, to the last",
                line.connections,
                or_dash(of_baseline, 2),
                "",
                "",
                "",
                "",
                "",
                ""
            )?;
        }
        Ok(())
    }
}
