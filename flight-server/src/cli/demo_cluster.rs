//! The processes of the demo: a server and workers in two pretend regions, each with a folder of its own.

use super::children::ChildProcess;
use crate::error::{Error, Result};
use crate::listen::{self, DEMO};
use crate::shell::{Client, ConnectOptions};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use bowshot_engine::config::machine_memory_bytes;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Ports are counted from the base: Flight SQL +0, HTTP +1, control +2, workers from +10.
const HTTP_OFFSET: u16 = 1;
const CONTROL_OFFSET: u16 = 2;
const WORKER_OFFSET: u16 = 10;
/// The server must answer within this time; it does nothing but open its catalog before.
const SERVER_DEADLINE: Duration = Duration::from_secs(60);
/// Workers generate their data first: this long and in addition as long as the scale needs on a slow machine.
const WORKER_DEADLINE: Duration = Duration::from_secs(120);
const WORKER_DEADLINE_PER_SCALE: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(200);
/// A worker that ended is started again after this time.
const RESTART_AFTER: Duration = Duration::from_secs(2);

/// What the cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    pub scale: f64,
    pub workers: u16,
    pub data: PathBuf,
    pub port_base: u16,
    /// Card that the workers may use: off, hardware or software.
    pub kernel_device: &'static str,
}

/// The running processes; dropping it kills them.
pub struct Cluster {
    plan: ClusterPlan,
    server: ChildProcess,
    workers: Vec<ChildProcess>,
}

impl ClusterPlan {
    /// Address of Flight SQL.
    pub fn flight(&self) -> SocketAddr {
        self.address(0)
    }

    /// Address of health and metrics.
    pub fn http(&self) -> SocketAddr {
        self.address(HTTP_OFFSET)
    }

    /// `grpc://…` of the server.
    pub fn url(&self) -> String {
        format!("grpc://{}", self.flight())
    }

    fn address(&self, offset: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port_base + offset))
    }

    /// Half of the nodes, and the one in the middle, are in Europe.
    fn region(&self, worker: u16) -> &'static str {
        if worker <= self.workers.div_ceil(2) { "eu" } else { "us" }
    }

    async fn check_ports(&self) -> Result<()> {
        let workers = (0..self.workers).map(|worker| WORKER_OFFSET + worker);
        for offset in [0, HTTP_OFFSET, CONTROL_OFFSET].into_iter().chain(workers) {
            listen::check_free(self.address(offset), DEMO).await?;
        }
        Ok(())
    }

    fn server_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["server".to_string()];
        for (flag, value) in [
            ("--listen", self.flight().to_string()),
            ("--http-listen", self.http().to_string()),
            ("--control-listen", self.address(CONTROL_OFFSET).to_string()),
            ("--data-dir", self.data.join("coordinator").display().to_string()),
            ("--region", "eu".to_string()),
            ("--default-schema", "tpch".to_string()),
        ] {
            arguments.extend([flag.to_string(), value]);
        }
        arguments
    }

    fn worker_arguments(&self, worker: u16) -> Vec<String> {
        let node = node_name(worker);
        let mut arguments = vec!["worker".to_string()];
        for (flag, value) in [
            ("--volume", format!("data={}", self.data.join(&node).display())),
            ("--node-id", node),
            ("--region", self.region(worker).to_string()),
            ("--listen", self.address(WORKER_OFFSET + worker - 1).to_string()),
            // Any port will do: the server tells clients.
            ("--flight-listen", "127.0.0.1:0".to_string()),
            ("--coordinator", format!("http://{}", self.address(CONTROL_OFFSET))),
            ("--kernel-device", self.kernel_device.to_string()),
            ("--generate-tpch", format!("{},{worker},{}", self.scale, self.workers)),
        ] {
            arguments.extend([flag.to_string(), value]);
        }
        arguments
    }
}

fn node_name(worker: u16) -> String {
    format!("node-{worker}")
}

