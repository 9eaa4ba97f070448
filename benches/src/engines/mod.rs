//! The engines: each answers one query, writes its answer to a file and says how long the answer took.

mod ballista;
mod bowshot;
mod datafusion;
mod embedded;
mod peer;

pub use ballista::{BALLISTA, BallistaEngine};
pub use bowshot::{ADAPTIVE, BowshotEngine, collect};
pub use datafusion::DataFusionEngine;
pub use embedded::{EMBEDDED, EmbeddedEngine};
pub use peer::PeerEngine;

use crate::{Outcome, cpu};
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::FileWriter;
use arrow::record_batch::RecordBatch;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

/// One run of one query.
#[derive(Debug, Clone)]
pub struct Run {
    /// From sending the SQL text to holding the last row, in seconds.
    pub seconds: f64,
    /// Rows of the answer.
    pub rows: usize,
    /// Used for it by all processes of the engine, its client not counted; absent where nobody measured.
    pub cpu_seconds: Option<f64>,
}

impl Run {
    fn new(elapsed: Duration, rows: usize) -> Self {
        Self { seconds: elapsed.as_secs_f64(), rows, cpu_seconds: None }
    }
}

/// A running engine over the same files as the others.
pub trait Engine {
    /// Its name in the report.
    fn name(&self) -> &str;
    /// Whether its first runs count: not for an engine that was loaded beforehand.
    fn has_cold(&self) -> bool {
        true
    }
    /// CPU seconds that all its processes have used so far, where the system tells.
    fn cpu_seconds(&self) -> Option<f64>;
    /// Runs `sql` and writes the answer to `answer` as an Arrow file, outside the measured time.
    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>>;
}

/// A run with its CPU seconds, those of what it leaves behind included.
pub async fn run_metered(engine: &mut dyn Engine, sql: &str, answer: &Path) -> Outcome<Run> {
    let before = engine.cpu_seconds();
    let run = engine.run(sql, answer).await?;
    tokio::time::sleep(cpu::SETTLING).await;
    let cpu_seconds = before.zip(engine.cpu_seconds()).map(|(before, after)| after - before);
    Ok(Run { cpu_seconds, ..run })
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
