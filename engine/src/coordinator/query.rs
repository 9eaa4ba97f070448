//! One query from plan to last batch: admission, placement, tries, deadline, cancel.
//!
//! ```text
//!   queued ──admit──► place + plan + run ──first batch──► release ──► end
//!                         ▲        │ node lost, nothing released yet
//!                         └────────┘ at most three tries, never on the node that was lost
//! ```
//!
//! A query that runs out of memory while it holds a side of a join on every node is tried once more with both sides dealt by key.

use super::CoordinatorInner;
use super::admission::Lane;
use super::membership::NodeState;
use super::observer::{QueryObserver, QuerySummary};
use super::outlet::{HeldRows, Outlet, Sender, client_gone};
use super::parts::{self, Delivery, PartsOfPlan, ResultPart};
use super::planner::{self, Joins, Shape};
use super::registry::{QueryHandle, QueryState};
use super::task_places::Need;
use crate::catalog::provider::StoredTable;
use crate::catalog::{Snapshot, Table};
use crate::config::{BowshotOptions, ResultEndpoints};
use crate::error::{Error, ErrorClass, Result, from_datafusion, lost_at_work, lost_node, stale_copy};
use crate::files::by_name::stored_scan;
use crate::fragment::journey;
use crate::fragment::placement::Placement;
use crate::limits;
use crate::operators::conditions_in_order::in_order;
use crate::operators::{join_sides, replay, stand_ins};
use crate::planning_scope::{self, planning};
use crate::port::panics::caught;
use crate::residency;
use crate::result_types::{plain_batch, plain_schema};
use crate::statement::repeated_names::Meant;
use crate::worker::queries::query_header;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, Partitioning, execute_stream};
use datafusion_distributed::{BroadcastExec, DistributedExec, NetworkBoundaryExt};
use futures::{Stream, StreamExt};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use uuid::Uuid;

/// A running query's rows. Dropping it ends the query.
pub struct QueryStream {
    handle: Option<QueryHandle>,
    query_id: Uuid,
    schema: SchemaRef,
    affected_rows: Option<i64>,
    parts: Option<oneshot::Receiver<Vec<ResultPart>>>,
    batches: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
}

impl QueryStream {
    /// The result of a command: no rows.
    pub fn done(affected_rows: Option<i64>) -> Self {
        Self::done_by(Uuid::now_v7(), affected_rows)
    }

    /// The result of a command that ran this query.
    pub fn done_by(query_id: Uuid, affected_rows: Option<i64>) -> Self {
        let schema = Arc::new(arrow::datatypes::Schema::empty());
        Self { handle: None, query_id, schema, affected_rows, parts: None, batches: futures::stream::empty().boxed() }
    }

    /// Rows that are there already.
    pub fn ready(query_id: Uuid, batch: RecordBatch) -> Self {
        let schema = batch.schema();
        let batches = futures::stream::once(async move { Ok(batch) }).boxed();
        Self { handle: None, query_id, schema, affected_rows: None, parts: None, batches }
    }

    /// Query id.
    pub fn query_id(&self) -> Uuid {
        self.query_id
    }
    /// Exactly the schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    /// Rows that a command changed.
    pub fn affected_rows(&self) -> Option<i64> {
        self.affected_rows
    }
    /// The parts that the rows wait in on the workers; none if they come in this stream. It has their end then, or what ended them, and must be
    /// polled for it. Waits until it is certain, where it is not at once.
    pub async fn parts(&mut self) -> Vec<ResultPart> {
        match self.parts.take() {
            // A query that failed before says so in its stream.
            Some(parts) => parts.await.unwrap_or_default(),
            None => vec![],
        }
    }
    /// The same result with the rows that earlier runs of its command changed.
    pub fn with_more_affected(mut self, rows: i64) -> Self {
        self.affected_rows = self.affected_rows.map(|affected| affected + rows);
        self
    }
    /// The figures so far.
    pub fn summary(&self) -> QuerySummary {
        self.handle.as_ref().map_or(QuerySummary { query_id: self.query_id, ..Default::default() }, |handle| handle.summary())
    }
}

