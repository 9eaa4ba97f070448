//! Writing one result in the wanted format.

use super::Format;
use super::standard_output::StandardOutput;
use super::table::{self, Style};
use crate::error::{Error, Result};
use crate::limits;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::{csv, ipc, json};
use parquet::arrow::ArrowWriter;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

type Target = Box<dyn Write + Send>;

/// A result on its way out.
pub struct Output {
    format: &'static str,
    writer: Writer,
    rows: u64,
}

enum Writer {
    Table {
        target: Target,
        schema: SchemaRef,
        style: Style,
        /// Rows that are kept for drawing; the rest is counted only.
        rows_max: usize,
        kept_rows: usize,
        batches: Vec<RecordBatch>,
    },
    Csv(Box<csv::Writer<Target>>),
    Json(Box<json::Writer<Target, JsonArray>>),
    Ndjson(Box<json::Writer<Target, LineDelimited>>),
    ArrowStream(Box<ipc::writer::StreamWriter<Target>>),
    ArrowFile(Box<ipc::writer::FileWriter<Target>>),
    Parquet(Box<ArrowWriter<Target>>),
}

impl Output {
    /// Starts the output of a result to a file or standard output.
    ///
    /// # Errors
    /// When the file cannot be created or the schema does not fit the format.
    pub fn new(format: Format, file: Option<&Path>, schema: &SchemaRef, style: Style, interactive: bool) -> Result<Self> {
        let target: Target = match file {
            Some(path) => {
                let file = File::create(path).map_err(|source| Error::file("create", path, source))?;
                Box::new(BufWriter::new(file))
            }
            None => Box::new(BufWriter::new(StandardOutput::new())),
        };
        let name = name_of(format);
        let wrong = |error: String| Error::Format { format: name, reason: error };
        let writer = match format {
            Format::Table => Writer::Table {
                target,
                schema: SchemaRef::clone(schema),
                style,
                rows_max: if interactive { limits::SHELL_ROWS_MAX } else { usize::MAX },
                kept_rows: 0,
                batches: Vec::new(),
            },
            Format::Csv => {
                let mut writer = csv::WriterBuilder::new().with_header(true).build(target);
                // Writes the header even when no rows follow.
                writer.write(&RecordBatch::new_empty(SchemaRef::clone(schema))).map_err(|error| wrong(error.to_string()))?;
                Writer::Csv(Box::new(writer))
            }
            Format::Json => Writer::Json(Box::new(json_builder().build(target))),
            Format::Ndjson => Writer::Ndjson(Box::new(json_builder().build(target))),
            Format::Arrow if file.is_some() => {
                Writer::ArrowFile(Box::new(ipc::writer::FileWriter::try_new(target, schema).map_err(|error| wrong(error.to_string()))?))
            }
            Format::Arrow => {
                Writer::ArrowStream(Box::new(ipc::writer::StreamWriter::try_new(target, schema).map_err(|error| wrong(error.to_string()))?))
            }
            Format::Parquet => Writer::Parquet(Box::new(
                ArrowWriter::try_new(target, SchemaRef::clone(schema), None).map_err(|error| wrong(error.to_string()))?,
            )),
        };
        Ok(Self { format: name, writer, rows: 0 })
    }

    /// Writes some rows.
    ///
    /// # Errors
    /// When the target or the format refuses.
    pub fn write(&mut self, batch: RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        let written = match &mut self.writer {
            Writer::Table { rows_max, kept_rows, batches, .. } => {
                let keep = batch.num_rows().min(*rows_max - *kept_rows);
                if keep > 0 {
                    *kept_rows += keep;
                    batches.push(batch.slice(0, keep));
                }
                Ok(())
            }
            Writer::Csv(writer) => writer.write(&batch),
            Writer::Json(writer) => writer.write(&batch),
            Writer::Ndjson(writer) => writer.write(&batch),
            Writer::ArrowStream(writer) => writer.write(&batch),
            Writer::ArrowFile(writer) => writer.write(&batch),
            Writer::Parquet(writer) => writer.write(&batch).map_err(ArrowError::from),
        };
        written.map_err(|error| failed(self.format, error))
    }

    /// Ends the output and answers how many rows the result had.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(self) -> Result<u64> {
        let format = self.format;
        let rows = self.rows;
        finish(self.writer, rows).map_err(|error| failed(format, error))?;
        Ok(rows)
    }
}

fn finish(writer: Writer, rows: u64) -> Result<(), ArrowError> {
    match writer {
        Writer::Table { mut target, schema, style, kept_rows, batches, .. } => {
            target.write_all(table::render(&schema, &batches, style)?.as_bytes())?;
            if (kept_rows as u64) < rows {
                writeln!(target, "the first {kept_rows} of {rows} rows; bowshot sql -c shows all")?;
            }
            target.flush()?;
        }
        Writer::Csv(writer) => writer.into_inner().flush()?,
        Writer::Json(mut writer) => {
            writer.finish()?;
            let mut target = writer.into_inner();
            writeln!(target)?;
            target.flush()?;
        }
        Writer::Ndjson(mut writer) => {
            writer.finish()?;
            writer.into_inner().flush()?;
        }
        Writer::ArrowStream(writer) => writer.into_inner()?.flush()?,
        Writer::ArrowFile(writer) => writer.into_inner()?.flush()?,
        Writer::Parquet(writer) => writer.into_inner()?.flush()?,
    }
    Ok(())
}

fn json_builder() -> json::WriterBuilder {
    // A missing key would leave the reader to guess that the column exists.
    json::WriterBuilder::new().with_explicit_nulls(true)
}

fn name_of(format: Format) -> &'static str {
    match format {
        Format::Table => "a table",
        Format::Csv => "CSV",
        Format::Json | Format::Ndjson => "JSON",
        Format::Arrow => "Arrow IPC",
        Format::Parquet => "Parquet",
    }
}

fn failed(format: &'static str, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => Error::Output { source },
        other => Error::Format { format, reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use std::sync::Arc;

    fn written(format: Format) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("result");
        let column: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
        let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
        let style = Style { width: None, unicode: false };
        let mut output = Output::new(format, Some(&file), &batch.schema(), style, false).unwrap();
        output.write(batch).unwrap();
        assert_eq!(output.finish().unwrap(), 2);
        std::fs::read(file).unwrap()
    }

    #[test]
    fn every_format_is_written_to_its_end() {
        let text = |format| String::from_utf8(written(format)).unwrap();
        assert_eq!(text(Format::Csv), "a\n1\n\"\"\n");
        assert_eq!(text(Format::Json), "[{\"a\":1},{\"a\":null}]\n");
        assert_eq!(text(Format::Ndjson), "{\"a\":1}\n{\"a\":null}\n");
        assert!(text(Format::Table).contains("| NULL |"));
        assert!(written(Format::Arrow).ends_with(b"ARROW1"));
        assert!(written(Format::Parquet).ends_with(b"PAR1"));
    }
}
