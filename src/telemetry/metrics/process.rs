//! What the process takes: processor time, memory, open files, under the names that Prometheus clients use. Read from
//! `/proc` when somebody asks; elsewhere than on Linux there is nothing.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Registry};

/// See the module.
#[derive(Clone)]
struct Process {
    cpu_seconds: prometheus::Counter,
    resident_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
    start_time_seconds: Gauge,
}

/// Adds them to a registry.
pub(super) fn register(registry: &Registry) -> prometheus::Result<()> {
    if cfg!(not(target_os = "linux")) {
        return Ok(());
    }
    registry.register(Box::new(Process {
        cpu_seconds: prometheus::Counter::new("process_cpu_seconds_total", "Processor time, user and system")?,
        resident_bytes: Gauge::new("process_resident_memory_bytes", "Resident memory")?,
        open_fds: Gauge::new("process_open_fds", "Open file descriptors")?,
        max_fds: Gauge::new("process_max_fds", "Open file descriptors at most")?,
        start_time_seconds: Gauge::new("process_start_time_seconds", "When the process began, in Unix time")?,
    }))
}

impl Process {
    fn gauges(&self) -> [&Gauge; 4] {
        [&self.resident_bytes, &self.open_fds, &self.max_fds, &self.start_time_seconds]
    }

    #[cfg(target_os = "linux")]
    fn read(&self) -> Option<()> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // After the name, which may hold anything: state is the first field, utime the 12th.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let number = |place: usize| fields.get(place)?.parse::<f64>().ok();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let cpu = (number(11)? + number(12)?) / ticks;
        self.cpu_seconds.inc_by((cpu - self.cpu_seconds.get()).max(0.0));
        self.resident_bytes.set(number(21)? * rustix::param::page_size() as f64);
        let booted = std::fs::read_to_string("/proc/stat").ok()?;
        let booted = booted.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        self.start_time_seconds.set(booted + number(19)? / ticks);
        self.open_fds.set(std::fs::read_dir("/proc/self/fd").ok()?.count() as f64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        self.max_fds.set(limit.map_or(f64::INFINITY, |limit| limit as f64));
        Some(())
    }

    #[cfg(not(target_os = "linux"))]
    fn read(&self) -> Option<()> {
        None
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges().into_iter().flat_map(Collector::desc).chain(self.cpu_seconds.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        if self.read().is_none() {
            return Vec::new();
        }
        self.gauges().into_iter().flat_map(Collector::collect).chain(self.cpu_seconds.collect()).collect()
    }
}
