//! Joins whose NULLs are equal, kept apart from those whose NULLs are not.
//!
//! DataFusion's rule that orders inner joins anew takes the topmost one's word for all: below `a.x IS NOT DISTINCT FROM b.x` it would join `b.k = c.k`
//! over NULLs too, and beside a cross join it forgets that NULLs are equal. Another one takes `a.y = b.y` beside it for one of its keys. Here such a
//! join keeps its place, its inputs and its keys.

use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchemaRef, JoinType, NullEquality, Result, internal_err};
use datafusion::logical_expr::{Expr, Extension, Join, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// DataFusion's logical rules, with those that order inner joins and find their keys behind ours.
pub fn logical_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let ours = |rule: Arc<dyn OptimizerRule + Send + Sync>| -> Arc<dyn OptimizerRule + Send + Sync> {
        let rewrite: Rewrite = match rule.name() {
            "eliminate_cross_join" => in_their_places,
            "extract_equijoin_predicate" => keys_of_the_join,
            _ => return rule,
        };
        Arc::new(NullEqualJoins { rule, rewrite })
    };
    Optimizer::new().rules.into_iter().map(ours).collect()
}

struct NullEqualJoins {
    rule: Arc<dyn OptimizerRule + Send + Sync>,
    rewrite: Rewrite,
}

type Rewrite = fn(&dyn OptimizerRule, LogicalPlan, &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>>;

impl fmt::Debug for NullEqualJoins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NullEqualJoins").field(&self.rule.name()).finish()
    }
}

impl OptimizerRule for NullEqualJoins {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.rule.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        (self.rewrite)(self.rule.as_ref(), plan, config)
    }
}

/// Orders joins anew, but for those whose NULLs are equal.
fn in_their_places(rule: &dyn OptimizerRule, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
    let is_apart =
        |join: &Join| join.join_type == JoinType::Inner && join.null_equality == NullEquality::NullEqualsNull && !join.on.is_empty();
    if !plan.exists(|node| Ok(matches!(node, LogicalPlan::Join(join) if is_apart(join))))? {
        return rule.rewrite(plan, config);
    }
    let shut = plan.transform_up(|node| match node {
        LogicalPlan::Join(join) if is_apart(&join) => {
            let (left, right) = (Arc::new(apart(join.left)), Arc::new(apart(join.right)));
            Ok(Transformed::yes(apart(Arc::new(LogicalPlan::Join(Join { left, right, ..join })))))
        }
        other => Ok(Transformed::no(other)),
    })?;
    let ordered = rule.rewrite(shut.data, config)?;
    let open = ordered.data.transform_up(|node| match &node {
        LogicalPlan::Extension(Extension { node: shut }) => match shut.as_ref().as_any().downcast_ref::<Apart>() {
            Some(Apart { input }) => Ok(Transformed::yes(input.clone())),
            None => Ok(Transformed::no(node)),
        },
        _ => Ok(Transformed::no(node)),
    });
    open.data().map(Transformed::yes)
}

/// Makes keys of the `a.x = b.y` in a join's condition, unless its NULLs are equal: over NULLs such a key would be another condition.
fn keys_of_the_join(rule: &dyn OptimizerRule, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
    match &plan {
        LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull => Ok(Transformed::no(plan)),
        _ => rule.rewrite(plan, config),
    }
}

fn apart(input: Arc<LogicalPlan>) -> LogicalPlan {
    let node: Arc<dyn UserDefinedLogicalNode> = Arc::new(Apart { input: Arc::unwrap_or_clone(input) });
    LogicalPlan::Extension(Extension { node })
}

/// What the rule does not look through.
#[derive(PartialEq, Eq, Hash)]
struct Apart {
    input: LogicalPlan,
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for Apart {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.input.partial_cmp(&other.input)
    }
}

impl UserDefinedLogicalNodeCore for Apart {
    fn name(&self) -> &str {
        "Apart"
    }
    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }
    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Apart")
    }
    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) => Ok(Self { input }),
            None => internal_err!("Apart has an input"),
        }
    }
}
