//! DataFusion alone, in this process, on all cores, with its defaults: over the files, or over tables in memory.

use super::{Engine, Run, write_answer};
use crate::{Outcome, cpu};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Instant;

/// A session over the files.
pub struct DataFusionEngine {
    in_memory: bool,
    context: SessionContext,
}

impl DataFusionEngine {
    /// Registers each table over the folders of all nodes; `in_memory` reads them first.
    pub async fn start(data: &Path, tables: &[&str], in_memory: bool) -> Outcome<Self> {
        let mut config = SessionConfig::new();
        // As Bowshot reads literals: otherwise Q6 compares decimals with doubles.
        config.options_mut().sql_parser.parse_float_as_decimal = true;
        let context = SessionContext::new_with_state(SessionStateBuilder::new().with_default_features().with_config(config).build());
        for table in tables {
            let mut folders = vec![];
            for node in std::fs::read_dir(data)? {
                let folder = node?.path().join(table);
                let holds_files = folder.is_dir()
                    && std::fs::read_dir(&folder)?
                        .flatten()
                        .any(|file| file.path().extension().is_some_and(|extension| extension == "parquet"));
                if holds_files {
                    folders.push(format!("{}/", folder.canonicalize()?.display()));
                }
            }
            let frame = context.read_parquet(folders, ParquetReadOptions::default()).await?;
            if in_memory {
                context.register_table(*table, frame.cache().await?.into_view())?;
            } else {
                context.register_table(*table, frame.into_view())?;
            }
        }
        Ok(Self { in_memory, context })
    }
}

impl Engine for DataFusionEngine {
    fn name(&self) -> &str {
        if self.in_memory { "datafusion-memory" } else { "datafusion" }
    }

    fn has_cold(&self) -> bool {
        !self.in_memory
    }

    fn cpu_seconds(&self) -> Option<f64> {
        cpu::of_this_process()
    }

    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>> {
        Box::pin(async move {
            let started = Instant::now();
            let frame = self.context.sql(sql).await?;
            let schema = std::sync::Arc::new(frame.schema().as_arrow().clone());
            let batches = frame.collect().await?;
            let elapsed = started.elapsed();
            let schema = batches.first().map_or(schema, |batch| batch.schema());
            write_answer(answer, &schema, &batches)?;
            Ok(Run::new(elapsed, batches.iter().map(|batch| batch.num_rows()).sum()))
        })
    }
}
