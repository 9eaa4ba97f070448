//! Connections between nodes: one cached channel a node with timeouts and keepalive, the cluster token on every call, lost nodes named,
//! and every byte that arrives booked on the task that sent it.

use crate::cluster_tls::{self, ClusterTls, node_name};
use crate::control::TOKEN_HEADER;
use crate::coordinator::observer::QueryObserver;
use crate::error::{Error, ErrorClass, H2_TEXT, NODE_LOST_PREFIX, NodeLost, cause};
use crate::fragment::placement::Placement;
use crate::limits;
use crate::residency::ledger::{ReadingTask, TaskId};
use crate::residency::{CALLER_REGION_HEADER, ERROR_REGIONS_HEADER, REGIONS_HEADER, Reach, TASK_HEADER};
use arrow_flight::error::FlightError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::Metric;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, Label, MetricValue};
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    BytesCounterMetric, ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    SetPlanRequest, TaskKey, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tonic::transport::Channel;
use tower::ServiceExt;
use url::Url;

/// Metric of bytes that a task sent over the network, kept by the receiver: `FlightData` messages in encoded form.
pub const BYTES_MOVED_METRIC: &str = "bowshot_bytes_moved";
/// Label: fragment that sent the bytes.
pub const FROM_FRAGMENT_LABEL: &str = "from_fragment";
/// Label: task that sent the bytes.
pub const FROM_TASK_LABEL: &str = "from_task";
/// The library's own name for the same bytes, without the sender.
const LIBRARY_BYTES_METRIC: &str = "bytes_transferred";

/// Part of the library's text for a task that was asked for rows and got no plan within ten seconds.
const PLAN_MISSED_TEXT: &str = "timed-out while waiting for the plan to be set";

/// Node id in a worker's URL: `http://host:port/<node id>`. The path is never requested; it names the node in errors and records.
pub fn node_of(url: &Url) -> String {
    let id = url.path().trim_matches('/');
    if id.is_empty() { url.authority().to_string() } else { id.to_string() }
}

/// The channels of one process, one a node.
#[derive(Clone)]
pub struct ClusterChannels {
    token: HeaderValue,
    region: HeaderValue,
    /// Connections are driven by the I/O runtime: a CPU-bound fragment must not starve keepalive.
    io: tokio::runtime::Handle,
    /// By URL, node id included: a channel is trusted as one node only.
    open: Arc<Mutex<HashMap<Url, Channel>>>,
    tls: Option<Arc<ClusterTls>>,
}

impl ClusterChannels {
    /// Channels that carry `token`, driven by the runtime `io`, with `tls` to nodes that can prove their id.
    /// Calls say that they come from `region`.
    pub fn new(token: &str, region: &str, io: tokio::runtime::Handle, tls: Option<Arc<ClusterTls>>) -> crate::error::Result<Self> {
        let mut token = HeaderValue::from_str(token).map_err(|_| {
            crate::error::Error::user("cluster_token has characters that cannot travel in a header: use letters and digits")
        })?;
        token.set_sensitive(true);
        let region = HeaderValue::from_str(region).map_err(|_| {
            crate::error::Error::user(format!("region '{region}' cannot travel in a header: use letters, digits, '-' and '_'"))
        })?;
        Ok(Self { token, region, io, open: Arc::default(), tls })
    }

    /// What this node shows to others and accepts from them; nothing where the cluster does without TLS.
    pub fn tls(&self) -> Option<Arc<ClusterTls>> {
        self.tls.clone()
    }

    /// Scheme of addresses of this cluster.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// A connection to the worker of this address, made or kept, that carries the token.
    pub(crate) async fn channel(&self, url: &Url) -> Result<BoxCloneSyncChannel, NodeLost> {
        let origin = url.origin().ascii_serialization();
        let known = self.open.lock().get(url).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let lost = |reason: String| NodeLost { node: node_of(url), fragment: None, reason };
                if self.tls.is_none() && url.scheme() == "https" {
                    return Err(lost(format!("its address is {origin}, but this node has no cluster_tls: set it here too")));
                }
                let endpoint = cluster_tls::connect::endpoint(&origin)
                    .map_err(|error| lost(format!("its address {origin} is invalid: {error}")))?
                    .connect_timeout(limits::CONNECT_TIMEOUT)
                    .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
                    .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
                    .keep_alive_while_idle(true)
                    .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
                    .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
                    .tcp_nodelay(true);
                let (tls, name) = (self.tls.clone(), node_name(&node_of(url)));
                let connecting = self.io.spawn(async move { cluster_tls::connect(endpoint, tls, &name).await });
                let channel = match connecting.await {
                    Ok(Ok(channel)) => channel,
                    Ok(Err(error)) => return Err(lost(format!("{origin} cannot be reached: {}", innermost(&error)))),
                    Err(error) => return Err(lost(format!("connecting to {origin} was given up: {error}"))),
                };
                self.open.lock().insert(url.clone(), channel.clone());
                channel
            }
        };
        let (token, region) = (self.token.clone(), self.region.clone());
        let with_token = channel.map_request(move |mut request: http::Request<tonic::body::Body>| {
            request.headers_mut().insert(TOKEN_HEADER, token.clone());
            request.headers_mut().insert(CALLER_REGION_HEADER, region.clone());
            request
        });
        Ok(BoxCloneSyncChannel::new(with_token))
    }

    /// Forgets the channel of a node that failed: the next call connects anew.
    fn forget(&self, url: &Url) {
        self.open.lock().remove(url);
    }
}

