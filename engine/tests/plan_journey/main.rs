//! Every node and expression of a plan, with every option, in the encoding in which plans go to workers, and back: nothing may be lost on the way.
//!
//! What comes back is compared with what went: its fields as `Debug` shows them, its expressions as they compare themselves (functions with
//! their settings among them), what `Debug` leaves out one by one, and the bytes of a second encoding.

mod nodes;
mod statements;

use bowshot_engine::CoordinatorConfig;
use bowshot_engine::coordinator::planner::{BaseState, session_config};
use bowshot_engine::fragment::journey::{STAYING, TRAVELLING, fit_fragment, kind};
use bowshot_engine::statement::coercion::coerced;
use bowshot_engine::worker::service::template;
use bowshot_engine::worker::time_zone::{self, TimeZone};
use datafusion::arrow::datatypes::Schema;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::DynamicFilterPhysicalExpr;
use datafusion::physical_expr::scalar_subquery::ScalarSubqueryExpr;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::memory::LazyMemoryExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, PhysicalExpr};
use datafusion_distributed::DistributedCodec;
use datafusion_proto::bytes::{physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter};
use datafusion_proto::physical_plan::DeduplicatingProtoConverter;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The versions whose nodes, expressions and options were looked through: for each that is new, a case belongs into `nodes.rs` or
/// `statements.rs`, and its name into `fragment::journey`.
const LOOKED_THROUGH: [(&str, &str); 7] = [
    ("datafusion", "55.2.0"),
    ("datafusion-datasource", "55.2.0"),
    ("datafusion-datasource-parquet", "55.2.0"),
    ("datafusion-distributed", "4.0.0"),
    ("datafusion-physical-expr", "55.2.0"),
    ("datafusion-physical-plan", "55.2.0"),
    ("datafusion-proto", "55.2.0"),
];

/// Nodes of these versions that no plan sends to a worker, and why.
const NEVER_SENT: [(&str, &str); 15] = [
    ("AnalyzeExec", "EXPLAIN ANALYZE is the engine's own"),
    ("AsyncFuncExec", "no function is asynchronous"),
    ("BufferExec", "behind a setting that a session cannot change"),
    ("ChildrenIsolatorUnionExec", "the library's setting for it is off"),
    ("CoalesceBatchesExec", "operators make batches of their size themselves now"),
    ("DataSinkExec", "workers refuse plans that write"),
    ("DistributedAnalyzeExec", "EXPLAIN ANALYZE is the engine's own"),
    ("DmlResultExec", "DELETE and UPDATE are refused"),
    ("ExplainExec", "EXPLAIN is the engine's own"),
    ("MetricsWrapperExec", "the library shows metrics with it"),
    ("OutputRequirementExec", "the optimizer takes it out again"),
    ("PartialSortExec", "for streams without end"),
    ("PartitionedTopKExec", "refused while it is planned"),
    ("PiecewiseMergeJoinExec", "refused while it is planned"),
    ("StreamingTableExec", "for streams without end"),
];

/// Where plans come from, and where they go.
struct Route {
    coordinator: SessionState,
    worker: Arc<TaskContext>,
    /// Names of the nodes that went.
    seen: BTreeSet<String>,
    problems: Vec<String>,
}

impl Route {
    fn new(zone: &str) -> Self {
        let base = BaseState::new(&CoordinatorConfig::default()).expect("the coordinator's state can be made");
        let mut config = session_config("main").with_target_partitions(4).with_create_default_catalog_and_schema(true);
        config.options_mut().execution.time_zone = Some(zone.into());
        let coordinator = SessionStateBuilder::new_from_existing(base.state().clone()).with_config(config).build();
        let runtime = Arc::new(RuntimeEnv::default());
        let volume = ObjectStoreUrl::parse("node://data").expect("the URL is one");
        runtime.register_object_store(volume.as_ref(), Arc::new(object_store::memory::InMemory::new()));
        let mut worker = template(runtime).expect("the worker's state can be made");
        time_zone::apply(&mut worker, &TimeZone::of(coordinator.config())).expect("functions can be registered again");
        Self { coordinator, worker: worker.task_ctx(), seen: BTreeSet::new(), problems: vec![] }
    }