impl Cluster {
    /// Starts the processes and waits until all workers have joined.
    ///
    /// # Errors
    /// When a port is taken, or a process ends or is not ready in time: with the last lines of its log.
    pub async fn start(plan: ClusterPlan) -> Result<(Self, Client)> {
        plan.check_ports().await?;
        // Children have another working folder in mind once paths travel through catalogs: absolute from here on.
        let plan = ClusterPlan { data: std::path::absolute(&plan.data).map_err(|source| Error::file("find", &plan.data, source))?, ..plan };
        let logs = plan.data.join("logs");
        create_folder(&logs)?;
        let token = uuid::Uuid::new_v4().to_string();
        let server = ChildProcess::start(
            "the server",
            &plan.server_arguments(),
            &[("BOWSHOT__COORDINATOR__CLUSTER_TOKEN", token.clone())],
            logs.join("server.log"),
        )?;
        let mut workers = Vec::new();
        for worker in 1..=plan.workers {
            let node = node_name(worker);
            create_folder(&plan.data.join(&node))?;
            workers.push(ChildProcess::start(
                &format!("the worker {node}"),
                &plan.worker_arguments(worker),
                &[
                    ("BOWSHOT__WORKER__CLUSTER_TOKEN", token.clone()),
                    // One machine plays all nodes: they share its memory.
                    ("BOWSHOT__WORKER__MEMORY_BYTES", (machine_memory_bytes() / 2 / u64::from(plan.workers)).to_string()),
                    ("BOWSHOT__WORKER__CACHE_BYTES", (machine_memory_bytes() / 4 / u64::from(plan.workers)).to_string()),
                ],
                logs.join(format!("{node}.log")),
            )?);
        }
        let mut cluster = Self { plan, server, workers };
        let mut client = cluster.connect().await?;
        cluster.wait_for_workers(&mut client).await?;
        Ok((cluster, client))
    }

    /// What the cluster is made of, with absolute paths.
    pub fn plan(&self) -> &ClusterPlan {
        &self.plan
    }

    /// Fails as soon as one of the processes has ended.
    ///
    /// # Errors
    /// [`Error::Child`].
    pub fn check_running(&mut self) -> Result<()> {
        self.server.check_running()?;
        self.workers.iter_mut().try_for_each(ChildProcess::check_running)
    }

    /// Watches over the processes until the server ends, which it should not. A worker that ends is started again after a moment: somebody may
    /// have killed it to see what happens.
    pub async fn supervise(&mut self) -> Error {
        let mut again_at: Vec<Option<Instant>> = vec![None; self.workers.len()];
        loop {
            if let Err(error) = self.server.check_running() {
                return error;
            }
            for (worker, again_at) in self.workers.iter_mut().zip(&mut again_at) {
                match *again_at {
                    None if worker.has_ended() => {
                        crate::shell::note(format_args!("{} has ended; it starts again in {} s", worker.name(), RESTART_AFTER.as_secs()));
                        *again_at = Some(Instant::now() + RESTART_AFTER);
                    }
                    Some(at) if Instant::now() >= at => {
                        *again_at = None;
                        if let Err(error) = worker.start_again() {
                            crate::shell::note(format_args!("{error}"));
                        }
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Ends the processes, workers first, and waits for them.
    pub async fn end(mut self) {
        for worker in &mut self.workers {
            worker.tell_to_end();
        }
        self.server.tell_to_end();
        for worker in self.workers {
            worker.end().await;
        }
        self.server.end().await;
    }

    async fn connect(&mut self) -> Result<Client> {
        let options = ConnectOptions { url: self.plan.url(), ..ConnectOptions::default() };
        let deadline = Instant::now() + SERVER_DEADLINE;
        loop {
            self.check_running()?;
            match Client::connect(&options).await {
                Ok(client) => return Ok(client),
                Err(_) if Instant::now() < deadline => tokio::time::sleep(POLL_EVERY).await,
                Err(error) => return Err(self.server.failure(&format!("does not answer: {error}"))),
            }
        }
    }

    async fn wait_for_workers(&mut self, client: &mut Client) -> Result<()> {
        let deadline = Instant::now() + WORKER_DEADLINE + WORKER_DEADLINE_PER_SCALE.mul_f64(self.plan.scale);
        loop {
            self.check_running()?;
            let joined = count(client, "SELECT count(*) FROM system.nodes WHERE role = 'worker'").await?;
            if joined >= i64::from(self.plan.workers) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let problem = format!("sees {joined} of {} workers only", self.plan.workers);
                return Err(self.server.failure(&problem));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }
}

/// The one number that a query returns.
///
/// # Errors
/// When the query fails.
pub async fn count(client: &mut Client, sql: &str) -> Result<i64> {
    let batches = client.start(sql).await?.all().await?;
    let count = batches.first().and_then(|batch| {
        let counts = batch.column(0).as_primitive_opt::<Int64Type>()?;
        counts.iter().next().flatten()
    });
    Ok(count.unwrap_or(0))
}

fn create_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|source| Error::file("create", path, source))
}
