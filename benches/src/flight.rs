//! What the wire costs: Bowshot beside a bare arrow-flight server that streams the same batches, on loopback, in one run.
//!
//! ```text
//!   bare-flight process  ── batches in memory ──►  arrow-flight encoder ──► client
//!   bowshot server       ── a query's batches ──►  the same encoder     ──► client
//!   three workers        ── decode Parquet ──► server ──► client                 (what a table adds)
//! ```
//!
//! The two take turns; the best of each counts. Latencies are medians over one warm connection.

use crate::data_set::DataSet;
use crate::engines::{BowshotEngine, collect};
use crate::{Outcome, cpu, environment};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightClient, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

/// Rows of a batch, as the engine makes them.
const BATCH_ROWS: usize = 8192;
/// Columns of eight bytes.
const COLUMNS: usize = 4;
const CONNECTIONS: usize = 1_000;
const READY_WAIT: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct FlightArguments {
    /// Rows of the streams that are compared.
    #[arg(long, default_value_t = 20_000_000)]
    rows: usize,
    /// Scale of the tables that are read from workers.
    #[arg(long, default_value_t = 1.0)]
    sf: f64,
    /// Turns of each stream; the best counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Statements of which each latency is the median.
    #[arg(long, default_value_t = 1_000)]
    statements: usize,
    /// Folder of the data; kept.
    #[arg(long, default_value = ".bowshot/benches")]
    data: PathBuf,
    /// First port of the cluster; the bare server takes the one before.
    #[arg(long, default_value_t = 28670)]
    port_base: u16,
    /// Bowshot's binary.
    #[arg(long, default_value = "target/release/bowshot")]
    bowshot: PathBuf,
}

/// The bare server, for [`run`] to start as a process of its own.
#[derive(clap::Args)]
pub struct BareArguments {
    #[arg(long)]
    port: u16,
    #[arg(long)]
    rows: usize,
}

/// Runs the benchmark and prints its report.
pub async fn run(arguments: FlightArguments) -> Outcome<ExitCode> {
    let data_set = DataSet::Tpch { scale: arguments.sf };
    let data = arguments.data.join(data_set.folder());
    std::fs::create_dir_all(&data)?;
    let engine = BowshotEngine::start(&arguments.bowshot, &data_set, &data, arguments.port_base).await?;
    let bare = BareServer::start(arguments.port_base - 1, arguments.rows)?;
    let mut bare_client = FlightClient::new(connect(arguments.port_base - 1).await?);
    let mut client = FlightSqlServiceClient::new(connect(arguments.port_base).await?);
    println!("## Flight SQL beside a bare arrow-flight server\n");
    for (name, value) in environment::describe() {
        println!("- {name}: {value}");
    }
    // First, as long as the server has no freed memory of large results.
    connections(&arguments, &engine).await?;
    streams(&arguments, &mut bare_client, &mut client).await?;
    drop(bare);
    table(&arguments, &mut client).await?;
    latencies(&arguments, &mut client).await?;
    Ok(ExitCode::SUCCESS)
}

async fn connect(port: u16) -> Outcome<Channel> {
    let deadline = Instant::now() + READY_WAIT;
    loop {
        match Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.tcp_nodelay(true).connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// One stream read to its end.
#[derive(Default, Clone, Copy)]
struct Read {
    first: Duration,
    elapsed: Duration,
    rows: usize,
    bytes: usize,
}

impl Read {
    fn gigabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.elapsed.as_secs_f64() / 1e9
    }
}

async fn read<E: std::error::Error + Send + Sync + 'static>(
    started: Instant,
    mut batches: impl futures::Stream<Item = Result<RecordBatch, E>> + Unpin,
) -> Outcome<Read> {
    let mut read = Read::default();
    while let Some(batch) = batches.try_next().await? {
        if read.rows == 0 {
            read.first = started.elapsed();
        }
        read.rows += batch.num_rows();
        // Of the rows alone: the columns of a message share one buffer.
        for column in batch.columns() {
            read.bytes += column.to_data().get_slice_memory_size()?;
        }
    }
    read.elapsed = started.elapsed();
    Ok(read)
}

