//! A stranger who knows the workers' protocol: plans that read what is in no volume are refused, with and without the cluster's token.
//!
//! The plan is a CSV scan of a file of the system, or one that writes, sent to a worker as a coordinator would send it.

use arrow::datatypes::{DataType, Field, Schema};
use arrow_flight::sql::client::FlightSqlServiceClient;
use bowshot_sql_tests::cluster::{CLUSTER_TOKEN, Cluster};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateBuilder;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    DistributedExt, ExecuteTaskRequest, MaybeEncoded, ProducerHead, RouteTasksEvent, RouteTasksEventResponse, SessionStateBuilderExt,
    SetPlanRequest, TaskKey, WorkerResolver,
};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue};
use object_store::local::LocalFileSystem;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use url::Url;

const SECRET_FILE: &str = "/etc/passwd";
const TOKEN_HEADER: &str = "x-bowshot-cluster-token";
/// What a worker says of a place outside its volumes, by the point at which it notices; the task that would have read from the refused one is refused
/// too, since no coordinator declared it.
const OUTSIDE: [&str; 3] = ["refuses this plan", "does not read file://", NOBODYS_TASK];
/// What a worker says to whoever wants rows of a task that no coordinator declared.
const NOBODYS_TASK: &str = "was not declared";
const READY: Duration = Duration::from_secs(60);

/// One worker, named twice: a plan for one task would stay with its sender.
struct OneWorker(Url);

impl WorkerResolver for OneWorker {
    fn get_urls(&self) -> Result<Vec<Url>> {
        Ok(vec![self.0.clone(), self.0.clone()])
    }
}

fn worker() -> (tempfile::TempDir, Cluster) {
    let scratch = tempfile::tempdir().expect("a temporary folder can be made");
    let volume = scratch.path().join("volume");
    std::fs::create_dir(&volume).expect("a volume can be made");
    let cluster = Cluster::start(&scratch.path().join("logs"), &[volume]).expect("the cluster starts");
    let address: SocketAddr = cluster.worker_addresses()[0];
    let deadline = Instant::now() + READY;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < deadline, "the worker does not listen on {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
    (scratch, cluster)
}

/// A session whose plans go to the worker, with this token.
fn stranger(cluster: &Cluster, token: Option<&str>) -> SessionContext {
    let url: Url = format!("http://{}", cluster.worker_addresses()[0]).parse().expect("an address makes a URL");
    let route = url.clone();
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(TOKEN_HEADER, HeaderValue::from_str(token).expect("the token can travel in a header"));
    }
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(2))
        .with_distributed_worker_resolver(OneWorker(url))
        .with_distributed_planner()
        .with_distributed_desired_task_count_handler(2_usize)
        .with_distributed_route_tasks_handler(move |event: RouteTasksEvent| {
            Some(Ok(RouteTasksEventResponse::new(vec![route.clone(); event.task_count])))
        })
        .with_distributed_passthrough_headers(headers)
        .expect("the header is no reserved one");
    SessionContext::new_with_state(state.build())
}

/// Reads the lines of `path` on the worker.
async fn read_lines(context: &SessionContext, path: &str) -> Result<usize> {
    let lines = Schema::new(vec![Field::new("line", DataType::Utf8, true)]);
    let options = CsvReadOptions::new().has_header(false).delimiter(b'\x01').schema(&lines).file_extension("");
    context.register_csv("lines", path, options).await?;
    run(context, "SELECT line, count(*) AS n FROM lines GROUP BY line ORDER BY line LIMIT 3").await
}

/// Rows of a query; fails the test when its plan would not leave this process.
async fn run(context: &SessionContext, sql: &str) -> Result<usize> {
    let frame = context.sql(sql).await?;
    let plan = frame.clone().create_physical_plan().await?;
    assert!(plan.is::<datafusion_distributed::DistributedExec>(), "the plan would run here, not on the worker");
    let answer = tokio::time::timeout(READY, frame.collect()).await.map_err(|_| DataFusionError::Execution("no answer".into()))?;
    Ok(answer?.iter().map(|batch| batch.num_rows()).sum())
}

