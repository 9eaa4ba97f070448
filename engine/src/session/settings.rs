//! Settings of a session: `SET`, `RESET`, and the session options of Flight SQL.

use super::Session;
use crate::catalog::{CATALOG_NAME, INFORMATION_SCHEMA, SYSTEM_SCHEMA};
use crate::config::{BowshotOptions, ResultCompression};
use crate::coordinator::planner;
use crate::coordinator::query::QueryStream;
use crate::error::{Error, Result, from_datafusion};
use datafusion::common::config::{ConfigExtension, ExtensionOptions};
use datafusion::logical_expr::Statement as PlanStatement;
use datafusion::prelude::SessionConfig;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

/// Settings that a session may change; others could make an answer depend on them, or reach past the engine.
const SETTABLE: [&str; 6] = [
    "bowshot.",
    "datafusion.execution.batch_size",
    "datafusion.execution.time_zone",
    "datafusion.execution.parquet.pushdown_filters",
    "datafusion.execution.parquet.reorder_filters",
    "datafusion.optimizer.",
];

/// Settings with values that would make answers short, or planning endless.
const RANGES: [(&str, RangeInclusive<usize>); 2] =
    [("datafusion.execution.batch_size", 16..=1 << 20), ("datafusion.optimizer.max_passes", 1..=16)];

/// Set for single statements alone.
const OF_STATEMENTS: [&str; 2] = ["bowshot.cache_action", "bowshot.batch_rows"];

impl Session {
    /// Changes a setting, as `SET name = value` does. `catalog` and `schema` are names of their own.
    pub fn set_option(&self, name: &str, value: &str) -> Result<()> {
        let name = name.to_ascii_lowercase();
        let mut config = self.inner.config.lock();
        match name.as_str() {
            "catalog" if value == CATALOG_NAME => return Ok(()),
            "catalog" => return Err(Error::not_found(format!("there is no catalog '{value}': the one catalog is '{CATALOG_NAME}'"))),
            "schema" => {
                if !self.inner.coordinator.inner.snapshot().schemas.contains_key(value)
                    && ![SYSTEM_SCHEMA, INFORMATION_SCHEMA].contains(&value)
                {
                    return Err(Error::not_found(format!("there is no schema '{value}'")));
                }
                config.options_mut().catalog.default_schema = value.to_string();
                self.inner.changes.fetch_add(1, Ordering::AcqRel);
                return Ok(());
            }
            _ => {}
        }
        if !SETTABLE.iter().any(|prefix| name.starts_with(prefix))
            || name == "datafusion.optimizer.enable_round_robin_repartition"
            || name == "datafusion.optimizer.repartition_file_scans"
            || OF_STATEMENTS.contains(&name.as_str())
        {
            return Err(Error::user(format!("'{name}' is not a setting of a session; system.settings lists those that are")));
        }
        if !settable_values(&config).contains_key(&name) {
            return Err(Error::user(format!("'{name}' is not a setting; system.settings lists those there are")));
        }
        if let Some((_, range)) = RANGES.iter().find(|(ranged, _)| *ranged == name)
            && !value.trim().parse().is_ok_and(|value: usize| range.contains(&value))
        {
            let (least, most) = (range.start(), range.end());
            return Err(Error::user(format!("'{name}' takes a number from {least} to {most}, not '{value}'")));
        }
        config.options_mut().set(&name, value).map_err(|error| from_datafusion(&error))?;
        self.inner.changes.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// How its results are compressed.
    pub fn result_compression(&self) -> ResultCompression {
        let config = self.inner.config.lock();
        config.options().extensions.get::<BowshotOptions>().map(|options| options.result_compression).unwrap_or_default()
    }

    /// Settings of the session with their values.
    pub fn get_options(&self) -> BTreeMap<String, String> {
        let config = self.inner.config.lock();
        let mut options = settable_values(&config);
        options.insert("catalog".into(), CATALOG_NAME.into());
        options.insert("schema".into(), config.options().catalog.default_schema.clone());
        options
    }

    pub(super) fn change_session(&self, statement: PlanStatement) -> Result<QueryStream> {
        match statement {
            PlanStatement::SetVariable(set) => self.set_option(&set.variable, &set.value)?,
            PlanStatement::ResetVariable(reset) => {
                let default = planner::session_config(&self.inner.coordinator.inner.config.default_schema);
                let value = settable_values(&default).remove(&reset.variable);
                self.set_option(&reset.variable, &value.unwrap_or_default())?;
            }
            other => return Err(Error::user(format!("{} is not supported: every statement is its own transaction", other.name()))),
        }
        Ok(QueryStream::done(None))
    }
}

/// Settings that a session may change, with their values.
fn settable_values(config: &SessionConfig) -> BTreeMap<String, String> {
    let options = config.options();
    let own = options.extensions.get::<BowshotOptions>().map(|options| options.entries()).unwrap_or_default();
    // An extension lists its settings without its prefix.
    let own =
        own.into_iter().map(|entry| (format!("{}.{}", BowshotOptions::PREFIX, entry.key.trim_start_matches("bowshot.")), entry.value));
    let others = options.entries().into_iter().map(|entry| (entry.key, entry.value));
    own.chain(others)
        .filter(|(name, _)| SETTABLE.iter().any(|prefix| name.starts_with(prefix)) && !OF_STATEMENTS.contains(&name.as_str()))
        .map(|(name, value)| (name, value.unwrap_or_default()))
        .collect()
}