async fn fetch(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Outcome<(Read, Duration)> {
    let asked = Instant::now();
    let info = client.execute(sql.to_string(), None).await?;
    let mut total = Read::default();
    let started = Instant::now();
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("an endpoint without a ticket")?;
        let one = read(started, client.do_get(ticket).await?).await?;
        let first = if total.rows == 0 { one.first } else { total.first };
        total = Read { first, elapsed: one.elapsed, rows: total.rows + one.rows, bytes: total.bytes + one.bytes };
    }
    Ok((total, asked.elapsed()))
}

fn columns_of(rows: usize) -> String {
    let columns: Vec<String> = (0..COLUMNS).map(|at| format!("value AS c{at}")).collect();
    format!("SELECT {} FROM generate_series(1, {rows}) AS t(value)", columns.join(", "))
}

/// The same batches from both servers, in turns.
async fn streams(arguments: &FlightArguments, bare: &mut FlightClient, client: &mut FlightSqlServiceClient<Channel>) -> Outcome<()> {
    let (mut best_bare, mut best) = (Read::default(), Read::default());
    let better = |best: &mut Read, read: Read| {
        if best.rows == 0 || read.elapsed < best.elapsed {
            *best = read;
        }
    };
    let mut ratios = vec![];
    for _ in 0..arguments.runs {
        let started = Instant::now();
        let from_bare = read(started, bare.do_get(Ticket::new("all")).await?).await?;
        let (read, _) = fetch(client, &columns_of(arguments.rows)).await?;
        if (read.rows, read.bytes) != (from_bare.rows, from_bare.bytes) {
            return Err(format!(
                "{} rows of {} bytes came, the bare server sent {} of {}",
                read.rows, read.bytes, from_bare.rows, from_bare.bytes
            )
            .into());
        }
        ratios.push(read.gigabytes_per_second() / from_bare.gigabytes_per_second());
        better(&mut best_bare, from_bare);
        better(&mut best, read);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "- {} rows of {COLUMNS} columns of eight bytes, {} MB, batches of {BATCH_ROWS} rows, one stream\n",
        best.rows,
        best.bytes / 1_000_000
    );
    println!("| stream | GB/s, best | first batch |\n|---|---|---|");
    for (name, read) in [("bare arrow-flight", best_bare), ("bowshot", best)] {
        println!("| {name} | {:.2} | {:.1} ms |", read.gigabytes_per_second(), read.first.as_secs_f64() * 1e3);
    }
    println!(
        "\nBowshot moves {:.2} times what the bare server does (median of {} turns: {:.2}).",
        best.gigabytes_per_second() / best_bare.gigabytes_per_second(),
        ratios.len(),
        ratios[ratios.len() / 2]
    );
    Ok(())
}

/// How the rows of a stored table come to the client.
#[derive(Clone, Copy)]
enum Way {
    /// One stream from the server.
    Coordinator,
    /// A stream for each worker's part, all through the server.
    ThroughServer,
    /// A stream from each worker.
    Workers,
}

impl Way {
    const ALL: [(Self, &str, &str); 3] = [
        (Self::Coordinator, "one stream from the server", "coordinator"),
        (Self::ThroughServer, "a stream a worker, through the server", "workers"),
        (Self::Workers, "a stream from each worker", "workers"),
    ];
}

