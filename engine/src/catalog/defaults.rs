//! DEFAULT expressions of columns, as the catalog keeps them.

use crate::error::{Error, Result, from_datafusion};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use datafusion::execution::{SessionStateBuilder, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion_proto::bytes::Serializeable;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

/// Knows the functions that an expression may name.
static FUNCTIONS: LazyLock<Arc<TaskContext>> = LazyLock::new(|| SessionStateBuilder::new().with_default_features().build().task_ctx());

/// Expressions by column, as text.
pub fn encode(defaults: &[(String, Expr)]) -> Result<BTreeMap<String, String>> {
    let encoded = defaults.iter().map(|(column, expr)| {
        let bytes = expr.to_bytes().map_err(|error| from_datafusion(&error))?;
        Ok((column.clone(), BASE64.encode(bytes)))
    });
    encoded.collect()
}

/// The expressions of [`encode`].
pub fn decode(defaults: &BTreeMap<String, String>) -> Result<BTreeMap<String, Expr>> {
    let damaged = |column: &str, why: String| Error::bug(format!("the catalog's default of column {column} is damaged: {why}"));
    let decoded = defaults.iter().map(|(column, text)| {
        let bytes = BASE64.decode(text).map_err(|error| damaged(column, error.to_string()))?;
        let expr = Expr::from_bytes_with_ctx(&bytes, &FUNCTIONS).map_err(|error| damaged(column, error.to_string()))?;
        Ok((column.clone(), expr))
    });
    decoded.collect()
}