fn assert_refused(outcome: Result<usize>, words: &[&str]) {
    match outcome {
        Ok(rows) => panic!("the worker answered {rows} rows"),
        Err(error) => {
            let text = error.to_string();
            assert!(words.iter().any(|word| text.contains(word)), "{text}");
            assert!(!text.contains("root:"), "the refusal holds what it refuses: {text}");
        }
    }
}

#[tokio::test]
async fn without_the_right_token_nothing_is_read() {
    let (_scratch, cluster) = worker();
    for token in [None, Some(""), Some("wrong-token-of-a-stranger"), Some(&CLUSTER_TOKEN[1..])] {
        assert_refused(read_lines(&stranger(&cluster, token), SECRET_FILE).await, &["cluster token"]);
    }
}

#[tokio::test]
async fn even_a_node_of_the_cluster_reads_volumes_only() {
    let (_scratch, cluster) = worker();
    for path in [SECRET_FILE.to_string(), format!("file://{SECRET_FILE}")] {
        assert_refused(read_lines(&stranger(&cluster, Some(CLUSTER_TOKEN)), &path).await, &OUTSIDE);
    }
}

#[tokio::test]
async fn parquet_outside_the_volumes_is_refused_too() {
    let (scratch, cluster) = worker();
    let outside = scratch.path().join("outside.parquet");
    write_parquet(&outside).await.expect("a file can be written");
    let node = stranger(&cluster, Some(CLUSTER_TOKEN));
    node.register_parquet("outside", outside.display().to_string(), ParquetReadOptions::default())
        .await
        .expect("the stranger sees the file");
    assert_refused(run(&node, "SELECT column1, count(*) AS n FROM outside GROUP BY column1").await, &OUTSIDE);
}

/// No planner of ours or the library's gives a worker a plan that writes; a stranger's own message does.
#[tokio::test]
async fn a_plan_that_writes_is_refused() {
    let (scratch, cluster) = worker();
    for place in ["volume/written.csv", "written.csv"] {
        let target = scratch.path().join(place);
        let plain = SessionContext::new_with_state(SessionStateBuilder::new().with_default_features().build());
        let copy = format!("COPY (VALUES (1), (2)) TO '{}' STORED AS CSV", target.display());
        let plan = plain.sql(&copy).await.expect("a statement").create_physical_plan().await.expect("a plan");
        assert!(plan.is::<DataSinkExec>(), "the plan does not write");
        let node = stranger(&cluster, Some(CLUSTER_TOKEN));
        let url: Url = format!("http://{}", cluster.worker_addresses()[0]).parse().expect("an address makes a URL");
        let mut headers = HeaderMap::new();
        headers.insert(TOKEN_HEADER, HeaderValue::from_static(CLUSTER_TOKEN));
        let mut worker = create_worker_client(BoxCloneSyncChannel::new(connect(url.to_string()).await));
        let task_key = TaskKey { query_id: uuid::Uuid::new_v4(), stage_id: 1, task_number: 0 };
        let request = SetPlanRequest {
            task_key,
            task_count: 1,
            plan: MaybeEncoded::Decoded(plan),
            work_unit_feed_declarations: vec![],
            target_worker_url: url,
            query_start_time_ns: 0,
        };
        let (context, metrics) = (node.task_ctx(), ExecutionPlanMetricsSet::new());
        let task = ExecuteTaskRequest { task_key, target_partition_start: 0, target_partition_end: 1, producer_head: ProducerHead::None };
        let written = async {
            let nothing_more = futures::stream::pending().boxed();
            let _told = worker.coordinator_channel(headers.clone(), request, nothing_more, metrics.clone(), &context).await?;
            let mut rows = 0;
            for stream in worker.execute_task(headers, task, metrics, &context).await? {
                rows += stream.try_collect::<Vec<_>>().await?.len();
            }
            Ok(rows)
        };
        assert_refused(written.await, &["refuses this plan: it writes"]);
        assert!(log_of_worker(scratch.path()).contains("it writes"), "the plan itself was not refused");
        assert!(!target.exists(), "{} was written", target.display());
    }
}

