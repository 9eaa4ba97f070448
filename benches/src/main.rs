//! Benchmarks that check their answers: Bowshot beside its peers on the same files, in one run.
//!
//! | command | queries |
//! |---|---|
//! | `run tpch --sf N --engines bowshot,datafusion,duckdb` | TPC-H's 22, cold and hot |
//! | `run hot --sf N --python .venv-peers/bin/python` | aggregations of one table of TPC-H, hot |
//! | `run hits --rows N --python .venv-peers/bin/python` | ClickBench's 43, hot |
//! | `run sweep --rows N --python .venv-peers/bin/python` | one aggregation at every number of groups, hot |
//! | `planning --nodes N --files N` | plans over a catalog of a million files, see [`planning`] |
//! | `flight --rows N` | streams, latencies and connections beside a bare arrow-flight server, see [`flight`] |
//!
//! 1. The data are generated once below `--data`, in the demo's layout: part k of 3 in the volume of node k.
//! 2. Every engine starts. Engines take turns query by query, so that a machine whose speed drifts is unfair to none.
//! 3. *cold*: the first run of a query. The files are in the system's page cache for all engines; what an engine cached for an earlier query of the
//!    suite, it has.
//! 4. *hot*: the best of `--runs` further runs. Peers named `…-memory`, and Hyper, Polars and chDB, have loaded the tables into their own
//!    formats; Bowshot has the Parquet files and its column cache.
//! 5. `bowshot` is a server and three workers as processes, asked over Flight SQL; `bowshot-embedded` is a coordinator and one worker in the
//!    benchmark's own process, asked without a client, as the peers are.
//! 6. CPU seconds are those of all processes of an engine, from sending a cold query until shortly after its answer; the client's are left out.
//! 7. Every answer is compared with DuckDB's; a wrong one is a failure of the whole run. A peer that cannot run a query is shown as such.

mod cpu;
mod data_set;
mod engines;
mod environment;
mod flight;
mod planning;
mod report;
mod steps;
mod suites;

use clap::{Parser, Subcommand};
use engines::{
    ADAPTIVE, BALLISTA, BallistaEngine, BowshotEngine, DataFusionEngine, EMBEDDED, EmbeddedEngine, Engine, PeerEngine, run_metered,
};
use report::{Mode, Report, Row};
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As `bowshot` keeps freed memory, for what is embedded here.
fn keep_freed_memory() {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    // SAFETY: sets a number; nothing else runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, 60_000) };
}

/// What every fallible step returns: benchmarks end at the first problem and print it.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// From Bowshot's first port to Ballista's.
const PORTS_APART: u16 = 100;

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
    /// Plans over a large catalog.
    Planning(planning::PlanningArguments),
    /// Streams, latencies and connections of Flight SQL.
    Flight(flight::FlightArguments),
    #[command(hide = true)]
    BareFlight(flight::BareArguments),
}

#[derive(clap::Args)]
struct RunArguments {
    /// The suite.
    #[arg(value_parser = suites::SUITES)]
    suite: String,
    /// Scale factor of tpch and hot.
    #[arg(long, default_value_t = 1.0)]
    sf: f64,
    /// Rows of the table of hits (10000000 when absent) or of sweep (2097152).
    #[arg(long)]
    rows: Option<usize>,
    /// Engines: bowshot, bowshot-adaptive, bowshot-embedded, ballista, datafusion, datafusion-memory, duckdb, duckdb-memory, hyper, polars, chdb; those of the suite when absent.
    #[arg(long, value_delimiter = ',')]
    engines: Option<Vec<String>>,
    /// Queries, such as q1,q6; all of the suite when absent.
    #[arg(long, value_delimiter = ',')]
    queries: Vec<String>,
    /// Queries of tpch that are run hot too.
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
    /// Folder of Ballista's scheduler and executor.
    #[arg(long, default_value = ".bowshot/ballista/bin")]
    ballista: PathBuf,
    /// Python with the packages of benches/peers/requirements.txt; the clients' environment has DuckDB alone.
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
    /// Writes the rows as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Outcome<ExitCode> {
    keep_freed_memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match Arguments::parse().command {
        Command::Run(arguments) => runtime.block_on(run(arguments)),
        Command::Planning(arguments) => runtime.block_on(planning::run(arguments)),
        Command::Flight(arguments) => runtime.block_on(flight::run(arguments)),
        Command::BareFlight(arguments) => runtime.block_on(flight::serve_bare(arguments)),
    }
}

