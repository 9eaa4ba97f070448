//! `bowshot demo`: a cluster of real processes on this machine, TPC-H in it, one query, and the addresses to connect to.

use super::demo_cluster::{Cluster, ClusterPlan, count};
use super::signals;
use crate::error::{Error, Result};
use crate::shell::{Client, Execution, Format, Look};
use bowshot_datasets::tpch;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tonic::Code;

/// Most workers: their ports must not run into one another, and one machine has no use for more.
const WORKERS_MAX: u16 = 32;
/// Lets the workers' first inventories arrive before a table without files is taken as an error.
const TABLES_DEADLINE: Duration = Duration::from_secs(60);
/// Copies of all files must be there within this time.
const COPIES_DEADLINE: Duration = Duration::from_secs(600);
/// Names the program that `--check` runs, with its arguments; address and data folder are appended.
const CHECK_COMMAND: &str = "BOWSHOT_DEMO_CHECK_COMMAND";
/// Tells that program which kernels the demo was asked for.
const CHECK_KERNEL: &str = "BOWSHOT_DEMO_KERNEL";

/// Which executor runs hot aggregations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kernel {
    /// The device where a hardware one is present, else the host kernel.
    Auto,
    /// The device, software adapters included.
    Device,
    /// The host kernel.
    Host,
    /// DataFusion's operators.
    Off,
}

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Device => "device",
            Self::Host => "host",
            Self::Off => "off",
        }
    }

    fn device(self) -> &'static str {
        match self {
            Self::Auto => "hardware",
            Self::Device => "software",
            Self::Host | Self::Off => "off",
        }
    }
}

#[derive(Args)]
pub struct DemoArguments {
    /// Scale factor of TPC-H; 1 is about 1 GB of raw data.
    #[arg(long, default_value_t = 0.1)]
    scale: f64,
    /// Number of workers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(WORKERS_MAX)))]
    workers: u16,
    /// Copies of every file, on different nodes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    replicas: u16,
    /// Folder of the demo; the volume of each worker is DIR/<node>/.
    #[arg(long, value_name = "DIR", default_value = ".bowshot/demo")]
    data: PathBuf,
    /// First port: Flight SQL; HTTP is the next, control the one after, workers start ten above.
    #[arg(long, value_name = "PORT", default_value_t = 47470, value_parser = clap::value_parser!(u16).range(1..=65_000))]
    port_base: u16,
    /// Which executor runs hot aggregations.
    #[arg(long, value_enum, default_value = "auto")]
    kernel: Kernel,
    /// Compare all 22 queries with an independent engine, and end.
    #[arg(long)]
    check: bool,
    /// Only start the cluster; benchmarks measure its first query themselves.
    #[arg(long, conflicts_with_all = ["check", "once"])]
    no_query: bool,
    /// End after the query instead of waiting for Ctrl-C.
    #[arg(long, conflicts_with = "check")]
    once: bool,
}

/// Runs the demo.
///
/// # Errors
/// When the cluster does not come up or the query fails.
pub async fn run(arguments: DemoArguments) -> Result<ExitCode> {
    if arguments.replicas > arguments.workers {
        return Err(Error::config(format!(
            "--replicas {} needs as many workers: there are {}, --workers sets how many",
            arguments.replicas, arguments.workers
        )));
    }
    let check = match arguments.check {
        true => Some(check_command()?),
        false => None,
    };
    let plan = ClusterPlan {
        scale: arguments.scale,
        workers: arguments.workers,
        data: arguments.data.clone(),
        port_base: arguments.port_base,
        kernel_device: arguments.kernel.device(),
    };
    crate::shell::note(format_args!(
        "starting a server and {} workers, with TPC-H at scale {} below {} …",
        plan.workers,
        plan.scale,
        plan.data.display()
    ));
    let stopped = signals::stop(false);
    tokio::pin!(stopped);
    let started = Instant::now();
    let (mut cluster, client) = tokio::select! {
        started = Cluster::start(plan) => started?,
        () = &mut stopped => return Err(Error::Interrupted),
    };
    let plan = cluster.plan().clone();
    let outcome = tokio::select! {
        outcome = use_cluster(&arguments, plan, client, check, started) => outcome,
        error = cluster.supervise() => Err(error),
        () = &mut stopped => Err(Error::Interrupted),
    };
    let stay = outcome.is_ok() && !arguments.check && !arguments.once;
    let outcome = match stay {
        true => tokio::select! {
            error = cluster.supervise() => Err(error),
            () = &mut stopped => outcome,
        },
        false => outcome,
    };
    crate::shell::note(format_args!("stopping …"));
    cluster.end().await;
    outcome
}