/// The same rows in all ways, in turns.
async fn table(arguments: &FlightArguments, client: &mut FlightSqlServiceClient<Channel>) -> Outcome<()> {
    println!("\n| stored table | way | rows | MB | GB/s, best | first batch |\n|---|---|---|---|---|---|");
    for sql in ["SELECT l_orderkey, l_partkey, l_suppkey, l_linenumber FROM tpch.lineitem", "SELECT * FROM tpch.lineitem"] {
        let mut best = [Read::default(); 3];
        for _ in 0..arguments.runs {
            for ((way, _, endpoints), best) in Way::ALL.into_iter().zip(&mut best) {
                fetch(client, &format!("SET bowshot.result_endpoints = '{endpoints}'")).await?;
                let read = fetch_at_once(client, sql, way).await?;
                if best.rows == 0 || read.elapsed < best.elapsed {
                    *best = read;
                }
            }
        }
        // Bytes differ by an offset a text column and batch, and batches by the way.
        let same = |read: &Read| read.rows == best[0].rows && read.bytes.abs_diff(best[0].bytes) < best[0].bytes / 1000;
        if !best.iter().all(same) {
            let all: Vec<_> = best.iter().map(|read| (read.rows, read.bytes)).collect();
            return Err(format!("{sql}: not the same rows and bytes in all ways: {all:?}").into());
        }
        for ((_, name, _), best) in Way::ALL.into_iter().zip(best) {
            println!(
                "| `{sql}` | {name} | {} | {} | {:.2} | {:.1} ms |",
                best.rows,
                best.bytes / 1_000_000,
                best.gigabytes_per_second(),
                best.first.as_secs_f64() * 1e3
            );
        }
    }
    fetch(client, "SET bowshot.result_endpoints = 'auto'").await?;
    Ok(())
}

/// Reads all endpoints beside each other.
async fn fetch_at_once(client: &mut FlightSqlServiceClient<Channel>, sql: &str, way: Way) -> Outcome<Read> {
    let info = client.execute(sql.to_string(), None).await?;
    let started = Instant::now();
    let mut reading = tokio::task::JoinSet::new();
    for endpoint in info.endpoint {
        let ticket = endpoint.ticket.ok_or("an endpoint without a ticket")?;
        let location = endpoint.location.first().map(|location| location.uri.replace("grpc://", "http://"));
        let mut source = match (way, location) {
            (Way::Workers, None) => return Err("a worker does not listen to clients".into()),
            (Way::Workers, Some(url)) => FlightSqlServiceClient::new(Endpoint::from_shared(url)?.tcp_nodelay(true).connect().await?),
            _ => client.clone(),
        };
        reading.spawn(async move {
            let read = async { read(started, source.do_get(ticket).await?).await };
            read.await.map_err(|error| error.to_string())
        });
    }
    let mut total = Read::default();
    while let Some(one) = reading.join_next().await {
        let one = one??;
        let first = if total.rows == 0 { one.first } else { total.first.min(one.first) };
        let elapsed = total.elapsed.max(one.elapsed);
        total = Read { first, elapsed, rows: total.rows + one.rows, bytes: total.bytes + one.bytes };
    }
    Ok(total)
}

/// Medians over one warm session.
async fn latencies(arguments: &FlightArguments, client: &mut FlightSqlServiceClient<Channel>) -> Outcome<()> {
    println!("\n| statement, warm | p50 | p99 |\n|---|---|---|");
    let show = |name: &str, mut times: Vec<Duration>| {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!("| {name} | {:.2} ms | {:.2} ms |", at(0.5), at(0.99));
    };
    for sql in ["SELECT 1", "SELECT count(*) FROM tpch.nation"] {
        let mut times = vec![];
        for turn in 0..arguments.statements + 20 {
            let (_, elapsed) = fetch(client, sql).await?;
            if turn >= 20 {
                times.push(elapsed);
            }
        }
        show(&format!("`{sql}`"), times);
    }
    let sql = "SELECT $1 + 1, n_name FROM tpch.nation WHERE n_nationkey = $1";
    let mut prepared = client.prepare(sql.to_string(), None).await?;
    let mut times = vec![];
    for turn in 0..arguments.statements {
        let key: ArrayRef = Arc::new(Int64Array::from(vec![(turn % 25) as i64]));
        prepared.set_parameters(RecordBatch::try_from_iter([("$1", key)])?)?;
        let started = Instant::now();
        let info = prepared.execute().await?;
        let ticket = info.endpoint[0].ticket.clone().ok_or("an endpoint without a ticket")?;
        let rows = read(started, client.do_get(ticket).await?).await?.rows;
        if rows != 1 {
            return Err(format!("{rows} rows of key {}", turn % 25).into());
        }
        times.push(started.elapsed());
    }
    show(&format!("prepared `{sql}`"), times);
    Ok(())
}

