//! Bowshot as a user runs it: a server and three workers as processes on this machine, asked over Flight SQL.

use super::{Engine, Run, write_answer};
use crate::data_set::{DataSet, NODES};
use crate::{Outcome, cpu};
use arrow_flight::sql::client::FlightSqlServiceClient;
use bowshot_datasets::tpch;
use futures::TryStreamExt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// Generating and registering a large scale takes minutes on two cores.
const READY_DEADLINE: Duration = Duration::from_secs(1_800);

/// Name of the engine with tasks that adapt.
pub const ADAPTIVE: &str = "bowshot-adaptive";

/// The demo's process. It ends with this value.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        // The demo's children read its end from a closed pipe and stop with it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A demo cluster and a client of it. The cluster ends with the last such value.
pub struct BowshotEngine {
    name: &'static str,
    demo: Arc<Demo>,
    client: FlightSqlServiceClient<Channel>,
}

impl BowshotEngine {
    /// Starts the cluster over `data`, waits until its tables are there, and registers those of the data set that the demo does not know.
    pub async fn start(binary: &Path, data_set: &DataSet, data: &Path, port_base: u16) -> Outcome<Self> {
        let (scale, workers) = (data_set.demo_scale().to_string(), NODES.to_string());
        let child = Command::new(binary)
            .args(["demo", "--no-query", "--workers", &workers, "--scale", &scale, "--port-base", &port_base.to_string(), "--data"])
            .arg(data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("{} cannot start: {error}; build it with cargo build --release --workspace", binary.display()))?;
        let mut demo = Demo(child);
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            if let Some(status) = demo.0.try_wait()? {
                return Err(format!("the cluster ended with {status}; its logs are below {}", data.join("logs").display()).into());
            }
            if let Ok(client) = Self::connect(port_base).await {
                let mut engine = Self { name: "bowshot", demo: Arc::new(demo), client };
                for sql in data_set.registrations() {
                    collect(&mut engine.client, &sql).await.map_err(|error| format!("{sql}: {error}"))?;
                }
                return Ok(engine);
            }
            if Instant::now() > deadline {
                return Err("the cluster was not ready in time".into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The same cluster, whose column cache it shares, with `bowshot.adaptive_tasks`.
    pub async fn adaptive(&self, port_base: u16) -> Outcome<Self> {
        let mut client = Self::connect(port_base).await?;
        collect(&mut client, "SET bowshot.adaptive_tasks = true").await?;
        Ok(Self { name: ADAPTIVE, demo: self.demo.clone(), client })
    }

    /// The process that clients talk to.
    pub fn server_process(&self) -> Option<u32> {
        let is_server = |process: &u32| {
            let command = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|argument| argument == b"server")
        };
        cpu::children(self.demo.0.id()).into_iter().find(is_server)
    }

    async fn connect(port: u16) -> Outcome<FlightSqlServiceClient<Channel>> {
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true).connect().await?;
        let mut client = FlightSqlServiceClient::new(channel);
        // The demo registers its tables one after the other.
        let (_, batches) = collect(&mut client, "SELECT table_name FROM system.tables WHERE table_schema = 'tpch'").await?;
        let tables: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        if tables < tpch::TABLES.len() {
            return Err(format!("{tables} of {} tables are there", tpch::TABLES.len()).into());
        }
        Ok(client)
    }
}

/// An answer in memory.
pub type Answer = (arrow::datatypes::SchemaRef, Vec<arrow::record_batch::RecordBatch>);

/// Schema and batches of a statement's answer.
pub async fn collect(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Outcome<Answer> {
    let info = client.execute(sql.to_string(), None).await?;
    let schema = std::sync::Arc::new(info.clone().try_decode_schema()?);
    let mut batches = vec![];
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("an endpoint without a ticket")?;
        batches.extend(client.do_get(ticket).await?.try_collect::<Vec<_>>().await?);
    }
    Ok((schema, batches))
}

impl Engine for BowshotEngine {
    fn name(&self) -> &str {
        self.name
    }

    fn has_cold(&self) -> bool {
        self.name != ADAPTIVE
    }

    fn cpu_seconds(&self) -> Option<f64> {
        cpu::of_tree(self.demo.0.id())
    }

    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>> {
        Box::pin(async move {
            let started = Instant::now();
            let (schema, batches) = collect(&mut self.client, sql).await?;
            let elapsed = started.elapsed();
            write_answer(answer, &schema, &batches)?;
            Ok(Run::new(elapsed, batches.iter().map(|batch| batch.num_rows()).sum()))
        })
    }
}
