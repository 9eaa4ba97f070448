//! How planning grows with the catalog: a server with a real catalog, nodes that are there in name only.
//!
//! ```text
//!   1,000 nodes ──register, heartbeat──► bowshot server ◄──CREATE EXTERNAL TABLE, EXPLAIN── client
//!   each reports 1,000 files             catalog of 1,000,000 files in 10 tables
//! ```
//!
//! The nodes register over the control channel as workers do, go on with heartbeats, and report footers of real Parquet files. Nothing is read
//! from them: EXPLAIN ends where fragments would be sent. What is timed is the whole statement as a client sees it, the plan's text included.

use crate::engines::collect;
use crate::{Outcome, environment};
use arrow_flight::sql::client::FlightSqlServiceClient;
use bowshot_engine::catalog::footer;
use bowshot_engine::control::client::ControlClient;
use bowshot_engine::control::packed::PackedInventory;
use bowshot_engine::control::{FileFacts, Heartbeat, PROTOCOL_VERSION, Register, VolumeFile, now_ms};
use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

const VOLUME: &str = "data";
const TOKEN: &str = "planning-benchmark";
/// Columns of each table: a third of numbers, doubles and strings each.
const COLUMNS: usize = 15;
/// Files whose footers are made; the others repeat them under other names, sizes and versions.
const FOOTERS: usize = 500;
const READY_WAIT: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub struct PlanningArguments {
    /// Nodes that register.
    #[arg(long, default_value_t = 1_000)]
    nodes: usize,
    /// Files in all.
    #[arg(long, default_value_t = 1_000_000)]
    files: usize,
    /// Tables that they belong to, each with as many; a query over one touches all of its files.
    #[arg(long, default_value_t = 10)]
    tables: usize,
    /// Times that each statement is planned.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// First port of the server.
    #[arg(long, default_value_t = 28570)]
    port_base: u16,
    /// Bowshot's binary.
    #[arg(long, default_value = "target/release/bowshot")]
    bowshot: PathBuf,
}

/// Runs the benchmark and prints its report.
pub async fn run(arguments: PlanningArguments) -> Outcome<ExitCode> {
    if arguments.tables < TABLES_ASKED || arguments.nodes == 0 || arguments.files < arguments.nodes * arguments.tables {
        return Err(format!("the statements ask {TABLES_ASKED} tables: give at least as many, and a file of each to every node").into());
    }
    let folder = tempfile::tempdir()?;
    let server = Server::start(&arguments, folder.path())?;
    let footers = footers()?;
    let mut inventories = vec![];
    for number in 0..arguments.nodes {
        // Packed beforehand, as on machines of their own.
        inventories.push(PackedInventory::pack(&files(&arguments, number, &footers))?);
    }
    let mut client = server.connect().await?;
    let started = Instant::now();
    let mut nodes = tokio::task::JoinSet::new();
    for (number, inventory) in inventories.into_iter().enumerate() {
        nodes.spawn(keep_alive(format!("node-{number:04}"), server.control_port, inventory));
    }
    wait_for_nodes(&mut client, arguments.nodes).await?;
    let joined = started.elapsed();
    let empty_bytes = server.resident_bytes("VmRSS")?;
    let started = Instant::now();
    for table in 0..arguments.tables {
        collect(&mut client, &format!("CREATE EXTERNAL TABLE t{table} STORED AS PARQUET LOCATION 'node://*/{VOLUME}/t{table}/'")).await?;
    }
    let created = started.elapsed();
    println!("## planning over {} files\n", arguments.files);
    for (name, value) in environment::describe() {
        println!("- {name}: {value}");
    }
    println!("- nodes: {}, tables: {}, columns: {COLUMNS}", arguments.nodes, arguments.tables);
    println!("- all nodes live, their inventories taken in: {:.1} s; the server holds {} MiB", joined.as_secs_f64(), empty_bytes >> 20);
    println!("- all tables created: {:.1} s, {:.2} s each", created.as_secs_f64(), created.as_secs_f64() / arguments.tables as f64);
    println!("\n| statement | files touched | best (s) | median (s) | worst (s) |\n|---|---|---|---|---|");
    let of_table = arguments.files / arguments.tables;
    for (name, sql, tables) in STATEMENTS {
        let mut seconds = vec![];
        for _ in 0..arguments.runs {
            let started = Instant::now();
            let (_, batches) = collect(&mut client, &format!("EXPLAIN {sql}")).await?;
            seconds.push(started.elapsed().as_secs_f64());
            if batches.iter().map(|batch| batch.num_rows()).sum::<usize>() == 0 {
                return Err(format!("no plan of {sql}").into());
            }
        }
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        println!("| {name} | {} | {:.3} | {median:.3} | {:.3} |", of_table * tables, seconds[0], seconds[seconds.len() - 1]);
    }
    let peak = server.resident_bytes("VmHWM")?;
    println!("\nThe server's memory: {} MiB now, {} MiB at most.", server.resident_bytes("VmRSS")? >> 20, peak >> 20);
    nodes.abort_all();
    Ok(ExitCode::SUCCESS)
}