async fn use_cluster(
    arguments: &DemoArguments,
    plan: ClusterPlan,
    mut client: Client,
    check: Option<Vec<String>>,
    started: Instant,
) -> Result<ExitCode> {
    create_tables(&mut client, arguments.replicas).await?;
    if arguments.replicas > 1 {
        wait_for_copies(&mut client, arguments.replicas).await?;
    }
    crate::shell::note(format_args!("ready after {:.1} s", started.elapsed().as_secs_f64()));
    if let Some(command) = check {
        return run_check(&command, &plan, arguments.kernel).await;
    }
    let set_kernel = format!("SET bowshot.kernel = '{}'", arguments.kernel.name());
    client.start(&set_kernel).await?.all().await?;
    if !arguments.no_query {
        let query = tpch::QUERIES[0];
        write_line(query)?;
        let mut execution = Execution::new(client, Look::of_process(Format::Table, None, false));
        execution.run(query).await?;
    }
    print_addresses(&plan, arguments.once)?;
    Ok(ExitCode::SUCCESS)
}

async fn create_tables(client: &mut Client, replicas: u16) -> Result<()> {
    run_until_there(client, "CREATE SCHEMA IF NOT EXISTS tpch").await?;
    for table in tpch::TABLES {
        let sql = format!(
            "CREATE OR REPLACE EXTERNAL TABLE tpch.{table} STORED AS PARQUET LOCATION 'node://*/data/{table}/' OPTIONS ('replicas' '{replicas}')"
        );
        run_until_there(client, &sql).await?;
    }
    Ok(())
}

/// Waits until every file has as many copies as it should.
async fn wait_for_copies(client: &mut Client, replicas: u16) -> Result<()> {
    let sql = format!(
        "SELECT count(*) FROM (SELECT table_name, path FROM system.files WHERE state = 'live' GROUP BY table_name, path, size_bytes HAVING count(*) < {replicas}) missing"
    );
    let deadline = Instant::now() + COPIES_DEADLINE;
    let mut told = false;
    loop {
        let missing = count(client, &sql).await?;
        if missing == 0 {
            crate::shell::note(format_args!("every file has {replicas} copies"));
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::config(format!("{missing} file(s) have fewer than {replicas} copies; the workers' logs tell why")));
        }
        if !std::mem::replace(&mut told, true) {
            crate::shell::note(format_args!("making copies of {missing} files …"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Runs a command; while what it names is not there yet, again and again up to a deadline.
async fn run_until_there(client: &mut Client, sql: &str) -> Result<()> {
    let deadline = Instant::now() + TABLES_DEADLINE;
    loop {
        let outcome = match client.start(sql).await {
            Ok(running) => running.all().await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(_) => return Ok(()),
            Err(Error::Server { code: Code::NotFound | Code::Unavailable, .. }) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(300)).await
            }
            Err(error) => return Err(error),
        }
    }
}

fn check_command() -> Result<Vec<String>> {
    let words: Vec<String> = std::env::var(CHECK_COMMAND).unwrap_or_default().split_whitespace().map(str::to_string).collect();
    match words.is_empty() {
        true => Err(Error::config(format!(
            "--check compares with another engine through the program that {CHECK_COMMAND} names; ./demo --check sets it"
        ))),
        false => Ok(words),
    }
}

async fn run_check(command: &[String], plan: &ClusterPlan, kernel: Kernel) -> Result<ExitCode> {
    let status = tokio::process::Command::new(&command[0])
        .args(&command[1..])
        .arg(plan.url())
        .arg(&plan.data)
        .env(CHECK_KERNEL, kernel.name())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|source| Error::file("start", std::path::Path::new(&command[0]), source))?;
    // A program ended by a signal has no code; it is a failure.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(ExitCode::from(code))
}

fn print_addresses(plan: &ClusterPlan, once: bool) -> Result<()> {
    let (flight, http) = (plan.flight(), plan.http());
    let url = plan.url();
    let lines = [
        String::new(),
        format!("Flight SQL  {url}"),
        format!("JDBC        jdbc:arrow-flight-sql://{flight}?useEncryption=false"),
        format!("Python      adbc_driver_flightsql.dbapi.connect(\"{url}\")"),
        format!("Shell       bowshot sql --url {url}"),
        format!("Metrics     http://{http}/metrics"),
        format!("Data        {}", plan.data.display()),
    ];
    write_line(&lines.join("\n"))?;
    if !once {
        write_line("Ctrl-C ends the demo and its processes; the data stays.")?;
    }
    Ok(())
}

/// The cluster outlives a closed output, but the demo then has nobody to show anything to.
fn write_line(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|source| Error::Output { source })
}