/// What connections cost that have asked something and are silent since.
async fn connections(arguments: &FlightArguments, engine: &BowshotEngine) -> Outcome<()> {
    let server = engine.server_process().ok_or("the server's process is not found")?;
    let before = cpu::resident_bytes(server).ok_or("the server's memory is not known")?;
    let mut open = vec![];
    for _ in 0..CONNECTIONS {
        let mut client = FlightSqlServiceClient::new(connect(arguments.port_base).await?);
        collect(&mut client, "SELECT 1").await?;
        open.push(client);
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = cpu::resident_bytes(server).ok_or("the server's memory is not known")?;
    println!(
        "- {CONNECTIONS} idle connections, each after a statement: {:.1} MB more than before ({:.1} MB).",
        after.saturating_sub(before) as f64 / 1e6,
        before as f64 / 1e6
    );
    Ok(())
}

/// The bare server's process. It ends with this value.
struct BareServer(Child);

impl BareServer {
    fn start(port: u16, rows: usize) -> Outcome<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["bare-flight", "--port", &port.to_string(), "--rows", &rows.to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the batches until the process is ended.
pub async fn serve_bare(arguments: BareArguments) -> Outcome<ExitCode> {
    let service = FlightServiceServer::new(Bare { rows: arguments.rows });
    Server::builder().add_service(service).serve(SocketAddr::from(([127, 0, 0, 1], arguments.port))).await?;
    Ok(ExitCode::SUCCESS)
}

/// Nothing but DoGet.
struct Bare {
    rows: usize,
}

fn batches(rows: usize) -> impl Iterator<Item = RecordBatch> {
    (0..rows).step_by(BATCH_ROWS).map(move |from| {
        let to = rows.min(from + BATCH_ROWS);
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values((from..to).map(|row| row as i64 + 1)));
        let columns = (0..COLUMNS).map(|at| (format!("c{at}"), column.clone(), true));
        RecordBatch::try_from_iter_with_nullable(columns).expect("columns are of one length")
    })
}

#[tonic::async_trait]
impl FlightService for Bare {
    type HandshakeStream = BoxStream<'static, Result<HandshakeResponse, Status>>;
    type ListFlightsStream = BoxStream<'static, Result<FlightInfo, Status>>;
    type DoGetStream = BoxStream<'static, Result<FlightData, Status>>;
    type DoPutStream = BoxStream<'static, Result<PutResult, Status>>;
    type DoActionStream = BoxStream<'static, Result<arrow_flight::Result, Status>>;
    type ListActionsStream = BoxStream<'static, Result<ActionType, Status>>;
    type DoExchangeStream = BoxStream<'static, Result<FlightData, Status>>;

    async fn do_get(&self, _: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let batches = futures::stream::iter(batches(self.rows).map(Ok));
        let messages = FlightDataEncoderBuilder::new().build(batches).map_err(Status::from);
        Ok(Response::new(messages.boxed()))
    }

    async fn handshake(&self, _: Request<Streaming<HandshakeRequest>>) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(only_do_get())
    }
    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(only_do_get())
    }
    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        Err(only_do_get())
    }
    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(only_do_get())
    }
    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        Err(only_do_get())
    }
    async fn do_put(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        Err(only_do_get())
    }
    async fn do_action(&self, _: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        Err(only_do_get())
    }
    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        Err(only_do_get())
    }
    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(only_do_get())
    }
}

fn only_do_get() -> Status {
    Status::unimplemented("the bare server knows DoGet alone")
}
