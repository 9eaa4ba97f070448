//! Substrait plans as logical plans of DataFusion: the library for it, beside the engine and not below it, since it takes long to build and few need it.
//!
//! The engine calls this, and says what such a plan may do ([`bowshot_engine::statement::substrait`]).
//!
//! What this crate must not know: sessions, clients, the cluster.

#![forbid(unsafe_code)]

use bowshot_engine::Error;
use bowshot_engine::statement::substrait::SubstraitReader;
use datafusion::common::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion_substrait::logical_plan::consumer::from_substrait_plan;
use datafusion_substrait::substrait::proto::Plan;
use datafusion_substrait::substrait::version;
use futures::FutureExt;
use futures::future::BoxFuture;
use prost::Message;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

/// Reads plans with DataFusion's library.
pub struct Reader;

impl SubstraitReader for Reader {
    fn version(&self) -> (u32, u32, u32) {
        (version::SUBSTRAIT_MAJOR_VERSION, version::SUBSTRAIT_MINOR_VERSION, version::SUBSTRAIT_PATCH_VERSION)
    }

    fn read(&self, state: SessionState, plan: Arc<[u8]>) -> BoxFuture<'static, Result<LogicalPlan, DataFusionError>> {
        Box::pin(read(state, plan))
    }
}

async fn read(state: SessionState, plan: Arc<[u8]>) -> Result<LogicalPlan, DataFusionError> {
    // Its depth is the decoder's to bound.
    let plan = Plan::decode(&*plan).map_err(|error| Error::user(format!("it cannot be read: {error}")))?;
    // The library takes parts for granted that a client may leave out.
    let planned = AssertUnwindSafe(from_substrait_plan(&state, &plan)).catch_unwind().await;
    planned.unwrap_or_else(|_| Err(Error::user("it lacks a part that its other parts need").into()))
}