impl Stream for QueryStream {
    type Item = Result<RecordBatch>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(context)
    }
}

/// A planned query, ready for any number of runs.
#[derive(Clone)]
pub struct PlannedQuery {
    /// Logical plan, parameters bound.
    pub plan: LogicalPlan,
    /// State the plan was made with.
    pub state: SessionState,
    /// Catalog the plan reads.
    pub snapshot: Arc<Snapshot>,
    /// Statement text, for the record.
    pub sql: String,
    /// Who runs it.
    pub user: String,
}

impl PlannedQuery {
    fn options(&self) -> BowshotOptions {
        self.state.config().options().extensions.get::<BowshotOptions>().cloned().unwrap_or_default()
    }
}

/// A finished run, for EXPLAIN ANALYZE.
pub struct FinishedRun {
    /// The plan that ran, with its metrics.
    pub plan: Arc<dyn ExecutionPlan>,
    /// What its tasks did.
    pub observer: Arc<QueryObserver>,
}

/// Starts the query and returns its rows as they come, or where the client gets them.
pub(crate) fn start(inner: Arc<CoordinatorInner>, query: PlannedQuery, names: &Meant, delivery: Delivery) -> QueryStream {
    let query_id = Uuid::now_v7();
    let handle = inner.queries.add(query_id, &query.user, &query.sql, query.options().priority);
    let schema = names.of(plain_schema(query.plan.schema().as_arrow()));
    // Workers know the names of the plan alone.
    let delivery = if names.differs() { Delivery::Whole } else { delivery };
    let (sender, receiver) = mpsc::channel(limits::RESULT_QUEUE_BATCHES);
    let (announce, parts) = parts::may_come_of(&query.plan, &query.options(), delivery).then(oneshot::channel).unzip();
    let cpu = inner.cpu.handle();
    let (driver_handle, driver_schema) = (handle.clone(), schema.clone());
    cpu.spawn(async move {
        let client = Some(Client { sender: &sender, announce });
        let outcome = tokio::select! {
            outcome = caught(A_QUERY, query_id, drive(&inner, &query, &driver_handle, driver_schema, client)) => outcome.map(|_| ()),
            () = sender.closed() => Err(Error::new(ErrorClass::Cancelled, "the client went away")),
            () = driver_handle.cancelled() => Err(cancelled()),
        };
        match outcome {
            Ok(()) => driver_handle.end(QueryState::Finished),
            Err(error) => {
                let error = error.with_query(query_id);
                driver_handle.fail(&error);
                // A client that went away needs no error.
                let _ = sender.send(Err(error)).await;
            }
        }
    });
    let batches = tokio_stream::wrappers::ReceiverStream::new(receiver).boxed();
    QueryStream { handle: Some(handle), query_id, schema, affected_rows: None, parts, batches }
}

/// Runs the query to its end without releasing a row.
pub(crate) async fn run_to_end(inner: Arc<CoordinatorInner>, query: PlannedQuery) -> Result<FinishedRun> {
    let handle = inner.queries.add(Uuid::now_v7(), &query.user, &query.sql, query.options().priority);
    let schema = plain_schema(query.plan.schema().as_arrow());
    let on_drop = EndOnDrop(handle.clone());
    let result = tokio::select! {
        result = caught(A_QUERY, handle.query_id(), drive(&inner, &query, &handle, schema, None)) => result,
        () = handle.cancelled() => Err(cancelled()),
    };
    match &result {
        Ok(_) => handle.end(QueryState::Finished),
        Err(error) => handle.fail(error),
    }
    drop(on_drop);
    result.map_err(|error| error.with_query(handle.query_id()))
}

/// What meets a defect, in its error.
const A_QUERY: &str = "a query";

fn cancelled() -> Error {
    Error::new(ErrorClass::Cancelled, "the query was cancelled")
}

