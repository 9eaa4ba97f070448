//! Substrait plans: queries that a client has planned in its own way.
//!
//! A plan names tables of the catalog and is a query like any other from its logical plan on. Its bytes are bounded by
//! [`limits::SQL_BYTES_MAX`], its depth by the decoder's.

use super::rewrite;
use crate::error::{Error, ErrorClass, Result, from_datafusion};
use crate::limits;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion_substrait::logical_plan::consumer::from_substrait_plan;
use datafusion_substrait::substrait::proto::Plan;
use futures::FutureExt;
use prost::Message;
use std::panic::AssertUnwindSafe;

/// The release of Substrait that is understood; older plans are as far as their parts have kept their meaning.
pub const VERSION: (u32, u32, u32) = (
    datafusion_substrait::substrait::version::SUBSTRAIT_MAJOR_VERSION,
    datafusion_substrait::substrait::version::SUBSTRAIT_MINOR_VERSION,
    datafusion_substrait::substrait::version::SUBSTRAIT_PATCH_VERSION,
);

/// The logical plan of a serialized Substrait plan.
///
/// # Errors
/// When it is none, is too large or too deep, names what is not there, or has parts that are not supported.
pub async fn plan(state: &SessionState, bytes: &[u8]) -> Result<LogicalPlan> {
    if bytes.len() > limits::SQL_BYTES_MAX {
        return Err(Error::user(format!("the Substrait plan has {} bytes, more than the limit of {}", bytes.len(), limits::SQL_BYTES_MAX)));
    }
    let decoded = Plan::decode(bytes).map_err(|error| Error::user(format!("the Substrait plan cannot be read: {error}")))?;
    // The library takes parts for granted that a client may leave out.
    let planned = AssertUnwindSafe(from_substrait_plan(state, &decoded)).catch_unwind().await;
    let planned = planned.map_err(|_| Error::user("the Substrait plan lacks a part that its other parts need"))?;
    let planned = planned.and_then(rewrite::correct_plan).map_err(|error| {
        let error = from_datafusion(&error);
        // What is wrong with a plan is its client's to mend, however the library calls it.
        let class = if error.class() == ErrorClass::Bug { ErrorClass::User } else { error.class() };
        Error::new(class, format!("Substrait plan: {}", error.message()))
    })?;
    match planned {
        LogicalPlan::Ddl(_) | LogicalPlan::Dml(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => {
            Err(Error::user("Substrait plans are for queries here: change tables with SQL"))
        }
        query => Ok(query),
    }
}