impl ClusterChannels {
    fn node_channel(self, url: Url) -> BoxFuture<'static, Result<Box<dyn WorkerChannel>>> {
        Box::pin(async move {
            let channel = self.channel(&url).await.map_err(|lost| DataFusionError::External(Box::new(lost)))?;
            // Where a task's rows may go stands in the head of the answer, which the library's client does not show.
            let answered: Arc<Mutex<Answered>> = Arc::default();
            let seen = answered.clone();
            let channel = channel.map_response(move |response: http::Response<tonic::body::Body>| {
                let said = |name| Reach::of_header(response.headers().get(name));
                *seen.lock() = Answered { rows: said(REGIONS_HEADER), errors: said(ERROR_REGIONS_HEADER) };
                response
            });
            let node = NodeChannel { channel: BoxCloneSyncChannel::new(channel), url, channels: self, answered };
            Ok(Box::new(node) as Box<dyn WorkerChannel>)
        })
    }
}

// The library's traits are of `#[async_trait]`. Without that attribute here, and over what the futures own, rustc proves once instead of for each
// method that they may change threads: see `port::flight`.
impl ChannelResolver for ClusterChannels {
    fn get_worker_client_for_url<'a, 'b, 'future>(&'a self, url: &'b Url) -> BoxFuture<'future, Result<Box<dyn WorkerChannel>>>
    where
        'a: 'future,
        'b: 'future,
        Self: 'future,
    {
        self.clone().node_channel(url.clone())
    }
}

/// A connection to one node that names it in errors and books its bytes.
#[derive(Clone)]
struct NodeChannel {
    channel: BoxCloneSyncChannel,
    url: Url,
    channels: ClusterChannels,
    answered: Arc<Mutex<Answered>>,
}

/// What stands in the head of the last answer.
#[derive(Default)]
struct Answered {
    rows: Reach,
    errors: Reach,
}

fn header(text: String) -> Result<HeaderValue> {
    HeaderValue::try_from(text).map_err(|error| DataFusionError::Internal(error.to_string()))
}

/// Turns transport failures into [`NodeLost`]; errors that the worker itself reported pass unchanged.
fn name_loss(error: DataFusionError, url: &Url, fragment: usize, channels: &ClusterChannels) -> DataFusionError {
    let reason = match transport_failure(&error) {
        Some(reason) => reason,
        None if plan_missed(&error) => "it did not get its part of the plan".to_string(),
        None => return refusal(error),
    };
    channels.forget(url);
    DataFusionError::External(Box::new(NodeLost { node: node_of(url), fragment: Some(fragment), reason }))
}

/// A status that the worker itself chose, as an error of ours: its text is for people as it is.
fn refusal(error: DataFusionError) -> DataFusionError {
    let DataFusionError::External(source) = &error else { return error };
    let Some(status) = source.downcast_ref::<tonic::Status>() else { return error };
    let class = match status.code() {
        tonic::Code::InvalidArgument => ErrorClass::User,
        tonic::Code::PermissionDenied => ErrorClass::Denied,
        tonic::Code::Unauthenticated => ErrorClass::Unauthenticated,
        tonic::Code::ResourceExhausted => ErrorClass::Resource,
        tonic::Code::FailedPrecondition => ErrorClass::Storage,
        _ => ErrorClass::Bug,
    };
    Error::new(class, status.message()).into()
}

/// Whether an error is the loss of a node.
fn is_loss(error: &DataFusionError) -> bool {
    matches!(error, DataFusionError::External(source) if source.is::<NodeLost>())
}

/// Tells the query at once. The library would at its end, until which others may wait for a task that is not there any more.
fn note_loss(observer: &Option<Arc<QueryObserver>>, error: &DataFusionError) {
    if let (Some(observer), DataFusionError::External(source)) = (observer, error)
        && let Some(lost) = source.downcast_ref::<NodeLost>()
    {
        observer.task_lost(lost.clone());
    }
}

/// Whether the node waited in vain for the coordinator's plan; as text, because it crosses the wire as such.
fn plan_missed(error: &DataFusionError) -> bool {
    let text = error.to_string();
    text.contains(PLAN_MISSED_TEXT) && !text.contains(NODE_LOST_PREFIX)
}

