//! Bowshot embedded in this process: a coordinator and one worker over all the files, asked without a client and a server in between.

use super::{Engine, Run, write_answer};
use crate::data_set::NODES;
use crate::{Outcome, cpu};
use arrow::record_batch::RecordBatch;
use bowshot_engine::{Coordinator, CoordinatorConfig, Session, WorkerConfig, run_worker};
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Name of the engine.
pub const EMBEDDED: &str = "bowshot-embedded";
/// Registering with the coordinator and reading footers takes seconds at most.
const READY_DEADLINE: Duration = Duration::from_secs(60);
const CLUSTER_TOKEN: &str = "one process, nobody else listens";

/// The two roles and a session. They end with this value.
pub struct EmbeddedEngine {
    session: Session,
    /// The catalog and the volume, whose files are links to those of the nodes.
    _folder: TempDir,
    _stop: oneshot::Sender<()>,
}

impl EmbeddedEngine {
    /// Starts both roles over the files that the nodes' volumes below `data` hold of these tables.
    pub async fn start(data: &Path, tables: &[&str]) -> Outcome<Self> {
        // Beside the data: links do not cross file systems.
        let folder = tempfile::tempdir_in(data)?;
        let volume = folder.path().join("volume");
        for table in tables {
            std::fs::create_dir_all(volume.join(table))?;
            for node in 1..=NODES {
                let name = format!("part-{node}.parquet");
                std::fs::hard_link(data.join(format!("node-{node}")).join(table).join(&name), volume.join(table).join(&name))?;
            }
        }
        let listen = ([127, 0, 0, 1], 0).into();
        let coordinator = Coordinator::open(CoordinatorConfig {
            data_dir: folder.path().join("catalog"),
            listen,
            cluster_token: CLUSTER_TOKEN.into(),
            ..CoordinatorConfig::default()
        })
        .await?;
        let worker = WorkerConfig {
            node_id: "embedded".into(),
            listen,
            coordinator: format!("http://{}", coordinator.control_address()),
            cluster_token: CLUSTER_TOKEN.into(),
            volumes: BTreeMap::from([("data".to_string(), volume)]),
            ..WorkerConfig::default()
        };
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            let ended = run_worker(worker, async move {
                // The sender is dropped with the engine.
                let _ = stopped.await;
            });
            if let Err(error) = ended.await {
                eprintln!("the embedded worker ended: {error}");
            }
        });
        let engine = Self { session: coordinator.open_session("benches"), _folder: folder, _stop: stop };
        for table in tables {
            engine.register(table).await?;
        }
        Ok(engine)
    }

    /// Waits for the worker where it is not there yet.
    async fn register(&self, table: &str) -> Outcome<()> {
        let sql = format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION 'node://*/data/{table}/'");
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            match self.answer(&sql).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn answer(&self, sql: &str) -> Outcome<(arrow::datatypes::SchemaRef, Vec<RecordBatch>)> {
        let prepared = self.session.prepare(sql).await?;
        let stream = self.session.execute(&prepared, vec![]).await?;
        Ok((stream.schema(), stream.try_collect().await?))
    }
}

impl Engine for EmbeddedEngine {
    fn name(&self) -> &str {
        EMBEDDED
    }

    fn cpu_seconds(&self) -> Option<f64> {
        cpu::of_this_process()
    }

    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>> {
        Box::pin(async move {
            let started = Instant::now();
            let (schema, batches) = self.answer(sql).await?;
            let elapsed = started.elapsed();
            write_answer(answer, &schema, &batches)?;
            Ok(Run::new(elapsed, batches.iter().map(|batch| batch.num_rows()).sum()))
        })
    }
}
