//! The session's time zone on its way to workers. Functions that read times without a zone know it from the settings of the state that they are
//! registered with, and plans carry the names of functions alone.

use datafusion::common::Result;
use datafusion::common::config::ConfigExtension;
use datafusion::common::extensions_options;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::prelude::SessionConfig;
use std::sync::Arc;

/// The zone of sessions that set none; without one TIMESTAMP WITH TIME ZONE would be one without.
pub const DEFAULT: &str = "UTC";

extensions_options! {
    /// Travels in headers beside a plan.
    pub struct TimeZone {
        /// Name of the zone, as in `datafusion.execution.time_zone`; empty for none.
        pub name: String, default = DEFAULT.into()
    }
}

impl ConfigExtension for TimeZone {
    const PREFIX: &'static str = "bowshot_time_zone";
}

impl TimeZone {
    /// That of a session.
    pub fn of(config: &SessionConfig) -> Self {
        Self { name: config.options().execution.time_zone.clone().unwrap_or_default() }
    }
}

/// Gives a state the zone, and functions that know it. Only other zones than the default cost anything.
pub fn apply(state: &mut SessionState, zone: &TimeZone) -> Result<()> {
    let name = Some(zone.name.clone()).filter(|name| !name.is_empty());
    if state.config().options().execution.time_zone == name {
        return Ok(());
    }
    state.config_mut().options_mut().execution.time_zone = name;
    let options = state.config().options().clone();
    let updated: Vec<_> = state.scalar_functions().values().filter_map(|function| function.inner().with_updated_config(&options)).collect();
    for function in updated {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}