    async fn plan(&self, state: &SessionState, sql: &str) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let mut state = state.clone();
        // The moment that `now()` is, and the settings that functions see.
        state.mark_start_execution();
        let logical = state.create_logical_plan(sql).await.and_then(coerced)?;
        state.create_physical_plan(&logical).await
    }

    fn encoded(&self, plan: &Arc<dyn ExecutionPlan>) -> datafusion::common::Result<Vec<u8>> {
        let codec = DistributedCodec::new_combined_with_user(self.coordinator.config());
        Ok(physical_plan_to_bytes_with_proto_converter(plan.clone(), &codec, &DeduplicatingProtoConverter::default())?.to_vec())
    }

    fn decoded(&self, bytes: &[u8]) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let codec = DistributedCodec::new_combined_with_user(self.worker.session_config());
        physical_plan_from_bytes_with_proto_converter(bytes, &self.worker, &codec, &DeduplicatingProtoConverter::default())
    }

    /// Sends a plan there and back, and notes what was lost.
    fn send(&mut self, what: &str, plan: Arc<dyn ExecutionPlan>) {
        if let Err(error) = fit_fragment(plan.clone()) {
            return self.problems.push(format!("{what}: refused: {error}"));
        }
        self.arrive(what, plan);
    }

    fn arrive(&mut self, what: &str, plan: Arc<dyn ExecutionPlan>) {
        let went = match self.encoded(&plan) {
            Ok(went) => went,
            Err(error) => return self.problems.push(format!("{what}: cannot be encoded: {error}")),
        };
        let came = match self.decoded(&went) {
            Ok(came) => came,
            Err(error) => return self.problems.push(format!("{what}: cannot be decoded: {error}")),
        };
        let mut lost = vec![];
        differences(&plan, &came, &mut lost);
        if self.encoded(&came).ok().as_ref() != Some(&went) {
            lost.push("a second encoding differs from the first".into());
        }
        let (was, is) = (shown(&plan), shown(&came));
        if was != is {
            let differing = was.lines().zip(is.lines()).find(|(was, is)| was != is);
            lost.push(format!("as shown: {differing:?}"));
        }
        self.problems.extend(lost.into_iter().map(|lost| format!("{what}: {lost}")));
        let _ = plan.apply(|node| {
            self.seen.insert(kind(node).to_string());
            Ok(TreeNodeRecursion::Continue)
        });
    }
}

/// Fields that are left out of the comparison, with what is below them.
const DERIVED: [&str; 7] = [
    // Made anew from the children, and compared where an operator goes by it: partitions and order.
    "cache:",
    "properties:",
    // Of arguments and children, which are compared themselves.
    "schema:",
    // Windows without PARTITION BY want one partition, whether or not they could do with more.
    "can_repartition:",
    // What a worker does not know of the order of its input it does not go by: it sorts once more.
    "is_input_pre_ordered:",
    // How CASE is computed: tables by hash, in an order that is another each time.
    "eval_method:",
    // A filter that changes while it runs knows its readers, which are others elsewhere.
    "state_watch:",
];

