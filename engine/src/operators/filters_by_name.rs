//! Filters pushed down where columns share a name.
//!
//! DataFusion's rule finds the columns of a filter again by name, operator by operator. `SELECT a.id, b.id … WHERE a.id IS NULL` has two columns of one
//! name: the filter arrives at the scan of the other one, whose rows it prunes. Here such a filter stays where it is.
//!
//! ```text
//!   FilterExec: id@0 IS NULL                   FilterExec: id@0 IS NULL
//!     ProjectionExec: a.id, b.id       ──►       OneNameEach                 (while the rule runs)
//!       HashJoinExec                               ProjectionExec: a.id, b.id
//! ```

use arrow::datatypes::Schema;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::filter_pushdown::{ChildFilterDescription, FilterDescription, FilterPushdownPhase};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, replace_children_if_necessary};
use std::fmt;
use std::sync::Arc;

/// DataFusion's physical rules, with those that push filters down behind ours.
pub fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let ours = |rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>| -> Arc<dyn PhysicalOptimizerRule + Send + Sync> {
        if rule.name().starts_with("FilterPushdown") { Arc::new(FiltersByName { rule }) } else { rule }
    };
    PhysicalOptimizer::default().rules.into_iter().map(ours).collect()
}

struct FiltersByName {
    rule: Arc<dyn PhysicalOptimizerRule + Send + Sync>,
}

impl fmt::Debug for FiltersByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FiltersByName").field(&self.rule.name()).finish()
    }
}

impl PhysicalOptimizerRule for FiltersByName {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let mut barred = false;
        let plan = plan.transform_up(|node| {
            let bars: Vec<bool> = node.children().iter().map(|child| has_shared_name(&child.schema())).collect();
            if !bars.contains(&true) {
                return Ok(Transformed::no(node));
            }
            barred = true;
            let children = node.children().into_iter().zip(bars).map(|(child, bar)| match bar {
                true => Arc::new(OneNameEach { input: child.clone() }) as Arc<dyn ExecutionPlan>,
                false => child.clone(),
            });
            Ok(Transformed::yes(replace_children_if_necessary(node.clone(), children.collect())?))
        });
        let plan = self.rule.optimize(plan.data()?, config)?;
        if !barred {
            return Ok(plan);
        }
        let open = |node: Arc<dyn ExecutionPlan>| match node.downcast_ref::<OneNameEach>() {
            Some(bar) => Ok(Transformed::yes(bar.input.clone())),
            None => Ok(Transformed::no(node)),
        };
        plan.transform_up(open).data()
    }

    fn name(&self) -> &str {
        self.rule.name()
    }

    fn schema_check(&self) -> bool {
        self.rule.schema_check()
    }
}

fn has_shared_name(schema: &Schema) -> bool {
    let fields = schema.fields();
    fields.iter().enumerate().any(|(at, field)| fields[..at].iter().any(|before| before.name() == field.name()))
}

/// Lets filters through whose columns have names of their own.
#[derive(Debug)]
struct OneNameEach {
    input: Arc<dyn ExecutionPlan>,
}

impl DisplayAs for OneNameEach {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("OneNameEach")
    }
}

impl ExecutionPlan for OneNameEach {
    fn name(&self) -> &str {
        "OneNameEach"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        match children.pop() {
            Some(input) => Ok(Arc::new(Self { input })),
            None => internal_err!("OneNameEach has an input"),
        }
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        internal_err!("OneNameEach is gone once a plan runs")
    }

    fn gather_filters_for_pushdown(
        &self,
        _: FilterPushdownPhase,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        _: &ConfigOptions,
    ) -> Result<FilterDescription> {
        let schema = self.schema();
        let once = |name: &str| schema.fields().iter().filter(|field| field.name() == name).count() == 1;
        let clear = schema.fields().iter().enumerate().filter(|(_, field)| once(field.name())).map(|(at, _)| at).collect();
        let described = ChildFilterDescription::from_child_with_allowed_indices(&filters, clear, &self.input)?;
        Ok(FilterDescription::new().with_child(described))
    }
}