/// Tables that [`STATEMENTS`] name.
const TABLES_ASKED: usize = 6;
/// Names, texts, and over how many tables.
const STATEMENTS: [(&str, &str, usize); 5] = [
    ("no table", "SELECT 1", 0),
    ("an aggregate", "SELECT count(*), sum(c0), max(c2) FROM t1", 1),
    (
        "groups with a filter",
        "SELECT c2, sum(c1) FROM t2 WHERE c0 BETWEEN 100 AND 200 AND c5 = 'x' GROUP BY c2 ORDER BY 2 DESC LIMIT 10",
        1,
    ),
    ("a join", "SELECT a.c2, sum(b.c1) FROM t3 a JOIN t4 b ON a.c0 = b.c3 WHERE a.c5 < 'm' GROUP BY a.c2", 2),
    ("a window over rows", "SELECT c2, rank() OVER (PARTITION BY c2 ORDER BY c1) FROM t5 WHERE c0 < 50", 1),
];

/// `bowshot server`; ends with this value.
struct Server {
    child: Child,
    port: u16,
    control_port: u16,
}

impl Server {
    fn start(arguments: &PlanningArguments, folder: &std::path::Path) -> Outcome<Self> {
        let (port, control_port) = (arguments.port_base, arguments.port_base + 2);
        let listen = |port: u16| format!("127.0.0.1:{port}");
        let child = Command::new(&arguments.bowshot)
            .args(["server", "--exit-with-parent", "--listen", &listen(port), "--http-listen", &listen(port + 1)])
            .args(["--control-listen", &listen(control_port), "--data-dir"])
            .arg(folder.join("coordinator"))
            .env("BOWSHOT__COORDINATOR__CLUSTER_TOKEN", TOKEN)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("server.log"))?)
            .spawn()
            .map_err(|error| format!("{} cannot start: {error}", arguments.bowshot.display()))?;
        Ok(Self { child, port, control_port })
    }

    async fn connect(&self) -> Outcome<FlightSqlServiceClient<Channel>> {
        let deadline = Instant::now() + READY_WAIT;
        loop {
            match Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port))?.tcp_nodelay(true).connect().await {
                Ok(channel) => return Ok(FlightSqlServiceClient::new(channel)),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// A figure of the process's memory, in bytes.
    fn resident_bytes(&self, field: &str) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such figure")?;
        let kibibytes: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes << 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn wait_for_nodes(client: &mut FlightSqlServiceClient<Channel>, nodes: usize) -> Outcome<()> {
    let deadline = Instant::now() + READY_WAIT;
    loop {
        let (_, batches) = collect(client, "SELECT node_id FROM system.nodes WHERE role = 'worker' AND state = 'live'").await?;
        let live: usize = batches.iter().map(|batch| batch.num_rows()).sum();
        if live == nodes {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{live} of {nodes} nodes are live after {} s", READY_WAIT.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Facts of real files, each with its own bounds.
fn footers() -> Outcome<Vec<FileFacts>> {
    let one = |number: usize| -> Outcome<FileFacts> {
        let column = |at: usize| -> (String, ArrayRef) {
            let base = (number * COLUMNS + at) as i64;
            let values: ArrayRef = match at % 3 {
                0 => Arc::new(Int64Array::from_iter_values((0..4).map(|row| base * 1_000_003 + row))),
                1 => Arc::new(Float64Array::from_iter_values((0..4).map(|row| base as f64 / 7.0 + f64::from(row)))),
                _ => Arc::new(StringArray::from_iter_values((0..4).map(|row| format!("{:x}-{row}", base * 2_654_435_761)))),
            };
            (format!("c{at}"), values)
        };
        let batch = RecordBatch::try_from_iter((0..COLUMNS).map(column))?;
        let mut bytes = vec![];
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None)?;
        writer.write(&batch)?;
        writer.close()?;
        let size = bytes.len() as u64;
        let reader = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
        Ok(footer::file_facts(reader.metadata(), size, 0)?)
    };
    (0..FOOTERS).map(one).collect()
}

/// What one node reports: an equal part of every table.
fn files(arguments: &PlanningArguments, node: usize, footers: &[FileFacts]) -> Vec<VolumeFile> {
    let of_node = arguments.files / arguments.nodes;
    let one = |number: usize| {
        let global = node * of_node + number;
        let mut facts = footers[global % footers.len()].clone();
        facts.size_bytes = 100_000_000 + global as u64;
        facts.version = 1_700_000_000_000_000_000 + global as i64;
        facts.footer_hash = format!("{global:016x}");
        VolumeFile { volume: VOLUME.into(), path: format!("t{}/part-{global:07}.parquet", number % arguments.tables), facts }
    };
    (0..of_node).map(one).collect()
}

/// Registers a node and sends its heartbeats for as long as it is polled.
async fn keep_alive(node_id: String, control_port: u16, inventory: PackedInventory) {
    loop {
        if let Err(error) = beat(&node_id, control_port, &inventory).await {
            eprintln!("{node_id}: {error}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn beat(node_id: &str, control_port: u16, inventory: &PackedInventory) -> Outcome<()> {
    let mut client = ControlClient::new(&format!("http://127.0.0.1:{control_port}"), TOKEN, None)?;
    let register = Register {
        protocol_version: PROTOCOL_VERSION,
        version: env!("CARGO_PKG_VERSION").into(),
        node_id: node_id.into(),
        region: "eu".into(),
        // Nobody listens there, and nobody is to be asked.
        address: format!("http://127.0.0.1:9/{node_id}"),
        pid: 1,
        cpu_threads: 8,
        device: "off".into(),
        incarnation: node_id.into(),
        volumes: vec![VOLUME.into()],
        volume_regions: BTreeMap::new(),
        keeps_parts: false,
        client_url: None,
        found_volumes: Default::default(),
    };
    let mut policy_version = Some(client.register(&register).await?.policy.version);
    let mut acknowledged = 0;
    loop {
        let heartbeat = Heartbeat {
            budgets: Default::default(),
            node_id: node_id.into(),
            incarnation: node_id.into(),
            inventory_epoch: 1,
            packed_inventory: (acknowledged != 1).then(|| inventory.clone()),
            inventory: None,
            cached_bytes: 0,
            cached_columns: None,
            device: "off".into(),
            listed_at_ms: now_ms(),
            listed_after_ms: None,
            unreadable: vec![],
            replicas: vec![],
            failed_copies: vec![],
            hashed: vec![],
            damaged: vec![],
            free_bytes: Default::default(),
            missing_volumes: Default::default(),
            running_tasks: 0,
            max_tasks: 0,
            memory_reserved_bytes: 0,
            spilled_bytes: 0,
            leaving: false,
            policy_version,
            sent_at_ms: Some(now_ms()),
        };
        let answer = client.heartbeat(&heartbeat).await?;
        if answer.register_again {
            return Err("asked to register again".into());
        }
        acknowledged = answer.acknowledged_epoch;
        policy_version = answer.policy.map(|policy| policy.version).or(policy_version);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
