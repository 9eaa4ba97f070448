//! Windows that add to one that the WINDOW clause names, as in `OVER (w ROWS 1 PRECEDING)`: the planner forgets the named one.

use super::syntax::{folded, selects_of};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::sql::sqlparser::ast::{Expr, NamedWindowExpr, Query, Select, SetExpr, VisitMut, VisitorMut, WindowSpec, WindowType};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Writes windows out, once what stands within the query is: windows that are not named there are named here.
pub fn resolve(query: &mut Query) -> Result<()> {
    let mut sorted = match query.body.as_ref() {
        SetExpr::Select(select) => named(select)?,
        _ => Windows(BTreeMap::new()),
    };
    sorted.write_out(&mut query.order_by)?;
    for select in selects_of(&mut query.body) {
        let mut windows = named(select)?;
        windows.write_out(&mut select.projection)?;
        windows.write_out(&mut select.qualify)?;
    }
    Ok(())
}

fn named(select: &Select) -> Result<Windows> {
    let mut known = Windows(BTreeMap::new());
    for definition in &select.named_window {
        let spec = match &definition.1 {
            NamedWindowExpr::NamedWindow(other) => known.0.get(&folded(other)).cloned(),
            NamedWindowExpr::WindowSpec(spec) => Some(known.over(spec)?),
        };
        if let Some(spec) = spec {
            known.0.insert(folded(&definition.0), spec);
        }
    }
    Ok(known)
}

struct Windows(BTreeMap<String, WindowSpec>);

impl Windows {
    fn write_out(&mut self, part: &mut impl VisitMut) -> Result<()> {
        match part.visit(self) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// A window that adds to a named one, written out. Of a window that is not known the planner says so.
    fn over(&self, spec: &WindowSpec) -> Result<WindowSpec> {
        let Some((name, named)) = spec.window_name.as_ref().and_then(|name| Some((name, self.0.get(&folded(name))?))) else {
            return Ok(spec.clone());
        };
        if !spec.partition_by.is_empty() {
            return plan_err!("a window over {name} has the PARTITION BY of {name}: leave out its own, or the name");
        }
        if !spec.order_by.is_empty() && !named.order_by.is_empty() {
            return plan_err!("a window over {name} has the ORDER BY of {name}: leave out its own, or the name");
        }
        Ok(WindowSpec {
            window_name: None,
            partition_by: named.partition_by.clone(),
            order_by: if spec.order_by.is_empty() { named.order_by.clone() } else { spec.order_by.clone() },
            window_frame: spec.window_frame.clone().or_else(|| named.window_frame.clone()),
        })
    }
}

impl VisitorMut for Windows {
    type Break = DataFusionError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<DataFusionError> {
        if let Expr::Function(call) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut call.over
        {
            match self.over(spec) {
                Ok(whole) => *spec = whole,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}
