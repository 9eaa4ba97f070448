//! Ids of the nodes' volumes.

use super::CatalogStore;
use crate::error::Result;
use rusqlite::{OptionalExtension, params};

impl CatalogStore {
    /// The id of a node's volume, if it ever had one.
    pub fn volume_id(&self, node: &str, volume: &str) -> Result<Option<String>> {
        let mut statement = self.connection.prepare_cached("SELECT volume_id FROM volumes WHERE node_id = ? AND volume = ?")?;
        Ok(statement.query_row(params![node, volume], |row| row.get(0)).optional()?)
    }

    /// Notes it, instead of what was known.
    pub fn note_volume(&self, node: &str, volume: &str, id: &str) -> Result<()> {
        self.connection.prepare_cached("INSERT OR REPLACE INTO volumes VALUES (?, ?, ?)")?.execute(params![node, volume, id])?;
        Ok(())
    }
}