/// What the transport said, when the error is the transport's: by its type, or by its first words where the type was lost on the way.
fn transport_failure(error: &DataFusionError) -> Option<String> {
    transport_status(error).or_else(|| Some(cause(error)).filter(|text| text.starts_with(H2_TEXT)))
}

fn transport_status(error: &DataFusionError) -> Option<String> {
    match error {
        DataFusionError::External(source) => {
            let status = source.downcast_ref::<tonic::Status>().or_else(|| match source.downcast_ref::<FlightError>() {
                Some(FlightError::Tonic(status)) => Some(status.as_ref()),
                _ => None,
            });
            if let Some(status) = status {
                return match status.code() {
                    // What the protocol itself says of a connection comes with many codes; a worker's own words never begin like this.
                    _ if status.message().starts_with(H2_TEXT) => Some(innermost(status)),
                    tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled | tonic::Code::DataLoss => {
                        Some(innermost(status))
                    }
                    // h2 reports a connection that ended under a stream as an internal error without our marker in it.
                    tonic::Code::Internal if status.message() != "DataFusionError" && status.details().is_empty() => {
                        Some(status.message().to_string())
                    }
                    _ => None,
                };
            }
            source.downcast_ref::<DataFusionError>().and_then(transport_status)
        }
        DataFusionError::Shared(inner) => transport_status(inner),
        DataFusionError::Context(_, inner) => transport_status(inner),
        _ => None,
    }
}

/// What the transport said, where a status is its own and not a worker's word for a client: those have no cause.
pub(crate) fn lost(status: &tonic::Status) -> Option<String> {
    let of_transport = status.message().starts_with(H2_TEXT) || std::error::Error::source(status).is_some();
    of_transport.then(|| innermost(status))
}

/// The last cause of an error: what the operating system or the protocol said.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = last.source() {
        last = source;
    }
    match last.downcast_ref::<tonic::Status>() {
        Some(status) => status.message().to_string(),
        None => last.to_string(),
    }
}

impl NodeChannel {
    /// The rows and errors of a task, once it is clear that the one who reads them declared to keep them where they must stay. That stands in the
    /// head of the answer, which is there before the first of them.
    fn within_borders(
        &self,
        rows: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
        from: TaskKey,
        reader: Arc<ReadingTask>,
    ) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
        let answered = self.answered.clone();
        let mut checked = false;
        rows.map(move |item| {
            if !checked {
                let said = answered.lock();
                reader.ledger.takes_in(&reader.task, (from.query_id, from.stage_id as u64), &said.rows, &said.errors)?;
                checked = true;
            }
            item
        })
    }
}

/// Registers what is measured of one stream, and books its bytes on the task that sends them.
fn book_bytes(own: &ExecutionPlanMetricsSet, metrics: &ExecutionPlanMetricsSet, key: &TaskKey, context: &TaskContext) {
    let observer = context.session_config().get_extension::<QueryObserver>();
    for metric in own.clone_inner().iter() {
        metrics.register(metric.clone());
        if metric.value().name() != LIBRARY_BYTES_METRIC {
            continue;
        }
        if let MetricValue::Custom { value, .. } = metric.value()
            && let Some(bytes) = value.as_any().downcast_ref::<BytesCounterMetric>()
        {
            let labels =
                vec![Label::new(FROM_FRAGMENT_LABEL, key.stage_id.to_string()), Label::new(FROM_TASK_LABEL, key.task_number.to_string())];
            let value = MetricValue::Custom { name: BYTES_MOVED_METRIC.into(), value: Arc::new(bytes.clone()) };
            metrics.register(Arc::new(Metric::new_with_labels(value, metric.partition(), labels)));
            if let Some(observer) = &observer {
                observer.receives(key, bytes.clone());
            }
        }
    }
}

/// What a task says of itself.
type Reports = BoxStream<'static, Result<WorkerToCoordinatorMsg>>;
/// One partition of its rows.
type Rows = BoxStream<'static, Result<RecordBatch>>;

