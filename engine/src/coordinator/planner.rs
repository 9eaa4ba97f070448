//! The DataFusion session of one statement: our catalog, our handlers, the library's distributed planner.

use super::CoordinatorInner;
use super::observer::QueryObserver;
use crate::catalog::provider::{OverlaySchemas, StatementCatalog, StatementCatalogList};
use crate::catalog::series::register_series;
use crate::catalog::{CATALOG_NAME, Snapshot};
use crate::cluster_tls::is_loopback;
use crate::config::{BowshotOptions, CoordinatorConfig};
use crate::error::{Result, from_datafusion};
use crate::fair_pool::FairPool;
use crate::fragment::placement::Placement;
use crate::fragment::{leaf, route};
use crate::limits;
use crate::operators::cast_bounds::without_cast_bounds;
use crate::operators::exact_arithmetic::LongProducts;
use crate::operators::filters_by_name::physical_rules;
use crate::operators::free_laterals::with_free_laterals;
use crate::operators::function_memory::FunctionMemory;
use crate::operators::join_sides::SendSmallSides;
use crate::operators::null_aware_limit::LimitOverNullAware;
use crate::operators::null_equal_joins::logical_rules;
use crate::operators::outer_constants::without_outer_constants;
use crate::operators::own_functions::register_own_functions;
use crate::operators::partial_keys::{FromWithoutKeys, without_partial_keys};
use crate::operators::window_keys::SortByAllWindowKeys;
use crate::planning_scope;
use crate::query_memory::{CONSUMERS_NAMED, MemoryPlace, QueryPool, runtime_with};
use crate::statement::type_names::TypeNames;
use crate::worker::queries::query_header;
use crate::worker::time_zone::{self, TimeZone};
use datafusion::common::DataFusionError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::memory_pool::TrackConsumersPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{FunctionRegistry, SessionState, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{
    CompressionType, DesiredTaskCountEvent, DistributedExt, RouteTasksEvent, ScaleUpLeafNodeEvent, SessionStateBuilderExt, WorkerResolver,
};
use std::sync::Arc;
use url::Url;

/// What all statements share: functions, rules, planners. Built once.
pub struct BaseState {
    state: SessionState,
}

/// Coordinators read no file: their runtime serves no store at all. What queries merge, sort and join there shares its memory and spill folder.
fn storeless_runtime(config: &CoordinatorConfig) -> Result<Arc<RuntimeEnv>> {
    let memory_bytes = config.operator_bytes();
    let pool = FairPool::new(memory_bytes);
    let mut builder = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(TrackConsumersPool::new(pool, CONSUMERS_NAMED)))
        .with_max_temp_directory_size(config.spill_limit_bytes())
        .with_object_store_registry(Arc::new(crate::worker::store::RestrictedStores::default()));
    if let Some(folder) = &config.spill_dir {
        builder = builder.with_temp_file_path(folder);
    }
    builder.build_arc().map_err(|error| from_datafusion(&error))
}

/// The coordinator's part of one query: what its session allows, out of what all share.
fn query_pool(shared: &RuntimeEnv, options: &BowshotOptions, observer: &QueryObserver) -> Arc<QueryPool> {
    let place = MemoryPlace {
        name: "the coordinator".into(),
        shared_setting: "coordinator.memory_bytes",
        query_bytes: 0,
        query_setting: "coordinator.memory_bytes",
    };
    let pool = Arc::new(QueryPool::new(place, shared.memory_pool.clone(), options.memory_limit_bytes));
    observer.watch_memory(pool.peak());
    pool
}

impl BaseState {
    /// DataFusion's defaults over a runtime without stores, with exact aggregates.
    pub fn new(config: &CoordinatorConfig) -> Result<Self> {
        let mut state = SessionStateBuilder::new()
            .with_default_features()
            .with_runtime_env(storeless_runtime(config)?)
            .with_optimizer_rules(planning_scope::logical(without_cast_bounds(without_partial_keys(with_free_laterals(logical_rules())))))
            .with_physical_optimizer_rules(planning_scope::physical(without_outer_constants(physical_rules())))
            .with_physical_optimizer_rule(Arc::new(LimitOverNullAware))
            .with_physical_optimizer_rule(Arc::new(SortByAllWindowKeys))
            .with_type_planner(Arc::new(TypeNames))
            .build();
        register_own_functions(&mut state).map_err(|error| from_datafusion(&error))?;
        register_series(&mut state);
        state.register_expr_planner(Arc::new(LongProducts)).map_err(|error| from_datafusion(&error))?;
        state.register_relation_planner(Arc::new(FromWithoutKeys)).map_err(|error| from_datafusion(&error))?;
        Ok(Self { state })
    }

    /// Functions, rules and planners.
    pub fn state(&self) -> &SessionState {
        &self.state
    }

