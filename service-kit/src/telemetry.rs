//! Log lines and figures: `tracing` to standard error, `metrics` to Prometheus' text.

use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Bounds of histograms of durations, in seconds: from a memory access to a time-out.
const SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Bounds of histograms of counts.
const POWERS_OF_TWO: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

/// How often histograms are folded, so that they stay small between two scrapes.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something set it up before.
    #[error("log output: {0}")]
    Subscriber(#[from] tracing_subscriber::util::TryInitError),
    /// The recorder could not be made or was set before.
    #[error("metrics: {0}")]
    Recorder(#[from] metrics_exporter_prometheus::BuildError),
}

/// The process's figures, to be rendered.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Metrics")
    }
}

/// Starts log lines, figures and the logging of panics. Once per process, inside the runtime.
///
/// # Errors
/// If the filter cannot be parsed or something else set these up before.
pub fn init(filter: &str, format: LogFormat) -> Result<Metrics, TelemetryError> {
    init_log(filter, format)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        // The message may hold values of a request, and so personal data: the place must do.
        tracing::error!(place, backtrace = %std::backtrace::Backtrace::capture(), "panic");
    }));
    init_metrics()
}

/// Starts log lines only: for commands that serve nothing.
///
/// # Errors
/// If the filter cannot be parsed or something else set it up before.
pub fn init_log(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::try_new(filter)?).with_writer(std::io::stderr);
    match format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).finish().try_init()?,
        LogFormat::Pretty => {
            use std::io::IsTerminal;
            builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?;
        }
    }
    Ok(())
}

/// Starts the figures only. Histograms whose names end in `_seconds` have bounds from 0.1 ms to 30 s; those that end in `_size`
/// or `_events` powers of two.
///
/// # Errors
/// If something set it up before.
pub fn init_metrics() -> Result<Metrics, TelemetryError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_size".to_owned()), POWERS_OF_TWO)?
        .set_buckets_for_metric(Matcher::Suffix("_events".to_owned()), POWERS_OF_TWO)?
        .install_recorder()?;
    metrics::describe_gauge!(
        "process_resident_memory_bytes",
        metrics::Unit::Bytes,
        "Memory of the process that is in RAM"
    );
    let upkeep = handle.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(UPKEEP_EVERY);
        loop {
            tick.tick().await;
            upkeep.run_upkeep();
        }
    });
    Ok(Metrics { handle })
}

impl Metrics {
    /// Prometheus' text, with the process's memory as it is now.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_memory_bytes() {
            #[expect(clippy::cast_precision_loss, reason = "memory in bytes is far below 2^52")]
            metrics::gauge!("process_resident_memory_bytes").set(bytes as f64);
        }
        self.handle.render()
    }
}

/// Memory of this process that is in RAM; nothing where there is no /proc.
pub fn resident_memory_bytes() -> Option<u64> {
    // Not statm: that counts pages, whose size only an unsafe call tells.
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .ok()?;
    Some(kibibytes * 1024)
}