/// Marks a query cancelled whose future was dropped.
struct EndOnDrop(QueryHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end(QueryState::Cancelled);
    }
}

/// Who waits for a query.
struct Client<'a> {
    /// For rows.
    sender: &'a Sender,
    /// For the parts that they are in instead, once.
    announce: Option<Announce>,
}

/// Tells who waits for a query of its parts.
type Announce = oneshot::Sender<Vec<ResultPart>>;

async fn drive(
    inner: &Arc<CoordinatorInner>,
    query: &PlannedQuery,
    handle: &QueryHandle,
    schema: SchemaRef,
    mut client: Option<Client<'_>>,
) -> Result<FinishedRun> {
    let options = query.options();
    let timeout_ms = inner.timeout_ms(options.query_timeout_ms);
    let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms);
    let work = async {
        let mut tables = BTreeMap::new();
        stored_tables(&query.plan, &mut tables).map_err(|error| from_datafusion(&error))?;
        let lane = if tables.is_empty() { Lane::Small } else { Lane::Stored };
        if !options.ignore_quarantine {
            inner.quarantine.check(&query.sql, || inner.membership.nodes())?;
        }
        let _place = inner.admission.admit(lane, &query.user, options.priority, deadline).await?;
        handle.waits(false);
        let mut attempt = Attempt::first();
        let mut wait = limits::QUERY_RETRY_WAIT;
        // The faults of the copies that were tried say more than that there is no other.
        let (mut lost, mut stale) = (None, None);
        loop {
            let failed = match run_once(inner, query, handle, lane, &schema, client.as_mut(), &mut attempt).await {
                Ok(run) => {
                    inner.quarantine.ended_well(&query.sql);
                    return Ok(run);
                }
                Err(error) => error,
            };
            let error = from_datafusion(&failed);
            let node = match (lost_node(&failed), stale_copy(&failed)) {
                (Some(node), _) => {
                    inner.membership.trip(&node);
                    if lost_at_work(&failed)
                        && let Some(quarantined) = inner.quarantine.lost(&query.sql, &node, &inner.membership.nodes())
                    {
                        return Err(Error::new(quarantined.class(), format!("{error}; {quarantined}")));
                    }
                    lost = Some(error.clone());
                    node
                }
                // The node is well, but what it said of its files a moment ago is no longer so: another copy may do.
                (None, Some(node)) => {
                    stale.get_or_insert_with(|| error.clone());
                    node
                }
                (None, None) if error.class() == ErrorClass::Resource && attempt.may_deal_sides() => {
                    tracing::warn!(query = %handle.query_id(), %error, "replanning with both sides of joins dealt by key");
                    attempt.deal_sides(error);
                    tokio::time::sleep(limits::MEMORY_RETRY_WAIT).await;
                    continue;
                }
                (None, None) if error.class() == ErrorClass::Retry => {
                    let alone = |lost| Error::retry(format!("{lost}; no other node can take over: {error}"));
                    return Err(stale.or_else(|| lost.map(alone)).unwrap_or(error));
                }
                (None, None) => return Err(error),
            };
            if attempt.released {
                return Err(Error::retry(format!(
                    "{error}; rows had already been released, so the query cannot be repeated unseen: run it again, or hold more of its result back with SET bowshot.result_buffer"
                )));
            }
            if attempt.is_last() || attempt.avoid.contains(&node) {
                return Err(error);
            }
            tracing::warn!(query = %handle.query_id(), node, %error, "replanning without the lost node");
            attempt.leave_out(node, &error);
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    };
    tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(too_late(timeout_ms, handle.waited())))
}

