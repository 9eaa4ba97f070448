//! Substrait plans: queries that a client has planned in its own way.
//!
//! A plan names tables of the catalog and is a query like any other from its logical plan on. Its bytes are bounded by
//! [`limits::SQL_BYTES_MAX`], its depth by the decoder's. The decoder is the program's to bring ([`SubstraitReader`]).

use super::coercion;
use crate::error::{Error, ErrorClass, Result, from_datafusion};
use crate::limits;
use datafusion::common::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use futures::future::BoxFuture;
use std::sync::Arc;

/// The refusal of a program without a reader.
pub const NO_READER: &str =
    "this server was built without Substrait (./demo leaves it out to build faster): send SQL, or build it with its default features";

/// Turns serialized Substrait plans into logical plans.
pub trait SubstraitReader: Send + Sync + 'static {
    /// The release of Substrait that it understands, as (major, minor, patch); older plans are as far as their parts have kept their meaning.
    fn version(&self) -> (u32, u32, u32);

    /// The logical plan of a serialized one, over the catalog of `state`. Never panics, whatever the bytes are.
    ///
    /// # Errors
    /// When the bytes are no plan, name what is not there, or have parts that are not supported.
    fn read(&self, state: SessionState, plan: Arc<[u8]>) -> BoxFuture<'static, Result<LogicalPlan, DataFusionError>>;
}

/// The logical plan of a serialized Substrait plan.
///
/// # Errors
/// When it is none, is too large or too deep, names what is not there, has parts that are not supported, or is no query; and when this program was
/// built without a reader.
pub(crate) async fn plan(reader: Option<&Arc<dyn SubstraitReader>>, state: &SessionState, bytes: &[u8]) -> Result<LogicalPlan> {
    let reader = reader.ok_or_else(|| Error::user(NO_READER))?;
    if bytes.len() > limits::SQL_BYTES_MAX {
        return Err(Error::user(format!("the Substrait plan has {} bytes, more than the limit of {}", bytes.len(), limits::SQL_BYTES_MAX)));
    }
    let planned = reader.read(state.clone(), bytes.into()).await.and_then(coercion::coerced).map_err(|error| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::SessionStateBuilder;

    #[tokio::test]
    async fn a_program_without_a_reader_says_so() {
        let error = plan(None, &SessionStateBuilder::new().build(), b"").await.unwrap_err();
        assert_eq!((error.class(), error.message().as_str()), (ErrorClass::User, NO_READER));
    }
}