    /// What all queries share on the coordinator: memory and spill folder.
    pub fn runtime(&self) -> &RuntimeEnv {
        self.state.runtime_env()
    }
}

/// Settings of a new session.
pub fn session_config(default_schema: &str) -> SessionConfig {
    let mut config = SessionConfig::new()
        // There is one of our own, with the names of SQL.
        .with_information_schema(false)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG_NAME, default_schema)
        // Leaves are dealt to partitions by the leaf handler; splitting or shuffling them again would move rows for nothing.
        .with_round_robin_repartition(false)
        .with_repartition_file_scans(false);
    config.options_mut().execution.collect_statistics = false;
    // A logical plan may know that a column has no NULL where the physical one does not; types are compared when rows come.
    config.options_mut().execution.skip_physical_aggregate_schema_check = true;
    // Without a zone TIMESTAMP WITH TIME ZONE would be one without.
    config.options_mut().execution.time_zone = Some(time_zone::DEFAULT.into());
    // 0.1 is a decimal, as the standard says: a literal read as a double would pull exact columns into rounding.
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    // Places of names, for the caret in errors.
    config.options_mut().sql_parser.collect_spans = true;
    config.options_mut().extensions.insert(BowshotOptions::default());
    config
}

struct NodeUrls(Vec<Url>);

impl WorkerResolver for NodeUrls {
    fn get_urls(&self) -> Result<Vec<Url>, DataFusionError> {
        Ok(self.0.clone())
    }
}

/// A state for parsing and logical planning: no placement yet.
pub(crate) fn logical_state(
    inner: &CoordinatorInner,
    config: SessionConfig,
    snapshot: Arc<Snapshot>,
    overlay: OverlaySchemas,
    functions: Vec<ScalarUDF>,
) -> SessionState {
    let zone = config.options().execution.time_zone.clone().unwrap_or_else(|| time_zone::DEFAULT.into());
    let catalogs = StatementCatalogList::new(StatementCatalog::new(snapshot, overlay, &zone));
    let state = SessionStateBuilder::new_from_existing(inner.base.state.clone()).with_config(config);
    let mut state = state.with_catalog_list(Arc::new(catalogs)).build();
    for function in functions {
        // Only a registry that takes none refuses one.
        let _ = state.register_udf(Arc::new(function));
    }
    state
}

/// How a plan may be made.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How the sides of a join may come together.
    pub joins: Joins,
    /// Whether scans are fragments of their own, whatever stands over them. What does runs where all that meets there may be then, and not
    /// wherever there are files.
    pub scans_apart: bool,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.joins {
            Joins::Any => "joins as usual",
            Joins::ShuffleBoth => "both sides of joins dealt anew",
            Joins::Default => "joins by DataFusion's own rules",
        })?;
        f.write_str(if self.scans_apart { ", scans as fragments of their own" } else { "" })
    }
}

/// How the sides of a join may come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joins {
    /// As is cheapest: a small side may be sent to all nodes of the other one.
    Any,
    /// Both sides are dealt anew by their keys.
    ShuffleBoth,
    /// As is cheapest, whatever the session prefers.
    Default,
}

