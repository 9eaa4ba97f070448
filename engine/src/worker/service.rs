//! The worker's gRPC service: the library's worker behind a token check, a hop to the CPU runtime, and a tick that drops dead tasks.
//!
//! Two runtimes: connections, keepalive and heartbeats live on the caller's (I/O) runtime; fragments run on a second one, so that a
//! fragment that saturates every core does not make the node look dead.

use super::files::FileService;
use super::load::{Load, TaskBody};
use super::time_zone::{self, TimeZone};
use super::{WorkerNode, plan_check, queries, task_request};
use crate::cluster_tls::identity::CheckedCalls;
use crate::cluster_tls::{Peer, incoming};
use crate::config::BowshotOptions;
use crate::control::gate::NodeGate;
use crate::control::{TOKEN_HEADER, secrets_equal};
use crate::cpu_runtime::CpuRuntime;
use crate::error::{Error, Result};
use crate::limits;
use crate::operators::function_memory::FunctionMemory;
use crate::operators::own_functions::register_own_functions;
use crate::operators::subquery_value::subquery_value;
use crate::port::calls::Gated;
use crate::port::flight::FlightPort;
use crate::port::panics;
use crate::residency::ledger::{Ledger, ReadingTask, TaskId, caller_region};
use crate::residency::{ERROR_REGIONS_HEADER, REGIONS_HEADER};
use datafusion::common::DataFusionError;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    DistributedExt, ExecuteTaskRequest, ProducerHead, TaskKey, Worker, WorkerPlanRewriteEvent, WorkerQueryContext,
};
use futures::FutureExt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use uuid::Uuid;

const TOKEN_WRONG: &str = "the cluster token is missing or wrong: only nodes of the cluster may send plans to a worker";

/// Serves fragments until `stopped` turns true.
pub async fn serve(node: Arc<WorkerNode>, listener: TcpListener, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let threads = if node.config.cpu_threads > 0 { node.config.cpu_threads } else { default_threads() };
    let cpu = CpuRuntime::new("bowshot-cpu", threads)?;
    let handle = cpu.handle();
    let worker = library_worker(node.clone())?;
    let tick = tokio::spawn({
        let worker = worker.clone();
        panics::again_after_panics("the end of dead tasks", move || drop_dead_tasks(worker.clone()))
    });
    let (load, ledger) = (node.load.clone(), node.ledger.clone());
    let layer = tower::layer::layer_fn(move |inner| HopService { inner, cpu: handle.clone(), load: load.clone(), ledger: ledger.clone() });
    let token: Arc<str> = node.config.cluster_token.as_str().into();
    let check_token = move |request: tonic::Request<()>| {
        let given = request.metadata().get(TOKEN_HEADER).map(|value| value.as_bytes()).unwrap_or_default();
        if secrets_equal(given, token.as_bytes()) { Ok(request) } else { Err(tonic::Status::unauthenticated(TOKEN_WRONG)) }
    };
    let refusal = Arc::new(|_: Option<&Peer>| tonic::Status::unauthenticated(TOKEN_WRONG));
    let gate = NodeGate::new(&node.config.cluster_token, limits::DATA_MESSAGE_BYTES_MAX, refusal);
    let files = FlightPort::server(Arc::new(FileService::new(node.clone())), limits::DATA_MESSAGE_BYTES_MAX);
    let files = tonic::service::interceptor::InterceptedService::new(files, check_token.clone());
    let service = tonic::service::interceptor::InterceptedService::new(worker.into_worker_server(), check_token);
    let result = Server::builder()
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .layer(tower::layer::layer_fn(move |inner| Gated::new(inner, gate.clone())))
        .layer(tower::layer::layer_fn(CheckedCalls::new))
        .layer(layer)
        .add_service(service)
        .add_service(files)
        .serve_with_incoming_shutdown(incoming(listener, node.channels.tls()), async move {
            // A closed channel means that the worker is ending too.
            let _ = stopped.wait_for(|stop| *stop).await;
        })
        .await;
    tick.abort();
    result.map_err(|error| Error::bug(format!("the worker's service ended: {error}")))
}

