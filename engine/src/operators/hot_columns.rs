//! The kernels of one hot aggregation, and the columns that each of them reads: a row group's chunks are read once for all.

use super::translate::ColumnSource;
use bowshot_kernels::{AggregatePlan, ColumnType, Expr};
use std::collections::BTreeSet;

/// What one kernel runs.
#[derive(Debug, Clone)]
pub struct KernelPlan {
    /// Over the columns that it reads.
    pub plan: AggregatePlan,
    /// The position of each among the columns that all kernels of the aggregation read.
    pub columns: Vec<usize>,
}

impl KernelPlan {
    /// Keeps only the columns that some expression or key reads, and renumbers them.
    pub fn new(mut plan: AggregatePlan) -> Self {
        let mut read: BTreeSet<usize> = plan.keys.iter().copied().collect();
        for expr in plan_expressions(&mut plan) {
            visit_columns(expr, &mut |column| {
                read.insert(*column);
            });
        }
        let columns: Vec<usize> = read.into_iter().collect();
        let renumber = |column: &mut usize| *column = columns.partition_point(|read| *read < *column);
        plan_expressions(&mut plan).for_each(|expr| visit_columns(expr, &mut |column| renumber(column)));
        plan.keys.iter_mut().for_each(renumber);
        plan.columns = columns.iter().map(|column| plan.columns[*column]).collect();
        Self { plan, columns }
    }
}

/// Those of `all` columns that some kernel reads, which the kernels now count by.
pub fn share_columns<'k>(
    kernels: impl Iterator<Item = &'k mut KernelPlan>,
    all: Vec<(ColumnSource, ColumnType)>,
) -> Vec<(ColumnSource, ColumnType)> {
    let kernels: Vec<&mut KernelPlan> = kernels.collect();
    let read: BTreeSet<usize> = kernels.iter().flat_map(|kernel| kernel.columns.iter().copied()).collect();
    let read: Vec<usize> = read.into_iter().collect();
    for kernel in kernels {
        kernel.columns.iter_mut().for_each(|column| *column = read.partition_point(|known| *known < *column));
    }
    let mut all: Vec<_> = all.into_iter().map(Some).collect();
    read.into_iter().filter_map(|column| all[column].take()).collect()
}

fn plan_expressions(plan: &mut AggregatePlan) -> impl Iterator<Item = &mut Expr> {
    let aggregates = plan.aggregates.iter_mut().flat_map(|aggregate| aggregate.argument.iter_mut().chain(aggregate.filter.iter_mut()));
    plan.filter.iter_mut().chain(aggregates)
}

fn visit_columns(expr: &mut Expr, visit: &mut dyn FnMut(&mut usize)) {
    match expr {
        Expr::Column(column) => visit(column),
        Expr::Literal(_) => {}
        Expr::Rescale { input, .. } | Expr::Negate { input, .. } | Expr::InList { input, .. } | Expr::Like { input, .. } => {
            visit_columns(input, visit)
        }
        Expr::IsNull(input) | Expr::IsNotNull(input) | Expr::Not(input) => visit_columns(input, visit),
        Expr::Arithmetic { left, right, .. } | Expr::Compare { left, right, .. } => {
            visit_columns(left, visit);
            visit_columns(right, visit);
        }
        Expr::Case { branches, otherwise } => {
            for (condition, value) in branches {
                visit_columns(condition, visit);
                visit_columns(value, visit);
            }
            if let Some(value) = otherwise {
                visit_columns(value, visit);
            }
        }
        Expr::And(parts) | Expr::Or(parts) => parts.iter_mut().for_each(|part| visit_columns(part, visit)),
    }
}