/// All other fields, private ones too.
fn shown(plan: &Arc<dyn ExecutionPlan>) -> String {
    let text = format!("{plan:#?}");
    let (mut kept, mut skipped_at) = (String::new(), None);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match skipped_at {
            Some(at) if indent > at => continue,
            Some(at) if indent == at && line.trim_start().starts_with([')', ']', '}']) => continue,
            _ => skipped_at = None,
        }
        if DERIVED.iter().any(|field| line.trim_start().starts_with(field)) {
            skipped_at = Some(indent);
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn expressions(plan: &Arc<dyn ExecutionPlan>) -> Vec<Arc<dyn PhysicalExpr>> {
    let mut all = vec![];
    let _ = plan.apply_expressions(&mut |expr| {
        all.push(expr.clone());
        Ok(TreeNodeRecursion::Continue)
    });
    all
}

/// What `Debug` does not show of a node.
fn unshown(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let mut facts = vec![format!("fetch {:?}", plan.fetch())];
    // A series comes in order, which is not said again where it arrives, and spares no one a sort then.
    if !plan.exists(|node| Ok(node.is::<LazyMemoryExec>())).unwrap_or(false) {
        facts.push(format!("order {:?}", plan.output_ordering().map(|order| order.to_string())));
    }
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        facts.push(format!("null aware {}, dynamic filter {}", join.null_aware, !join.dynamic_expressions_produced().is_empty()));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        facts.push(format!(
            "limit {:?}, dynamic filter {}",
            aggregate.limit_options(),
            !aggregate.dynamic_expressions_produced().is_empty()
        ));
    }
    if let Some(scan) = plan.downcast_ref::<DataSourceExec>().and_then(|leaf| leaf.data_source().downcast_ref::<FileScanConfig>()) {
        for file in scan.file_groups.iter().flat_map(|group| group.files()) {
            facts.push(format!("{:?} {:?} {:?} {:?}", file.object_meta, file.range, file.partition_values, file.ordering));
        }
        facts.push(format!("{:?} {:?} {:?}", scan.limit, scan.batch_size, scan.output_partitioning));
        facts.push(format!("{:?} {:?}", scan.file_schema(), scan.file_source().projection()));
        facts.push(format!("{:?} {:?}", scan.file_source().filter(), scan.constraints));
        facts.extend(scan.file_source().downcast_ref::<ParquetSource>().map(|source| format!("{:?}", source.table_parquet_options())));
    }
    facts
}

fn differences(was: &Arc<dyn ExecutionPlan>, is: &Arc<dyn ExecutionPlan>, lost: &mut Vec<String>) {
    if was.name() != is.name() {
        return lost.push(format!("{} came as {}", was.name(), is.name()));
    }
    let name = was.name();
    if was.schema() != is.schema() {
        lost.push(format!("{name}: schema {:?} came as {:?}", was.schema(), is.schema()));
    }
    let partitions = |plan: &Arc<dyn ExecutionPlan>| format!("{:?}", plan.output_partitioning());
    if partitions(was) != partitions(is) {
        lost.push(format!("{name}: {} came as {}", partitions(was), partitions(is)));
    }
    for (was, is) in unshown(was).iter().zip(&unshown(is)).filter(|(was, is)| was != is) {
        lost.push(format!("{name}: {was} came as {is}"));
    }
    let (mine, theirs) = (expressions(was), expressions(is));
    if mine.len() != theirs.len() {
        lost.push(format!("{name}: {} expressions came as {}", mine.len(), theirs.len()));
    }
    for (was, is) in mine.iter().zip(&theirs) {
        same_expression(name, was, is, lost);
    }
    let (mine, theirs) = (was.children(), is.children());
    if mine.len() != theirs.len() {
        lost.push(format!("{name}: {} children came as {}", mine.len(), theirs.len()));
    }
    mine.into_iter().zip(theirs).for_each(|(was, is)| differences(was, is, lost));
}

fn same_expression(node: &str, was: &Arc<dyn PhysicalExpr>, is: &Arc<dyn PhysicalExpr>, lost: &mut Vec<String>) {
    // The two that are read in several places are the same only if they are one object.
    let shared = |expr: &Arc<dyn PhysicalExpr>| expr.is::<DynamicFilterPhysicalExpr>() || expr.is::<ScalarSubqueryExpr>();
    let comparable = !was.exists(|part| Ok(shared(part))).unwrap_or(true);
    let settings = Arc::new(ConfigOptions::new());
    let (of_was, of_is) = (with_settings(was, &settings), with_settings(is, &settings));
    if format!("{was}") != format!("{is}") || (comparable && of_was != of_is) {
        lost.push(format!("{node}: {was} came as {is}, or with other options"));
    }
}

/// An expression whose functions have these settings, and the time zones of those that they had.
fn with_settings(expr: &Arc<dyn PhysicalExpr>, settings: &Arc<ConfigOptions>) -> (Arc<dyn PhysicalExpr>, Vec<Option<String>>) {
    let mut zones = vec![];
    let changed = expr.clone().transform_up(|part| {
        let Some(function) = part.downcast_ref::<ScalarFunctionExpr>() else { return Ok(Transformed::no(part)) };
        zones.push(function.config_options().execution.time_zone.clone());
        let field = function.return_field(&Schema::empty())?;
        let neutral =
            ScalarFunctionExpr::new(function.name(), Arc::new(function.fun().clone()), function.args().to_vec(), field, settings.clone());
        Ok(Transformed::yes(Arc::new(neutral) as Arc<dyn PhysicalExpr>))
    });
    (changed.expect("a function can be made again").data, zones)
}

#[tokio::test]
async fn every_node_and_expression_arrives_as_it_left() {
    let mut route = Route::new("UTC");
    nodes::send_all(&mut route);
    statements::send_all(&mut route).await;
    assert!(route.problems.is_empty(), "{} losses:\n{}", route.problems.len(), route.problems.join("\n"));
    let unseen: Vec<_> = TRAVELLING.iter().filter(|name| !route.seen.contains(**name)).collect();
    // The library gives no way to make one outside of it: its codec writes nothing of it.
    assert_eq!(unseen, [&"DistributedLeafExec", &"SamplerExec"], "nodes without a case");
}

#[tokio::test]
async fn the_session_s_time_zone_arrives_too() {
    let mut route = Route::new("America/Denver");
    statements::send_all(&mut route).await;
    assert!(route.problems.is_empty(), "{} losses:\n{}", route.problems.len(), route.problems.join("\n"));
}

#[test]
fn versions_that_were_looked_through_are_those_in_use() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock")).expect("Cargo.lock can be read");
    for (krate, version) in LOOKED_THROUGH {
        let entry = format!("name = \"{krate}\"\nversion = \"{version}\"");
        assert!(
            lock.contains(&entry),
            "{krate} is not {version} any more: look through its new nodes, expressions and options, then change LOOKED_THROUGH"
        );
    }
}

