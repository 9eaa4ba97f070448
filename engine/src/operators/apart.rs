//! A node that stands in a logical plan while rules run, and is taken out again: what some of them must not look through.

use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, FunctionalDependencies, Result, internal_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// What the node keeps from the rules above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum Hidden {
    /// Everything: its input is a leaf to them.
    Input,
    /// What its input says of its keys. Filters, limits and the choice of columns go through.
    Keys,
}

/// The input behind a node that keeps something from the rules above it.
pub fn apart(hidden: Hidden, input: Arc<LogicalPlan>) -> Result<LogicalPlan> {
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(Apart::new(hidden, Arc::unwrap_or_clone(input))?) }))
}

/// What a node of [`apart`] keeps, and its input.
pub fn behind(plan: &LogicalPlan) -> Option<(Hidden, &LogicalPlan)> {
    let LogicalPlan::Extension(Extension { node }) = plan else { return None };
    node.as_ref().as_any().downcast_ref::<Apart>().map(|node| (node.hidden, &node.input))
}

/// The plan without the nodes that keep this from its rules.
pub fn open(hidden: Hidden, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let keeps = |node: &LogicalPlan| behind(node).is_some_and(|(kept, _)| kept == hidden);
    if !exists(&plan, &keeps)? {
        return Ok(Transformed::no(plan));
    }
    plan.transform_up_with_subqueries(|node| match behind(&node) {
        Some((kept, input)) if kept == hidden => Ok(Transformed::yes(input.clone())),
        // What was kept from it, it knows from now on.
        _ => node.recompute_schema().map(Transformed::yes),
    })
}

/// Whether the plan or a subquery in it has such a node.
pub fn exists(plan: &LogicalPlan, is_such: &dyn Fn(&LogicalPlan) -> bool) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found = is_such(node);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

#[derive(PartialEq, Eq, Hash)]
struct Apart {
    hidden: Hidden,
    input: LogicalPlan,
    schema: DFSchemaRef,
}

impl Apart {
    fn new(hidden: Hidden, input: LogicalPlan) -> Result<Self> {
        let schema = match hidden {
            Hidden::Input => input.schema().clone(),
            Hidden::Keys => Arc::new(without_keys(input.schema())?),
        };
        Ok(Self { hidden, input, schema })
    }
}

/// The same columns, none of which is said to follow from others.
pub fn without_keys(schema: &DFSchema) -> Result<DFSchema> {
    schema.clone().with_functional_dependencies(FunctionalDependencies::empty())
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for Apart {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.hidden, &self.input).partial_cmp(&(other.hidden, &other.input))
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
        &self.schema
    }
    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }
    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Apart")
    }
    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match inputs.pop() {
            Some(input) => Self::new(self.hidden, input),
            None => internal_err!("Apart has an input"),
        }
    }
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        match self.hidden {
            Hidden::Input => self.schema.fields().iter().map(|field| field.name().clone()).collect(),
            Hidden::Keys => HashSet::new(),
        }
    }
    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        (self.hidden == Hidden::Keys).then(|| vec![output_columns.to_vec()])
    }
    fn supports_limit_pushdown(&self) -> bool {
        self.hidden == Hidden::Keys
    }
}