/// A state for physical planning and execution of one try over a frozen placement.
pub(crate) fn physical_state(
    inner: &CoordinatorInner,
    logical: &SessionState,
    placement: Arc<Placement>,
    observer: Arc<QueryObserver>,
    shape: Shape,
) -> Result<SessionState> {
    let options = logical.config().options().extensions.get::<BowshotOptions>().cloned().unwrap_or_default();
    let partitions = match inner.config.query.target_partitions {
        0 => placement.partitions(),
        set => set.max(2),
    };
    let pool = query_pool(inner.base.runtime(), &options, &observer);
    let query = query_header(observer.query_id)?;
    let zone = TimeZone::of(logical.config());
    let config = pool.suited(logical.config().clone());
    let mut config = config.with_target_partitions(partitions).with_extension(observer).with_extension(placement.clone());
    let optimizer = &mut config.options_mut().optimizer;
    // Once it has seen a batch of NULLs alone, the filter of min and max together forgets min: row groups with lower values would be left out.
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    let bytes_max = match shape.joins {
        Joins::Any => options.broadcast_join_bytes,
        Joins::ShuffleBoth => {
            (optimizer.hash_join_single_partition_threshold, optimizer.hash_join_single_partition_threshold_rows) = (0, 0);
            0
        }
        Joins::Default => {
            let usual = ConfigOptions::new().optimizer;
            optimizer.prefer_hash_join = usual.prefer_hash_join;
            optimizer.hash_join_single_partition_threshold = usual.hash_join_single_partition_threshold;
            optimizer.hash_join_single_partition_threshold_rows = usual.hash_join_single_partition_threshold_rows;
            BowshotOptions::default().broadcast_join_bytes
        }
    };
    let runtime = runtime_with(inner.base.runtime(), pool);
    config.options_mut().extensions.insert(FunctionMemory::new(&runtime.memory_pool));
    let mut rules = logical.physical_optimizers().to_vec();
    if bytes_max > 0 {
        let rule = SendSmallSides { nodes: placement.nodes.len(), bytes_max };
        let at = rules.iter().position(|rule| rule.name() == "join_selection").unwrap_or(0);
        rules.insert(at, Arc::new(rule));
    }
    let (count, scale, routes) = (placement.clone(), placement.clone(), placement.clone());
    let adapts = adapts(&options, &placement);
    let compression = compression(&inner.config.query.compression, &placement);
    let urls = placement.nodes.iter().map(|node| node.url.clone()).collect();
    let build = || -> Result<SessionState, DataFusionError> {
        let mut state = SessionStateBuilder::new_from_existing(logical.clone())
            .with_config(config)
            .with_physical_optimizer_rules(rules)
            .with_runtime_env(runtime)
            .with_distributed_option_extension(options)
            .with_distributed_option_extension(zone)
            .with_distributed_passthrough_headers(query)?
            .with_distributed_worker_resolver(NodeUrls(urls))
            .with_distributed_channel_resolver(inner.channels.clone())
            .with_distributed_planner()
            .with_distributed_children_isolator_unions(false)?
            .with_distributed_broadcast_joins(shape.joins != Joins::ShuffleBoth)?
            .with_distributed_max_tasks_per_stage(0)?
            .with_distributed_metrics_collection(true)?
            .with_distributed_dynamic_task_count(adapts)?
            .with_distributed_worker_connection_buffer_budget_bytes(limits::STREAM_BUFFER_BYTES)?
            .with_distributed_compression(compression)?
            .with_distributed_desired_task_count_handler(move |event: DesiredTaskCountEvent| leaf::desired_task_count(&count, event))
            .with_distributed_scale_up_leaf_node_handler(move |event: ScaleUpLeafNodeEvent| {
                leaf::scale_up(&scale, event, shape.scans_apart)
            })
            .with_distributed_route_tasks_handler(move |event: RouteTasksEvent| Some(route::route(&routes, &event)))
            .build();
        // The moment that `now()` is, on every node.
        state.mark_start_execution();
        Ok(state)
    };
    build().map_err(|error| from_datafusion(&error))
}

/// Makes batches of a wide plan shorter, on this node and on workers.
pub(crate) fn suit_batches(state: &mut SessionState, plan: &LogicalPlan) -> Result<(), DataFusionError> {
    let mut columns = 1;
    plan.apply_with_subqueries(|node| {
        columns = columns.max(node.schema().fields().len());
        Ok(TreeNodeRecursion::Continue)
    })?;
    let rows = (limits::BATCH_VALUES_MAX / columns).max(limits::BATCH_ROWS_MIN);
    if rows < state.config().batch_size() {
        *state.config_mut() = state.config().clone().with_batch_size(rows);
        if let Some(own) = state.config_mut().options_mut().extensions.get_mut::<BowshotOptions>() {
            own.batch_rows = rows;
        }
    }
    Ok(())
}

/// Whether tasks of fragments are counted while the query runs. Where rows may go is checked on the whole plan before, so that a query over
/// pinned tables keeps to the plan that was checked.
pub(crate) fn adapts(options: &BowshotOptions, placement: &Placement) -> bool {
    options.adaptive_tasks && !placement.reads_pinned()
}

/// The library's name of a configured compression; [`Coordinator::open`](super::Coordinator::open) has refused unknown ones. On one machine
/// a fifth of a shuffle's processor time would go into bytes that no network carries.
fn compression(name: &str, placement: &Placement) -> Option<CompressionType> {
    let apart = || !placement.nodes.iter().all(|node| is_loopback(&node.url));
    match name {
        "auto" => apart().then_some(CompressionType::LZ4_FRAME),
        "lz4" => Some(CompressionType::LZ4_FRAME),
        "zstd" => Some(CompressionType::ZSTD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::SessionContext;

    #[tokio::test]
    async fn wide_plans_have_short_batches() {
        let context = SessionContext::new_with_config(SessionConfig::new().with_option_extension(BowshotOptions::default()));
        for (columns, rows) in [(1, 8192), (128, 8192), (1000, 1048)] {
            let list: Vec<String> = (0..columns).map(|at| format!("{at} AS c{at}")).collect();
            let mut state = context.state();
            let plan = state.create_logical_plan(&format!("SELECT c0 FROM (SELECT {}) wide", list.join(", "))).await.unwrap();
            suit_batches(&mut state, &plan).unwrap();
            let told = state.config().options().extensions.get::<BowshotOptions>().unwrap().batch_rows;
            assert_eq!((state.config().batch_size(), told), (rows, if rows < 8192 { rows } else { 0 }), "{columns} columns");
        }
    }
}