/// The nodes of the versions in use, by the source that is compiled: each either travels, stays, or is never sent for a reason.
#[test]
fn every_node_there_is_has_a_place_on_a_list() {
    let Some(registry) = sources() else { return };
    let mut strangers = vec![];
    for (krate, version) in LOOKED_THROUGH {
        let mut folders = vec![registry.join(format!("{krate}-{version}/src"))];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                if path.is_dir() && !["test", "test_utils", "tests", "benchmarks"].contains(&name.as_str()) {
                    folders.push(path);
                } else if path.extension().is_some_and(|ending| ending == "rs") && name != "test.rs" {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    // What tests make of their own stands behind this mark, indented.
                    let nodes = text.lines().filter_map(|line| line.strip_prefix("impl ExecutionPlan for ")?.split([' ', '<', '{']).next());
                    strangers.extend(nodes.filter(|node| !is_listed(node)).map(|node| format!("{node} in {}", path.display())));
                }
            }
        }
    }
    assert!(strangers.is_empty(), "nodes on no list: {strangers:#?}");
}

fn is_listed(node: &str) -> bool {
    TRAVELLING.contains(&node) || STAYING.contains(&node) || NEVER_SENT.iter().any(|(name, _)| *name == node)
}

/// The folder of the sources that cargo compiled, if it is where cargo keeps it.
fn sources() -> Option<std::path::PathBuf> {
    let home =
        std::env::var("CARGO_HOME").map(Into::into).or_else(|_| std::env::var("HOME").map(|home| Path::new(&home).join(".cargo"))).ok()?;
    let (krate, version) = LOOKED_THROUGH[0];
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    registries.flatten().map(|entry| entry.path()).find(|folder| folder.join(format!("{krate}-{version}")).is_dir())
}
