//! Results that nobody reads: while others wait for the places of such a query, it may keep them for a bounded time only.

use super::CoordinatorInner;
use crate::error::{Error, ErrorClass};
use crate::limits;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Waits until a client has taken nothing for too long. Never, if the setting is 0.
pub(super) async fn too_long(inner: &Arc<CoordinatorInner>) -> Error {
    let limit = match inner.config.query.unread_ms {
        0 => return std::future::pending().await,
        limit => Duration::from_millis(limit),
    };
    let start = Instant::now();
    loop {
        tokio::time::sleep(limits::UNREAD_LOOK_INTERVAL.min(limit)).await;
        if start.elapsed() >= limit && (inner.task_places.are_wanted() || inner.admission.are_wanted()) {
            return Error::new(
                ErrorClass::Resource,
                format!(
                    "the client took no rows of the result for {} ms while other queries waited for its places (coordinator.query.unread_ms): the query was ended; fetch without long breaks, ask for less, or store the result in a table",
                    limit.as_millis()
                ),
            );
        }
    }
}