/// Threads for fragments: the machine's cores.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get())
}

/// The library's worker with our session: stores, channels, checks and rewrites.
fn library_worker(node: Arc<WorkerNode>) -> Result<Worker> {
    let runtime = node.runtime.clone();
    let version = format!("{} {}", node.config.node_id, env!("CARGO_PKG_VERSION"));
    let template = template(node.runtime.clone()).map_err(|error| Error::bug(format!("the worker's session cannot be built: {error}")))?;
    let worker = Worker::from_session_builder(move |context: WorkerQueryContext| {
        let session = session(&template, node.clone(), context);
        async move { session }
    });
    Ok(worker.with_runtime_env(runtime).with_max_message_size(limits::DATA_MESSAGE_BYTES_MAX / 2).with_version(version))
}

/// What is the same in every session: hundreds of functions, whose registration costs more than a clone of it.
pub fn template(runtime: Arc<RuntimeEnv>) -> Result<SessionState, DataFusionError> {
    let mut config = SessionConfig::new();
    config.options_mut().execution.time_zone = Some(time_zone::DEFAULT.into());
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().with_runtime_env(runtime).build();
    register_own_functions(&mut state)?;
    state.register_udaf(subquery_value())?;
    Ok(state)
}

fn session(template: &SessionState, node: Arc<WorkerNode>, mut context: WorkerQueryContext) -> Result<SessionState, DataFusionError> {
    let (channels, query) = (node.channels.clone(), queries::query_of(&context.headers));
    let headers = context.headers.clone();
    let reading = TaskId::of_headers(&headers).map(|task| Arc::new(ReadingTask { task, ledger: node.ledger.clone() }));
    let of_worker = node.clone();
    // The library has put the task's own things into the configuration; the rest of its builder is as in the template.
    let mut config = context
        .builder
        .config()
        .take()
        .unwrap_or_default()
        .with_distributed_option_extension_from_headers::<BowshotOptions>(&context.headers)?
        .with_distributed_option_extension_from_headers::<TimeZone>(&context.headers)?
        .with_distributed_channel_resolver(channels)
        .with_distributed_worker_plan_rewrite_handler(move |event: WorkerPlanRewriteEvent<'_>| plan_check::rewrite(&node, &headers, event));
    if let Some(reading) = reading {
        config = config.with_extension(reading);
    }
    let options = config.options().extensions.get::<BowshotOptions>().cloned().unwrap_or_default();
    if options.batch_rows > 0 {
        config = config.with_batch_size(options.batch_rows);
    }
    let mut state = match query {
        Some(query_id) => {
            let scope = of_worker.queries.scope(query_id, template, options.memory_limit_bytes);
            let state = scope.session(template);
            // The task keeps what it shares with the others of its query.
            config = scope.suited(config).with_extension(scope);
            state
        }
        None => template.clone(),
    };
    config.options_mut().extensions.insert(FunctionMemory::new(&state.runtime_env().memory_pool));
    let zone = config.options().extensions.get::<TimeZone>().cloned().unwrap_or_default();
    config.options_mut().execution.time_zone = Some(time_zone::DEFAULT.into());
    *state.config_mut() = config;
    time_zone::apply(&mut state, &zone)?;
    Ok(state)
}

/// The library drops the cached tasks of ended queries only when its cache is touched: without traffic, orphaned fragments would run on.
async fn drop_dead_tasks(worker: Worker) {
    let nobody = TaskKey { query_id: Uuid::nil(), stage_id: 0, task_number: 0 };
    loop {
        tokio::time::sleep(limits::TASK_CACHE_TICK).await;
        let touch =
            ExecuteTaskRequest { task_key: nobody, target_partition_start: 0, target_partition_end: 0, producer_head: ProducerHead::None };
        // Always times out: nobody sets this task's plan. The touch is the point.
        let _ = tokio::time::timeout(Duration::from_millis(1), worker.execute_task(touch)).await;
        // What the cache removed is dropped two epochs later, and an epoch ends only when somebody asks: until then the tables of ended
        // joins would count against their query, and against the node.
        for _ in 0..limits::TASK_CACHE_EPOCHS {
            crossbeam_epoch::pin().flush();
        }
    }
}

/// Runs calls that carry fragments on the CPU runtime, and lets only those read rows who may have them.
#[derive(Clone)]
struct HopService<S> {
    inner: S,
    cpu: tokio::runtime::Handle,
    load: Load,
    ledger: Arc<Ledger>,
}

type Request = http::Request<tonic::body::Body>;
type Response = http::Response<tonic::body::Body>;

impl<S> tower::Service<Request> for HopService<S>
where
    S: tower::Service<Request, Response = Response> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let path = request.uri().path();
        let reads = path.ends_with("/ExecuteTask");
        if !reads && !path.ends_with("/CoordinatorChannel") {
            let answer = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
            return Box::pin(
                answer.map(|result| result.unwrap_or_else(|panic| Ok(panics::status("a call of a node", &*panic).into_http()))),
            );
        }
        // What the handler spawns must land on the CPU runtime too.
        let _entered = self.cpu.enter();
        // The service that was asked whether it is ready is the one that is called.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let (load, ledger) = (self.load.clone(), self.ledger.clone());
        let running = self.cpu.spawn(async move {
            if reads { read_task(inner, ledger, request).await } else { run_task(inner, &load, ledger, request).await }
        });
        Box::pin(async move {
            match running.await {
                Ok(result) => result,
                Err(error) if error.is_panic() => Ok(panics::status("a task's call", &*error.into_panic()).into_http()),
                // The CPU runtime is shutting down: the connection goes with it.
                Err(_) => std::future::pending().await,
            }
        })
    }
}