/// A query that did not end in its time, which it spent in part with waiting.
pub(crate) fn too_late(timeout_ms: u64, waited: Duration) -> Error {
    let waited_ms = waited.as_millis();
    let text = if waited_ms > u128::from(timeout_ms / 2) {
        format!(
            "the query did not end within {timeout_ms} ms, of which it waited {waited_ms} for places that other queries hold: system.queries shows them, end some, or raise the time with SET bowshot.query_timeout_ms"
        )
    } else {
        format!("the query did not end within {timeout_ms} ms: raise it with SET bowshot.query_timeout_ms, or ask for less")
    };
    Error::new(ErrorClass::Deadline, text)
}

/// One try of a query.
struct Attempt {
    /// When the first one began.
    started: Instant,
    /// Tries before this one.
    retry: u32,
    /// Nodes that were lost in them.
    avoid: HashSet<String>,
    /// Why both sides of joins are dealt by key, if they have to be.
    dealt_because: Option<Error>,
    /// Whether the plan sends a side of a join to all nodes.
    sends_a_side: bool,
    /// Whether a row was given away.
    released: bool,
    /// Why the tries before this one were given up, without what [`Self::dealt_because`] says.
    given_up: Vec<String>,
}

impl Attempt {
    fn first() -> Self {
        Self {
            started: Instant::now(),
            retry: 0,
            avoid: HashSet::new(),
            dealt_because: None,
            sends_a_side: false,
            released: false,
            given_up: vec![],
        }
    }

    fn is_last(&self) -> bool {
        self.retry + 1 >= limits::QUERY_TRIES_MAX
    }

    /// Whether another try could do with less memory on each node.
    fn may_deal_sides(&self) -> bool {
        self.sends_a_side && !self.released && self.dealt_because.is_none() && !self.is_last()
    }

    fn deal_sides(&mut self, because: Error) {
        self.dealt_because = Some(because);
        self.retry += 1;
    }

    fn leave_out(&mut self, node: String, because: &Error) {
        self.given_up.push(format!("planned again without {node}: {because}"));
        self.avoid.insert(node);
        self.retry += 1;
    }
}

async fn run_once(
    inner: &Arc<CoordinatorInner>,
    query: &PlannedQuery,
    handle: &QueryHandle,
    lane: Lane,
    schema: &SchemaRef,
    mut client: Option<&mut Client<'_>>,
    attempt: &mut Attempt,
) -> Result<FinishedRun, DataFusionError> {
    let placement = Arc::new(place_patiently(inner, query, attempt).await?);
    let regions: HashMap<String, String> = placement.nodes.iter().map(|node| (node.node_id.clone(), node.region.clone())).collect();
    let (region, started) = (inner.config.region.clone(), attempt.started);
    let observer = Arc::new(QueryObserver::new(handle.query_id(), regions, region, started, attempt.retry));
    attempt.given_up.iter().for_each(|why| observer.decided(why.clone()));
    handle.observe(observer.clone());
    let (plan, mut state) = plan_aside(inner, query, placement.clone(), observer.clone(), attempt.dealt_because.clone()).await?;
    attempt.sends_a_side = join_sides::sends_a_side(&plan);
    let adapts = planner::adapts(&query.options(), &placement);
    if query.options().adaptive_tasks && !adapts {
        observer.decided("adaptive_tasks does not apply: a table of the query is pinned to regions".into());
    }
    // Small statements do not wait for what runs: their few tasks are over soon.
    let _tasks = match lane {
        Lane::Small => None,
        Lane::Stored => {
            handle.waits(true);
            let taken = inner.task_places.take(&query.user, task_needs(&plan, &placement, adapts)?).await;
            handle.waits(false);
            Some(taken)
        }
    };
    let mut kept = keep_on_workers(&plan, &mut state, &placement, schema, client.as_deref_mut(), &observer)?;
    let in_parts = kept.as_ref().map_or(0, |kept| kept.parts.len());
    observer.keeps_rows_of(kept.as_ref().map(|kept| kept.fragment));
    // A plan that is cut while it runs goes to the workers with all that is in it, and what stands in for a node does not travel.
    let plan = if adapts { plan } else { stand_ins::in_head(plan)? };
    let mut held = HeldRows::new(query.options().result_buffer, &state);
    let mut outlet = client.as_ref().map(|client| Outlet { inner, sender: client.sender, places: None });
    let mut batches = execute_stream(plan.clone(), state.task_ctx())?;
    loop {
        let next = tokio::select! {
            biased;
            next = batches.next() => next,
            lost = observer.lost_task(), if !attempt.released => return Err(DataFusionError::External(Box::new(lost))),
            // From here on the client may have rows.
            () = observer.tasks_begun(in_parts), if kept.is_some() => {
                attempt.released = true;
                let announce = client.as_mut().and_then(|client| client.announce.take());
                if let (Some(kept), Some(announce)) = (kept.take(), announce) && announce.send(kept.parts).is_err() {
                    return Err(client_gone());
                }
                continue;
            }
        };
        let Some(batch) = next else { break };
        let batch = plain_batch(&batch?, schema)?;
        if in_parts > 0 && batch.num_rows() > 0 {
            return Err(Error::bug("a worker sent rows that it was asked to keep").into());
        }
        observer.released(batch.num_rows());
        let Some(outlet) = &mut outlet else { continue };
        if batch.num_rows() == 0 {
            continue;
        }
        let Some(first) = held.hold(batch) else { continue };
        attempt.released = true;
        outlet.release(first).await?;
    }
    if let Some(outlet) = &mut outlet {
        let rest = held.rest();
        attempt.released |= !rest.is_empty();
        outlet.release(rest).await?;
    }
    observer.finish();
    Ok(FinishedRun { plan, observer })
}

