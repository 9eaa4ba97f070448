//! Benchmarks that check their answers: Bowshot beside its peers on the same files, in one run.
//!
//! `run tpch --sf N --engines bowshot,datafusion,duckdb`
//! 1. The data are generated once below `--data`, in the demo's layout: part k of 3 in the volume of node k.
//! 2. Every engine starts. Engines take turns query by query, so that a machine whose speed drifts is unfair to none.
//! 3. *cold*: the first run of a query in an engine that was just started. The files are in the system's page cache for all of them.
//! 4. *hot*: the best of `--runs` further runs. DuckDB runs hot twice: over Parquet, and (`duckdb-memory`) over tables in its own format.
//! 5. Every answer is compared with DuckDB's; a row with `ok = false` is a failure of the whole run.

mod engines;
mod environment;
mod report;

use clap::{Parser, Subcommand};
use engines::{BowshotEngine, DataFusionEngine, DuckDbEngine, Engine};
use report::{Mode, Report, Row};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What every fallible step returns: benchmarks end at the first problem and print it.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Parser)]
#[command(about = "Benchmarks of Bowshot beside its peers")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a suite.
    Run(RunArguments),
}

#[derive(clap::Args)]
struct RunArguments {
    /// The suite.
    #[arg(value_parser = ["tpch"])]
    suite: String,
    /// Scale factor.
    #[arg(long, default_value_t = 1.0)]
    sf: f64,
    /// Engines, in the order in which they take turns.
    #[arg(long, value_delimiter = ',', default_value = "bowshot,datafusion,duckdb")]
    engines: Vec<String>,
    /// Queries, such as q1,q6; all 22 when absent.
    #[arg(long, value_delimiter = ',')]
    queries: Vec<String>,
    /// Queries that are run hot too.
    #[arg(long, value_delimiter = ',', default_value = "q1,q6")]
    hot: Vec<String>,
    /// Hot runs a query and engine; the best counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Folder of the data; kept.
    #[arg(long, default_value = ".bowshot/benches")]
    data: PathBuf,
    /// First port of Bowshot's cluster.
    #[arg(long, default_value_t = 28470)]
    port_base: u16,
    /// Bowshot's binary.
    #[arg(long, default_value = "target/release/bowshot")]
    bowshot: PathBuf,
    /// Python with the peers' packages.
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
    /// Writes the rows as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Outcome<ExitCode> {
    let Command::Run(arguments) = Arguments::parse().command;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(arguments))
}

async fn run(arguments: RunArguments) -> Outcome<ExitCode> {
    let data = arguments.data.join(format!("tpch-sf{}", arguments.sf));
    std::fs::create_dir_all(&data)?;
    let answers = tempfile::tempdir()?;
    // Bowshot first: its workers generate the data that the others read.
    let bowshot = BowshotEngine::start(&arguments.bowshot, arguments.sf, &data, arguments.port_base).await?;
    let mut engines: Vec<Box<dyn Engine>> = vec![];
    for name in &arguments.engines {
        match name.as_str() {
            "bowshot" => {}
            "datafusion" => engines.push(Box::new(DataFusionEngine::start(&data).await?)),
            "duckdb" => {
                engines.push(Box::new(DuckDbEngine::start("duckdb", &arguments.python, &data, false)?));
                engines.push(Box::new(DuckDbEngine::start("duckdb-memory", &arguments.python, &data, true)?));
            }
            other => return Err(format!("no engine '{other}': use bowshot, datafusion, duckdb").into()),
        }
    }
    if arguments.engines.iter().any(|name| name == "bowshot") {
        engines.insert(0, Box::new(bowshot));
    }
    let mut report = Report::new(&arguments.suite, arguments.sf, environment::describe());
    for (number, sql) in bowshot_datasets::tpch::QUERIES.iter().enumerate() {
        let query = format!("q{}", number + 1);
        if !arguments.queries.is_empty() && !arguments.queries.contains(&query) {
            continue;
        }
        for engine in engines.iter_mut().filter(|engine| engine.has_cold()) {
            let run = engine.run(sql, &answers.path().join(format!("{query}-{}-cold.arrow", engine.name()))).await;
            report.add(Row::new(&query, engine.name(), Mode::Cold, run));
        }
        if !arguments.hot.contains(&query) {
            continue;
        }
        let mut best: Vec<Option<engines::Run>> = vec![None; engines.len()];
        for _ in 0..arguments.runs {
            for (engine, best) in engines.iter_mut().zip(&mut best) {
                let run = engine.run(sql, &answers.path().join(format!("{query}-{}-hot.arrow", engine.name()))).await?;
                if best.as_ref().is_none_or(|best| run.seconds < best.seconds) {
                    *best = Some(run);
                }
            }
        }
        for (engine, best) in engines.iter().zip(best) {
            report.add(Row::new(&query, engine.name(), Mode::Hot, best.ok_or_else(|| "no hot run (--runs 0)".into())));
        }
    }
    report.compare_answers(&arguments.python, answers.path())?;
    report.print();
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(if report.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
