//! Measures the device kernels on a machine with a card, beside what the card, its bus, the host kernels and its peers can do there.
//!
//! The binary needs nothing but a Vulkan driver, so it can be carried to a machine without a toolchain.
//!
//! 1. The card is opened; a software adapter is refused unless asked for.
//! 2. [`bandwidth`] measures device memory and bus by plain shaders and copies: the floor of every figure that follows.
//! 3. [`lineitem`] generates the columns of TPC-H's Q1 and Q6 in memory, narrowed, row group by row group.
//! 4. Every query of [`queries`] runs on the host, by all cores and by one, and on the device. The first query uploads the chunks.
//! 5. Answers must be the same, and every row of a device figure must have run on the device, else the run fails.
//! 6. A sweep doubles the number of groups until the device declines.
//! 7. [`peers`] and [`native`] run what other engines, and the card's own toolkit, make of Q1 and Q6, where they are installed.

#![forbid(unsafe_code)]

mod answer;
mod bandwidth;
mod child;
mod environment;
mod lineitem;
mod native;
mod peers;
mod queries;
mod report;
mod runs;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use bowshot_kernels::{DevicePolicy, Kernels, KernelsConfig};
use clap::Parser;

use crate::bandwidth::Rate;
use crate::report::Report;
use crate::suite::Suite;

/// What every fallible step returns: the benchmark ends at the first problem and prints it.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measures Bowshot's device kernels, checks their answers, and prints a markdown table.
#[derive(Parser)]
struct Arguments {
    /// Rows of the table.
    #[arg(long, default_value_t = 60_000_000)]
    rows: usize,
    /// Rows of a row group; each is submitted on its own.
    #[arg(long, default_value_t = 1 << 20)]
    row_group_rows: usize,
    /// Bytes of chunk copies that the kernels may keep on the device.
    #[arg(long, default_value_t = 16 << 30, value_name = "BYTES")]
    device_memory: u64,
    /// Threads that submit row groups to the device.
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Runs of every figure; the best counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Accepts a software adapter: for correctness only, not for timing.
    #[arg(long)]
    allow_software: bool,
    /// Python with duckdb and polars, as far as it has them, and cupy where there is no nvcc.
    #[arg(long)]
    python: Option<PathBuf>,
    /// Rows that peers get, at most --rows.
    #[arg(long, default_value_t = 60_000_000)]
    peer_rows: usize,
    /// Git revision of the build, for the head of the report.
    #[arg(long)]
    revision: Option<String>,
    /// Writes the rows as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(arguments: &Arguments) -> Outcome<bool> {
    if arguments.rows == 0 || arguments.row_group_rows == 0 {
        return Err("--rows and --row-group-rows must be above 0".into());
    }
    let device = if arguments.allow_software { DevicePolicy::AllowSoftware } else { DevicePolicy::Hardware };
    let config = KernelsConfig { device_cache_bytes: arguments.device_memory, device, ..KernelsConfig::default() };
    let kernels = Kernels::open(config);
    let device = kernels.device_report();
    if !device.available {
        let reason = device.reason.unwrap_or_else(|| "none was found".into());
        return Err(format!("no device to measure: {reason}; --allow-software takes a software adapter, to check answers").into());
    }
    let title = format!("gpu, {} rows in groups of {}", arguments.rows, arguments.row_group_rows);
    let mut report = Report::new(title, environment::describe(&device, arguments.revision.as_deref()));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let card = bandwidth::measure(&device, arguments.runs)?;
    let host = |threads: usize| {
        // Of one second: the rate is all there is.
        Rate { seconds: 1.0, bytes: bowshot_kernels::machine::memory_read_bandwidth(threads) as u64 }
    };
    let (host_all, host_one) = (host(cores), host(1));
    report.add_rate("device memory, read", card.read);
    report.add_rate("device memory, copied (read + written)", card.copy);
    report.add_rate("bus, staging buffer to device", card.bus);
    report.add_rate("bus, host memory through a staging ring", card.upload);
    report.add_rate("host memory, read by all cores", host_all);
    report.add_rate("host memory, read by one core", host_one);
    let sizes = lineitem::group_sizes(arguments.rows, arguments.row_group_rows);
    let mut suite = Suite { kernels, arguments, cores, card, host_all, host_one, sizes, report };
    let (columns, spare) = suite.generate()?;
    let answers = suite.queries(&columns, &spare)?;
    suite.sweep(&columns)?;
    drop((columns, spare));
    peers::run(arguments, &mut suite.report, &answers);
    native::run(arguments, &mut suite.report, &suite.card);
    suite.report.print();
    if let Some(path) = &arguments.json {
        suite.report.write_json(path)?;
    }
    Ok(suite.report.all_ok())
}