/// Asks the workers to keep the rows if the plan allows it. Who waits for the result hears at once if not, and of the parts when their tasks have
/// begun: until then a lost worker costs a repetition and not the query.
fn keep_on_workers(
    plan: &Arc<dyn ExecutionPlan>,
    state: &mut SessionState,
    placement: &Placement,
    schema: &SchemaRef,
    client: Option<&mut Client<'_>>,
    observer: &QueryObserver,
) -> Result<Option<PartsOfPlan>, DataFusionError> {
    // Still there, if another try was to offer parts and was given up before it did.
    let waiting = client.filter(|client| client.announce.is_some());
    let options = state.config().options().extensions.get::<BowshotOptions>().cloned().unwrap_or_default();
    // Who asked for it hears why not, in EXPLAIN ANALYZE too, where nobody waits for rows.
    if waiting.is_none() && options.result_endpoints != ResultEndpoints::Workers {
        return Ok(None);
    }
    match (parts::of_plan(plan, placement, &options, schema), waiting) {
        (Ok(kept), Some(_)) => {
            parts::ask_to_keep(state, query_header(observer.query_id)?, kept.fragment)?;
            Ok(Some(kept))
        }
        (Ok(_), None) => Ok(None),
        (Err(reason), waiting) => {
            if let Some(reason) = reason {
                observer.decided(format!("result_endpoints = workers does not apply: {reason}"));
            }
            // Nobody minds if the client is gone: its stream says so.
            let _ = waiting.and_then(|client| client.announce.take()).map(|announce| announce.send(vec![]));
            Ok(None)
        }
    }
}

