//! The engines: each answers one query, writes its answer to a file and says how long the answer took.

mod bowshot;
mod datafusion;
mod embedded;
mod peer;

pub use bowshot::{BowshotEngine, collect};
pub use datafusion::DataFusionEngine;
pub use embedded::{EMBEDDED, EmbeddedEngine};
pub use peer::PeerEngine;

use crate::Outcome;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

/// One run of one query.
#[derive(Debug, Clone)]
pub struct Run {
    /// From sending the SQL text to holding the last row, in seconds.
    pub seconds: f64,
    /// Rows of the answer.
    pub rows: usize,
}

/// A running engine over the same files as the others.
pub trait Engine {
    /// Its name in the report.
    fn name(&self) -> &str;
    /// Whether its first runs count: not for an engine that was loaded beforehand.
    fn has_cold(&self) -> bool {
        true
    }
    /// Runs `sql` and writes the answer to `answer` as an Arrow file, outside the measured time.
    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>>;
}

/// Writes an answer for the comparison.
fn write_answer(path: &Path, schema: &SchemaRef, batches: &[RecordBatch]) -> Outcome<()> {
    let mut writer = FileWriter::try_new(std::fs::File::create(path)?, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    Ok(())
}