impl NodeChannel {
    fn send_plan(
        self,
        mut headers: HeaderMap,
        request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: Arc<TaskContext>,
    ) -> BoxFuture<'static, Result<Reports>> {
        Box::pin(async move {
            let observer = context.session_config().get_extension::<QueryObserver>();
            let key = request.task_key;
            if let Some(observer) = &observer {
                observer.task_sent(&key, node_of(&self.url));
            }
            headers.insert(TASK_HEADER, header(TaskId::from(&key).header())?);
            let placement = context.session_config().get_extension::<Placement>();
            if let Some(borders) = placement.as_ref().and_then(|placement| placement.borders.get()) {
                for (name, reach) in [(REGIONS_HEADER, borders.reach(key.stage_id)), (ERROR_REGIONS_HEADER, borders.errors(key.stage_id))] {
                    if let Some(regions) = reach.header()? {
                        headers.insert(name, regions);
                    }
                }
            }
            let (url, channels) = (self.url.clone(), self.channels.clone());
            let failed = move |error| name_loss(error, &url, key.stage_id, &channels);
            let answers = match create_worker_client(self.channel)
                .coordinator_channel(headers, request, messages, metrics, &context)
                .await
                .map_err(&failed)
            {
                Ok(answers) => answers,
                Err(error) => {
                    note_loss(&observer, &error);
                    return Err(error);
                }
            };
            if let Some(observer) = &observer {
                observer.task_begun();
            }
            // From here on only reports come this way. Who reads the task's rows sees its end; a loss that is seen here alone took no row along,
            // and must not fail a query whose rows are all there.
            let reports_of = observer.clone();
            Ok(answers
                .map_err(failed)
                .inspect_ok(move |message| {
                    if let (Some(observer), WorkerToCoordinatorMsg::TaskMetrics(metrics)) = (&observer, message) {
                        observer.task_ended(&key, metrics);
                    }
                })
                .inspect_err(move |error| note_loss(&reports_of, error))
                .filter(|answer| std::future::ready(!answer.as_ref().is_err_and(is_loss)))
                .boxed())
        })
    }

    fn fetch_rows(
        self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: Arc<TaskContext>,
    ) -> BoxFuture<'static, Result<Vec<Rows>>> {
        Box::pin(async move {
            let key = request.task_key;
            let (url, channels) = (self.url.clone(), self.channels.clone());
            let failed = move |error| name_loss(error, &url, key.stage_id, &channels);
            let reader = context.session_config().get_extension::<ReadingTask>();
            let mut client = create_worker_client(self.channel.clone());
            let mut streams = Vec::with_capacity(request.target_partition_end - request.target_partition_start);
            // Each partition comes over a stream of its own. The library would send them over one, where the rows of a partition that nobody takes
            // yet hold up those behind them: a merge of sorted partitions would wait for ever for the one that comes later.
            for partition in request.target_partition_start..request.target_partition_end {
                let one = ExecuteTaskRequest {
                    task_key: key,
                    target_partition_start: partition,
                    target_partition_end: partition + 1,
                    producer_head: request.producer_head.clone(),
                };
                // The boundary's metrics are shared by all its senders: read this sender's from a set of its own, then register them there.
                let own = ExecutionPlanMetricsSet::new();
                let read = client.execute_task(headers.clone(), one, own.clone(), &context).await.map_err(&failed)?;
                book_bytes(&own, &metrics, &key, &context);
                for stream in read {
                    let stream = stream.map_err(failed.clone());
                    streams.push(match &reader {
                        Some(reader) => self.within_borders(stream, key, reader.clone()).boxed(),
                        None => stream.boxed(),
                    });
                }
            }
            Ok(streams)
        })
    }

    fn info(self, request: GetWorkerInfoRequest) -> BoxFuture<'static, Result<GetWorkerInfoResponse>> {
        Box::pin(async move { create_worker_client(self.channel).get_worker_info(request).await })
    }
}

impl WorkerChannel for NodeChannel {
    fn coordinator_channel<'a, 'b, 'future>(
        &'a mut self,
        headers: HeaderMap,
        request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: &'b Arc<TaskContext>,
    ) -> BoxFuture<'future, Result<Reports>>
    where
        'a: 'future,
        'b: 'future,
        Self: 'future,
    {
        self.clone().send_plan(headers, request, messages, metrics, context.clone())
    }

    fn execute_task<'a, 'b, 'future>(
        &'a mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: &'b Arc<TaskContext>,
    ) -> BoxFuture<'future, Result<Vec<Rows>>>
    where
        'a: 'future,
        'b: 'future,
        Self: 'future,
    {
        self.clone().fetch_rows(headers, request, metrics, context.clone())
    }

    fn get_worker_info<'a, 'future>(&'a mut self, request: GetWorkerInfoRequest) -> BoxFuture<'future, Result<GetWorkerInfoResponse>>
    where
        'a: 'future,
        Self: 'future,
    {
        self.clone().info(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_protocol_says_is_a_loss_with_any_code_and_as_text() {
        let broken = || tonic::Status::resource_exhausted("h2 protocol error: http2 error");
        let text = DataFusionError::Execution("h2 protocol error: http2 error".into());
        let flight = DataFusionError::External(Box::new(FlightError::Tonic(Box::new(broken()))));
        for error in [DataFusionError::External(Box::new(broken())), flight, text] {
            assert!(transport_failure(&error).is_some(), "{error}");
        }
        let full = DataFusionError::External(Box::new(tonic::Status::resource_exhausted("more memory than it may hold")));
        assert_eq!(transport_failure(&full), None);
    }
}