/// How many tasks of a plan go to each node: task i of every fragment to node i, as [routed](crate::fragment::route). Of a plan whose fragments
/// are cut while it runs, as many as there may be.
fn task_needs(plan: &Arc<dyn ExecutionPlan>, placement: &Placement, adapts: bool) -> Result<BTreeMap<String, Need>, DataFusionError> {
    let mut needs: BTreeMap<String, Need> = BTreeMap::new();
    plan.apply(|part| {
        let tasks = match part.as_network_boundary() {
            Some(boundary) => boundary.input_stage().task_count(),
            None if adapts && may_be_cut_below(part) => placement.nodes.len(),
            None => 0,
        };
        for node in placement.nodes.iter().cycle().take(tasks) {
            needs.entry(node.node_id.clone()).or_insert(Need { tasks: 0, max: node.max_tasks }).tasks += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(needs)
}

/// Whether the library may end a fragment at this node.
fn may_be_cut_below(part: &Arc<dyn ExecutionPlan>) -> bool {
    let dealt = part.downcast_ref::<RepartitionExec>().is_some_and(|dealt| matches!(dealt.partitioning(), Partitioning::Hash(..)));
    dealt || part.is::<BroadcastExec>() || part.is::<CoalescePartitionsExec>() || part.is::<SortPreservingMergeExec>()
}

/// [`plan_physical`], in a task of its own where that may take long: a cancel and the deadline end the wait for it.
async fn plan_aside(
    inner: &Arc<CoordinatorInner>,
    query: &PlannedQuery,
    placement: Arc<Placement>,
    observer: Arc<QueryObserver>,
    dealt_because: Option<Error>,
) -> Result<(Arc<dyn ExecutionPlan>, SessionState), DataFusionError> {
    if query.sql.len() < limits::SQL_LONG_BYTES && !has_more_operators(&query.plan, limits::PLAN_LONG_NODES)? {
        return plan_physical(inner, query, placement, observer, dealt_because.as_ref()).await;
    }
    let (cpu, id) = (inner.cpu.handle(), observer.query_id);
    let (inner, query) = (inner.clone(), query.clone());
    let plans = async move { plan_physical(&inner, &query, placement, observer, dealt_because.as_ref()).await };
    planning_scope::apart(&cpu, id, plans).await?
}

fn has_more_operators(plan: &LogicalPlan, count: usize) -> Result<bool, DataFusionError> {
    let mut seen = 0;
    plan.apply_with_subqueries(|_| {
        seen += 1;
        Ok(if seen > count { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(seen > count)
}

/// Plans for a placement, and refuses plans that would read stored files on the coordinator. Both sides of all joins are dealt by key if there
/// is an error because of which they have to be; it is what is wrong where that cannot be done.
pub(crate) async fn plan_physical(
    inner: &Arc<CoordinatorInner>,
    query: &PlannedQuery,
    placement: Arc<Placement>,
    observer: Arc<QueryObserver>,
    dealt_because: Option<&Error>,
) -> Result<(Arc<dyn ExecutionPlan>, SessionState), DataFusionError> {
    let planned = plan_within_borders(inner, query, &placement, observer.clone(), dealt_because.is_some()).await;
    let (plan, state) = match dealt_because {
        None => planned?,
        Some(error) => {
            observer.decided(format!("both sides of joins are dealt by key, since one of them on every node was too much: {error}"));
            planned.map_err(|_| error.clone())?
        }
    };
    if !plan.is::<DistributedExec>() {
        plan.apply(|node| match stored_scan(node) {
            Some(_) => Err(Error::bug("a plan would read stored files on the coordinator, which holds none").into()),
            None => Ok(TreeNodeRecursion::Continue),
        })?;
    }
    let adapts = planner::adapts(&query.options(), &placement);
    Ok((journey::fit(replay::in_recursive_terms(plan)?, adapts)?, state))
}

/// Shapes of a plan, in the order in which they are tried. Only the first one is for all queries; the others are for rows that must not go where
/// the one before would send them: a small side of a join to wherever the other side lies, rows of one branch to wherever another branch's
/// files are, or both sides' rows to one place because they were dealt by the same key already.
const SHAPES: [Shape; 5] = [
    Shape { joins: Joins::Any, scans_apart: false },
    Shape { joins: Joins::ShuffleBoth, scans_apart: false },
    Shape { joins: Joins::Any, scans_apart: true },
    Shape { joins: Joins::ShuffleBoth, scans_apart: true },
    Shape { joins: Joins::Default, scans_apart: true },
];

/// A plan in which no row of a pinned table crosses its border.
async fn plan_within_borders(
    inner: &Arc<CoordinatorInner>,
    query: &PlannedQuery,
    placement: &Arc<Placement>,
    observer: Arc<QueryObserver>,
    dealt: bool,
) -> Result<(Arc<dyn ExecutionPlan>, SessionState), DataFusionError> {
    let mut refused: Option<DataFusionError> = None;
    for shape in SHAPES.into_iter().filter(|shape| !dealt || shape.joins == Joins::ShuffleBoth) {
        let mut state = planner::physical_state(inner, &query.state, placement.clone(), observer.clone(), shape)?;
        let planned = async {
            let logical = in_order(state.optimize(&query.plan)?)?;
            planner::suit_batches(&mut state, &logical)?;
            state.query_planner().create_physical_plan(&logical, &state).await
        };
        let plan = match planning(planned).await {
            Ok(plan) => plan,
            // Not every query can be planned in every shape.
            Err(_) if refused.is_some() => continue,
            Err(error) => return Err(error),
        };
        match residency::plan::check(&plan, placement, &inner.config.region) {
            Ok(borders) => {
                // Only this try plans for this placement.
                let _ = placement.borders.set(borders);
                if let Some(refusal) = refused {
                    observer.decided(format!("{shape}, since the usual plan was refused: {}", from_datafusion(&refusal)));
                }
                return Ok((plan, state));
            }
            // The first refusal is about the plan that would have been run.
            Err(error) => drop(refused.get_or_insert(error)),
        }
    }
    Err(refused.unwrap_or_else(|| Error::bug("no plan was tried").into()))
}

/// Like [`place`], but waits for nodes that may be about to come back: all of them after the coordinator's own start, later those that are suspect or
/// have just started. Where nobody else has the files of a node that was lost, and it answers again, it gets the query again.
async fn place_patiently(inner: &CoordinatorInner, query: &PlannedQuery, attempt: &mut Attempt) -> Result<Placement, DataFusionError> {
    let began = Instant::now();
    let failed = match place(inner, query, &attempt.avoid) {
        Err(error) if from_datafusion(&error).class() == ErrorClass::Retry => error,
        placed => return placed,
    };
    let may_come_back = || {
        let starts = attempt.avoid.is_empty() && inner.started.elapsed() < limits::START_PATIENCE;
        let uncertain = |state| matches!(state, NodeState::Suspect | NodeState::Joining);
        let expected = || inner.membership.inventories().values().any(|node| uncertain(node.state));
        starts || began.elapsed() < limits::SUSPECT_PATIENCE && expected()
    };
    while may_come_back() {
        tokio::time::sleep(limits::START_LOOK_INTERVAL).await;
        if let Ok(placed) = place(inner, query, &HashSet::new()) {
            if !attempt.avoid.is_empty() {
                attempt.given_up.push("nobody else has its files, and it answers again".to_string());
                attempt.avoid.clear();
            }
            return Ok(placed);
        }
    }
    Err(failed)
}

/// Chooses nodes and copies for the tables that a query reads, without the nodes in `avoid`.
pub(crate) fn place(inner: &CoordinatorInner, query: &PlannedQuery, avoid: &HashSet<String>) -> Result<Placement, DataFusionError> {
    let mut tables = BTreeMap::new();
    stored_tables(&query.plan, &mut tables)?;
    let tables: Vec<_> = tables.into_values().collect();
    Ok(Placement::freeze(&query.snapshot, &tables, inner.membership.as_ref(), avoid)?)
}

/// The stored tables that a logical plan scans, by table id; those under views too.
pub(crate) fn stored_tables(plan: &LogicalPlan, tables: &mut BTreeMap<i64, Arc<Table>>) -> Result<(), DataFusionError> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Ok(provider) = datafusion::datasource::source_as_provider(&scan.source)
        {
            if let Some(stored) = provider.downcast_ref::<StoredTable>() {
                tables.insert(stored.table().table_id, stored.table().clone());
            }
            if let Some(view) = provider.get_logical_plan() {
                stored_tables(&view, tables)?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
