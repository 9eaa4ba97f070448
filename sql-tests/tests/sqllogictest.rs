//! Every script below `slt/`, through Flight SQL, on the host kernel, on the device and without kernels: the answers must be the same, and
//! those of the file, which DuckDB gave (`clients/complete_slt.py`).
//!
//! The scripts run over a cluster of three workers that this test starts: TPC-H at scale 0.01 and the spread tables in parts, and the edge-case
//! tables, each on one node. With `BOWSHOT_URL` they run against a server that has those tables already.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow_flight::sql::client::FlightSqlServiceClient;
use async_trait::async_trait;
use bowshot_sql_tests::cluster::{Cluster, program};
use futures::{StreamExt, TryStreamExt};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner, strict_column_validator};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

const KERNELS: [&str; 3] = ["host", "device", "off"];
/// A script with this line, and the reason behind it, runs on the first kernel alone.
const ONE_KERNEL: &str = "# One kernel: ";
/// Scripts that run at once: they wait for answers more than they compute.
const SCRIPTS_AT_ONCE: usize = 3;
const NODES: usize = 3;
const TPCH_SCALE: &str = "0.01";
/// The workers join, and their inventories arrive, within this time.
const READY: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Server(#[from] ArrowError),
    #[error("{0}")]
    Flight(#[from] arrow_flight::error::FlightError),
    #[error("{0}")]
    Connect(#[from] tonic::transport::Error),
}

/// One session.
struct Session {
    client: FlightSqlServiceClient<Channel>,
}

impl Session {
    async fn open(url: String, kernel: &str) -> Result<Self, Failure> {
        let channel = Endpoint::from_shared(url)?.connect().await?;
        let mut session = Self { client: FlightSqlServiceClient::new(channel) };
        session.rows(&format!("SET bowshot.kernel = '{kernel}'")).await?;
        Ok(session)
    }

    /// The answer, with its schema: an answer without rows still has columns.
    async fn answer(&mut self, sql: &str) -> Result<(Schema, Vec<RecordBatch>), Failure> {
        let info = self.client.execute(sql.to_string(), None).await?;
        let schema = info.clone().try_decode_schema()?;
        let mut batches = vec![];
        for ticket in info.endpoint.into_iter().filter_map(|endpoint| endpoint.ticket) {
            let stream = self.client.do_get(ticket).await?;
            batches.extend(stream.try_collect::<Vec<_>>().await?);
        }
        Ok((schema, batches))
    }

    async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<String>>, Failure> {
        let (_, batches) = self.answer(sql).await?;
        Ok(texts(&batches)?)
    }
}

#[async_trait]
impl AsyncDB for Session {
    type Error = Failure;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Failure> {
        let (schema, batches) = self.answer(sql).await?;
        if schema.fields().is_empty() {
            return Ok(DBOutput::StatementComplete(0));
        }
        let types = schema.fields().iter().map(|field| column_type(field.data_type())).collect();
        Ok(DBOutput::Rows { types, rows: texts(&batches)? })
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        "bowshot"
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

fn column_type(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        number if number.is_integer() => DefaultColumnType::Integer,
        number if number.is_numeric() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// The cells of an answer as the scripts write them.
fn texts(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, ArrowError> {
    let options = FormatOptions::default();
    let mut rows = vec![];
    for batch in batches {
        let formatters = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
        rows.extend((0..batch.num_rows()).map(|row| {
            let cells = batch.columns().iter().zip(&formatters);
            cells.map(|(column, formatter)| cell_text(column, formatter, row)).collect()
        }));
    }
    Ok(rows)
}

fn cell_text(column: &dyn Array, formatter: &ArrayFormatter<'_>, row: usize) -> String {
    if column.is_null(row) {
        return "NULL".into();
    }
    match column.data_type() {
        DataType::Float64 => number_text(column.as_primitive::<Float64Type>().value(row)),
        DataType::Float32 => number_text(column.as_primitive::<Float32Type>().value(row).into()),
        _ => match formatter.value(row).to_string() {
            empty if empty.is_empty() => "(empty)".into(),
            text => text.replace('\n', "\\n"),
        },
    }
}

/// Ten digits: sums of doubles differ in the last ones with the order of their terms.
fn number_text(value: f64) -> String {
    match format!("{value:.9e}").parse::<f64>() {
        Ok(rounded) => format!("{rounded:?}"),
        Err(_) => value.to_string(),
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("slt")
}

fn scripts() -> Vec<PathBuf> {
    let mut scripts = vec![];
    let mut folders = vec![folder()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder of the scripts can be read") {
            let path = entry.expect("the folder of the scripts can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "slt") {
                scripts.push(path);
            }
        }
    }
    scripts.sort();
    assert!(!scripts.is_empty(), "no script below {}", folder().display());
    scripts
}

/// Generates the data into one volume a node and answers the volumes with the tables in them.
fn generate(target: &Path) -> (Vec<PathBuf>, Vec<String>) {
    let generator = program("bowshot-datagen", "BOWSHOT_DATAGEN").expect("the generator is built");
    let volumes: Vec<PathBuf> = (1..=NODES).map(|node| target.join(format!("node-{node}"))).collect();
    let generate = |arguments: &[&str], out: &Path| {
        let done = Command::new(&generator).args(arguments).arg("--out").arg(out).output().expect("the generator starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    for (part, volume) in (1..).zip(&volumes) {
        let dealt = ["--part", &part.to_string(), "--parts", &NODES.to_string()];
        generate(&[&["tpch", "--scale", TPCH_SCALE][..], &dealt].concat(), volume);
        generate(&[&["spread"][..], &dealt].concat(), volume);
    }
    let mut tables = folder_names(&volumes[0]);
    let edge_cases = target.join("edge-cases");
    generate(&["edge-cases"], &edge_cases);
    for (position, table) in folder_names(&edge_cases).into_iter().enumerate() {
        fs::rename(edge_cases.join(&table), volumes[position % NODES].join(&table)).expect("a table can be moved into a volume");
        tables.push(table);
    }
    (volumes, tables)
}

fn folder_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the generator made the folder").filter_map(Result::ok);
    let mut names: Vec<String> =
        entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Waits for the workers, then makes the tables known.
async fn create_tables(url: &str, tables: &[String]) -> Result<(), Failure> {
    let deadline = Instant::now() + READY;
    let mut session = loop {
        match Session::open(url.to_string(), "auto").await {
            Ok(session) => break session,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let live = "SELECT count(*) AS live FROM system.nodes WHERE role = 'worker' AND state = 'live'";
    while session.rows(live).await? != [[NODES.to_string()]] {
        assert!(Instant::now() < deadline, "the workers have not joined within {READY:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for table in tables {
        session.rows(&format!("CREATE EXTERNAL TABLE {table} STORED AS PARQUET LOCATION 'node://*/data/{table}/'")).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_script_agrees_on_every_kernel() {
    let scratch = tempfile::tempdir().expect("a temporary folder can be made");
    let given = std::env::var("BOWSHOT_URL").ok().map(|url| url.replacen("grpc://", "http://", 1));
    let started = given.is_none().then(|| {
        let (volumes, tables) = generate(scratch.path());
        (Cluster::start(&scratch.path().join("logs"), &volumes).expect("the cluster starts"), tables)
    });
    let url = match (&started, given) {
        (Some((cluster, tables)), _) => {
            create_tables(&cluster.url(), tables).await.expect("the tables can be created");
            cluster.url()
        }
        (None, given) => given.unwrap_or_default(),
    };
    let running = futures::stream::iter(scripts()).map(|script| differences(script, &url)).buffer_unordered(SCRIPTS_AT_ONCE);
    let problems: Vec<String> = running.collect::<Vec<_>>().await.concat();
    assert!(problems.is_empty(), "{} differences:\n\n{}", problems.len(), problems.join("\n\n"));
}

/// What differs in a script, on each kernel after the other: its tables have one name.
async fn differences(script: PathBuf, url: &str) -> Vec<String> {
    let text = fs::read_to_string(&script).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let kernels = if text.lines().any(|line| line.starts_with(ONE_KERNEL)) { &KERNELS[..1] } else { &KERNELS[..] };
    let mut problems = vec![];
    for kernel in kernels {
        let mut runner = Runner::new(|| Session::open(url.to_string(), kernel));
        runner.with_column_validator(strict_column_validator);
        let records = sqllogictest::parse_file(&script).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
        for record in records {
            // The rest of the script still runs: one run shows all that differs.
            if let Err(error) = runner.run_async(record).await {
                problems.push(format!("kernel = {kernel}: {}", error.display(false)));
            }
        }
    }
    problems
}