async fn run(arguments: RunArguments) -> Outcome<ExitCode> {
    let suite = suites::suite(&arguments.suite, arguments.sf, arguments.rows)?;
    let data = arguments.data.join(suite.data.folder());
    std::fs::create_dir_all(&data)?;
    suite.data.write(&data)?;
    let answers = tempfile::tempdir()?;
    // Bowshot first: its workers generate the TPC-H tables that the others read.
    let bowshot = BowshotEngine::start(&arguments.bowshot, &suite.data, &data, arguments.port_base).await?;
    let mut engines: Vec<Box<dyn Engine>> = vec![];
    let defaults: &[&str] = if suite.cold {
        &["bowshot", "datafusion", "duckdb", "duckdb-memory"]
    } else {
        &["bowshot", EMBEDDED, "datafusion-memory", "duckdb-memory", "hyper", "polars", "chdb"]
    };
    let names = arguments.engines.clone().unwrap_or_else(|| defaults.iter().map(ToString::to_string).collect());
    for name in names.iter().filter(|name| *name != "bowshot") {
        engines.push(match name.as_str() {
            "datafusion" => Box::new(DataFusionEngine::start(&data, &suite.tables, false).await?),
            "datafusion-memory" => Box::new(DataFusionEngine::start(&data, &suite.tables, true).await?),
            ADAPTIVE => Box::new(bowshot.adaptive(arguments.port_base).await?),
            EMBEDDED => Box::new(EmbeddedEngine::start(&data, &suite.tables).await?),
            BALLISTA => {
                Box::new(BallistaEngine::start(&arguments.ballista, &data, &suite.tables, arguments.port_base + PORTS_APART).await?)
            }
            name => Box::new(PeerEngine::start(name, &arguments.python, &data, &suite.tables)?),
        });
    }
    if names.iter().any(|name| name == "bowshot") {
        engines.insert(0, Box::new(bowshot));
    }
    let mut report = Report::new(&arguments.suite, suite.data.size(), suite.reference, environment::describe());
    for (query, sql) in &suite.queries {
        if !arguments.queries.is_empty() && !arguments.queries.contains(query) {
            continue;
        }
        for engine in engines.iter_mut().filter(|engine| suite.cold && engine.has_cold()) {
            let answer = answers.path().join(format!("{query}-{}-cold.arrow", engine.name()));
            let run = run_metered(engine.as_mut(), sql, &answer).await;
            report.add(Row::new(query, engine.name(), Mode::Cold, run));
        }
        if suite.cold && !arguments.hot.contains(query) {
            continue;
        }
        // Engines take turns; the first round warms them. One that cannot answer is asked no more.
        let mut best: Vec<Outcome<engines::Run>> = engines.iter().map(|_| Err("no hot run (--runs 0)".into())).collect();
        let mut failed = vec![false; engines.len()];
        for round in 0..arguments.runs + usize::from(!suite.cold) {
            for ((engine, best), failed) in engines.iter_mut().zip(&mut best).zip(&mut failed).filter(|(_, failed)| !**failed) {
                let run = engine.run(sql, &answers.path().join(format!("{query}-{}-hot.arrow", engine.name()))).await;
                *failed = run.is_err();
                let is_better = match (&run, &*best) {
                    (Ok(run), Ok(best)) => run.seconds < best.seconds,
                    _ => true,
                };
                if *failed || is_better && (suite.cold || round > 0) {
                    *best = run;
                }
            }
        }
        for (engine, best) in engines.iter().zip(best) {
            report.add(Row::new(query, engine.name(), Mode::Hot, best));
        }
    }
    report.compare_answers(&arguments.python, answers.path())?;
    report.print(suite.steps.as_ref());
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(if report.all_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