/// A pinned table's file is read for those in its region, whoever asks: a plan that no coordinator has checked gets no row of it, nor anything
/// made of its rows.
#[tokio::test]
async fn a_forged_plan_gets_no_row_of_a_pinned_table() {
    let (scratch, cluster) = worker();
    let folder = scratch.path().join("volume/people");
    std::fs::create_dir(&folder).expect("a folder can be made");
    write_parquet(&folder.join("part-1.parquet")).await.expect("a file can be written");
    let mut client = FlightSqlServiceClient::new(connect(cluster.url()).await);
    command(&mut client, "CREATE EXTERNAL TABLE people STORED AS PARQUET LOCATION 'node://*/data/people/' OPTIONS ('regions' 'local')")
        .await;
    let node = stranger(&cluster, Some(CLUSTER_TOKEN));
    let volume = LocalFileSystem::new_with_prefix(scratch.path().join("volume")).expect("the volume is there");
    let store: Url = "node://data".parse().expect("a URL");
    node.runtime_env().register_object_store(&store, Arc::new(volume));
    node.register_parquet("people", "node://data/people/", ParquetReadOptions::default()).await.expect("the stranger sees the file");
    let rows = "SELECT DISTINCT column1 FROM people";
    // Two doors are locked, and who asks goes away at the first: the plan's refusal is in the log of some try.
    let deadline = Instant::now() + READY;
    loop {
        assert_refused(run(&node, rows).await, &["pinned to local", NOBODYS_TASK]);
        if log_of_worker(scratch.path()).contains("pinned to local") {
            break;
        }
        assert!(Instant::now() < deadline, "the plan itself was not refused");
    }
    // An aggregate may leave; but errors on the way to it may not, and what no coordinator declared is read by nobody.
    assert_refused(run(&node, "SELECT column1, count(*) AS n FROM people GROUP BY column1").await, &["pinned to local", NOBODYS_TASK]);
    command(&mut client, "ALTER TABLE people SET (regions = '')").await;
    assert_refused(run(&node, rows).await, &[NOBODYS_TASK]);
}

/// What all processes of the cluster have logged.
fn log_of_worker(scratch: &Path) -> String {
    let logs = std::fs::read_dir(scratch.join("logs")).expect("there are logs");
    logs.flatten().filter_map(|log| std::fs::read_to_string(log.path()).ok()).collect()
}

async fn connect(url: String) -> Channel {
    let endpoint = Endpoint::from_shared(url.replace("grpc://", "http://")).expect("an address makes an endpoint");
    let deadline = Instant::now() + READY;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(Instant::now() < deadline, "the server does not answer: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a command; while the worker has not joined yet, again.
async fn command(client: &mut FlightSqlServiceClient<Channel>, sql: &str) {
    let deadline = Instant::now() + READY;
    loop {
        let error = match client.execute(sql.to_string(), None).await {
            Ok(info) => match client.do_get(info.endpoint[0].ticket.clone().expect("a ticket")).await {
                Ok(stream) => match stream.try_collect::<Vec<_>>().await {
                    Ok(_) => return,
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        assert!(Instant::now() < deadline, "{sql}: {error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn write_parquet(path: &Path) -> Result<()> {
    let context = SessionContext::new_with_state(SessionStateBuilder::new().with_default_features().build());
    let sql = format!("COPY (VALUES (1), (2), (3)) TO '{}' STORED AS PARQUET", path.display());
    context.sql(&sql).await?.collect().await?;
    assert!(path.is_file());
    Ok(())
}
