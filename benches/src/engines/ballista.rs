//! Ballista as its documentation sets it up: a scheduler and three executors as processes on this machine, asked over Flight SQL.
//!
//! Its binaries come from its own packages, in a folder given with `--ballista`:
//! `cargo install ballista-executor@55.0.0 --locked --root DIR`, and
//! `cargo install ballista-scheduler@55.0.0 --locked --features flight-sql --root DIR`.

use super::bowshot::collect;
use super::{Engine, Run, write_answer};
use crate::data_set::NODES;
use crate::{Outcome, cpu};
use arrow_flight::sql::client::FlightSqlServiceClient;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Name of the engine.
pub const BALLISTA: &str = "ballista";
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// Seconds for which an executor looks for the scheduler.
const CONNECT_SECONDS: &str = "30";
/// Of each executor: its own default is 70 % of the machine, for each of the three.
const MEMORY: &str = "6GiB";
/// As Bowshot reads literals: otherwise Q6 compares decimals with doubles.
const SETTINGS: [&str; 1] = ["SET datafusion.sql_parser.parse_float_as_decimal = true"];

/// The processes and a client of theirs. They end with this value.
pub struct BallistaEngine {
    /// The scheduler first.
    processes: Vec<Child>,
    client: FlightSqlServiceClient<Channel>,
    /// Logs, shuffled data, and a folder of links a table, whose files lie in several volumes.
    _folder: TempDir,
}

impl BallistaEngine {
    /// Starts the processes from `binaries` on ports from `port` on, and registers the tables below `data`.
    pub async fn start(binaries: &Path, data: &Path, tables: &[&str], port: u16) -> Outcome<Self> {
        // Beside the data: links do not cross file systems.
        let folder = tempfile::tempdir_in(data)?;
        let mut processes = vec![];
        let scheduler = ["--bind-host", "127.0.0.1", "--bind-port", &port.to_string(), "--flight-sql"].map(str::to_string);
        processes.push(start_process(&binaries.join("ballista-scheduler"), &scheduler, &folder.path().join("scheduler.log"))?);
        for number in 1..=NODES {
            let work = folder.path().join(format!("executor-{number}"));
            std::fs::create_dir(&work)?;
            let first = port + 10 * u16::try_from(number)?;
            let arguments = [
                ["--bind-host".into(), "127.0.0.1".into()],
                ["--external-host".into(), "127.0.0.1".into()],
                ["--scheduler-host".into(), "127.0.0.1".into()],
                ["--scheduler-port".into(), port.to_string()],
                ["--scheduler-connect-timeout-seconds".into(), CONNECT_SECONDS.into()],
                ["--bind-port".into(), first.to_string()],
                ["--bind-grpc-port".into(), (first + 1).to_string()],
                ["--bind-health-port".into(), (first + 2).to_string()],
                ["--memory-pool-size".into(), MEMORY.into()],
                ["--work-dir".into(), work.display().to_string()],
            ];
            let log = folder.path().join(format!("executor-{number}.log"));
            processes.push(start_process(&binaries.join("ballista-executor"), &arguments.concat(), &log)?);
        }
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true).connect_lazy();
        let mut engine = Self { processes, client: FlightSqlServiceClient::new(channel), _folder: folder };
        engine.register(data, tables).await?;
        Ok(engine)
    }

    async fn register(&mut self, data: &Path, tables: &[&str]) -> Outcome<()> {
        // The scheduler answers before the executors are there: a query tells.
        let deadline = Instant::now() + READY_DEADLINE;
        while let Err(error) = collect(&mut self.client, "SELECT 1").await {
            if let Some(process) = self.processes.iter_mut().find_map(|process| process.try_wait().ok().flatten()) {
                return Err(format!("a process of ballista ended with {process}: {error}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("ballista was not ready in time: {error}").into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        for table in tables {
            let links = self._folder.path().join("tables").join(table);
            std::fs::create_dir_all(&links)?;
            for node in 1..=NODES {
                // Small tables have a file on one node alone.
                let name = format!("part-{node}.parquet");
                let file = data.join(format!("node-{node}")).join(table).join(&name);
                if file.is_file() {
                    std::fs::hard_link(file, links.join(name))?;
                }
            }
            let location = links.canonicalize()?;
            let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION '{}/'", location.display());
            collect(&mut self.client, &sql).await.map_err(|error| format!("{sql}: {error}"))?;
        }
        for sql in SETTINGS {
            collect(&mut self.client, sql).await.map_err(|error| format!("{sql}: {error}"))?;
        }
        Ok(())
    }
}

fn start_process(binary: &Path, arguments: &[String], log: &Path) -> Outcome<Child> {
    let log = std::fs::File::create(log)?;
    Command::new(binary).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map_err(|error| {
        format!("{} cannot start: {error}; how to install it is in benches/src/engines/ballista.rs", binary.display()).into()
    })
}

impl Drop for BallistaEngine {
    fn drop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Engine for BallistaEngine {
    fn name(&self) -> &str {
        BALLISTA
    }

    fn cpu_seconds(&self) -> Option<f64> {
        self.processes.iter().map(|process| cpu::of_tree(process.id())).sum()
    }

    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>> {
        Box::pin(async move {
            let started = Instant::now();
            let (schema, batches) = collect(&mut self.client, sql).await?;
            let run = Run::new(started.elapsed(), batches.iter().map(|batch| batch.num_rows()).sum());
            // Its FlightInfo may name other types than its rows have.
            let schema = batches.first().map_or(schema, |batch| batch.schema());
            write_answer(answer, &schema, &batches)?;
            Ok(run)
        })
    }
}