/// Takes a task's plan. The coordinator's channel is open for as long as the task runs.
async fn run_task<S>(mut inner: S, load: &Load, ledger: Arc<Ledger>, request: Request) -> Result<Response, S::Error>
where
    S: tower::Service<Request, Response = Response>,
{
    let task = TaskId::of_headers(request.headers());
    let running = load.task(move || {
        if let Some(task) = task {
            ledger.forget(&task);
        }
    });
    Ok(inner.call(request).await?.map(|body| TaskBody::over(body, running)))
}

/// Gives away a task's rows.
async fn read_task<S>(mut inner: S, ledger: Arc<Ledger>, request: Request) -> Result<Response, S::Error>
where
    S: tower::Service<Request, Response = Response>,
{
    let caller = caller_region(request.headers(), request.extensions());
    let (head, body) = request.into_parts();
    let (task, body) = match task_request::read(body).await {
        Ok(read) => read,
        Err(status) => return Ok(status.into_http()),
    };
    let mut response = inner.call(http::Request::from_parts(head, body)).await?;
    // Only now the task's plan is certainly there; no row has been asked for yet.
    let (rows, errors) = match ledger.read(&task, caller.as_deref()) {
        Ok(reach) => reach,
        // The library's own error, of a plan that never came for instance, says more than that nobody declared it.
        Err(_) if response.headers().contains_key("grpc-status") => return Ok(response),
        Err(status) => return Ok(status.into_http()),
    };
    task_request::hide_error(response.headers_mut(), &task, caller.as_deref(), &errors, &ledger);
    let mut response = response.map(|body| task_request::GuardedBody::over(body, task, caller, errors.clone(), ledger));
    for (name, reach) in [(REGIONS_HEADER, rows), (ERROR_REGIONS_HEADER, errors)] {
        match reach.header() {
            Ok(Some(regions)) => drop(response.headers_mut().insert(name, regions)),
            Ok(None) => {}
            Err(error) => return Ok(tonic::Status::internal(error.message()).into_http()),
        }
    }
    Ok(response)
}
