//! The table: its columns, and batches of them.

use super::hit::{DAY_SECONDS, FIRST_DAY, Hit};
use super::words::PHONE_MODELS;
use crate::error::{Error, Result};
use crate::parts::{Batches, PartedTable, numbered_rows, row_numbers};
use arrow::array::{ArrayRef, Date32Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use std::sync::Arc;

/// The table's name.
pub const TABLE: &str = "hits";

/// Columns of many distinct values, for which a dictionary would only be tried and given up.
const PLAIN_COLUMNS: [&str; 9] = ["watchid", "title", "eventtime", "clientip", "userid", "url", "referer", "refererhash", "urlhash"];

/// The table at a size.
pub(super) struct HitsTable {
    pub(super) rows: usize,
}

/// The schema as the files hold it: ClickBench's names in lower case, as unquoted names are read, and no nulls.
///
/// # Errors
/// [`Error::Columns`], if the columns did not make a batch.
pub fn schema() -> Result<SchemaRef> {
    Ok(batch(&[]).map_err(|source| Error::Columns { table: TABLE.to_string(), source })?.schema())
}

impl PartedTable for HitsTable {
    fn name(&self) -> &str {
        TABLE
    }

    fn scale(&self) -> f64 {
        self.rows as f64
    }

    fn schema(&self) -> Result<SchemaRef> {
        schema()
    }

    fn has_dictionary(&self, column: &str) -> bool {
        !PLAIN_COLUMNS.contains(&column)
    }

    fn expected_rows(&self, part: usize, parts: usize) -> Result<usize> {
        Ok(row_numbers(self.rows, part, parts).len())
    }

    fn rows(&self, part: usize, parts: usize) -> Result<Batches> {
        let rows = self.rows;
        let build = move |numbers: &mut dyn Iterator<Item = usize>| batch(&numbers.map(|row| Hit::of(row, rows)).collect::<Vec<_>>());
        Ok(numbered_rows(TABLE, row_numbers(rows, part, parts), build))
    }
}

fn batch(hits: &[Hit]) -> std::result::Result<RecordBatch, ArrowError> {
    let int16 = |value: fn(&Hit) -> i16| Arc::new(Int16Array::from_iter_values(hits.iter().map(value))) as ArrayRef;
    let int32 = |value: fn(&Hit) -> i32| Arc::new(Int32Array::from_iter_values(hits.iter().map(value))) as ArrayRef;
    let int64 = |value: fn(&Hit) -> i64| Arc::new(Int64Array::from_iter_values(hits.iter().map(value))) as ArrayRef;
    let text = |push: fn(&Hit, &mut String)| {
        let mut column = StringBuilder::new();
        let mut value = String::new();
        for hit in hits {
            value.clear();
            push(hit, &mut value);
            column.append_value(&value);
        }
        Arc::new(column.finish()) as ArrayRef
    };
    let microseconds = hits.iter().map(|hit| (i64::from(FIRST_DAY) * DAY_SECONDS + hit.seconds) * 1_000_000);
    let days = hits.iter().map(|hit| FIRST_DAY + (hit.seconds / DAY_SECONDS) as i32);
    let columns = vec![
        ("watchid", int64(|hit| hit.watch)),
        ("title", text(|hit, out| hit.page.push_title(out))),
        ("eventtime", Arc::new(TimestampMicrosecondArray::from_iter_values(microseconds))),
        ("eventdate", Arc::new(Date32Array::from_iter_values(days))),
        ("counterid", int32(|hit| hit.page.counter())),
        ("clientip", int32(|hit| hit.ip)),
        ("regionid", int32(|hit| hit.user.region)),
        ("userid", int64(|hit| hit.user.id)),
        ("url", text(|hit, out| hit.page.push_url(out))),
        ("referer", text(|hit, out| hit.referer.push_url(out))),
        ("isrefresh", int16(|hit| hit.is_refresh.into())),
        ("resolutionwidth", int16(|hit| hit.user.resolution_width)),
        ("windowclientwidth", int16(|hit| hit.window.0)),
        ("windowclientheight", int16(|hit| hit.window.1)),
        ("mobilephone", int16(|hit| hit.user.phone.map_or(0, |(maker, _)| maker))),
        (
            "mobilephonemodel",
            text(|hit, out| {
                if let Some((_, model)) = hit.user.phone {
                    out.push_str(PHONE_MODELS[model]);
                }
            }),
        ),
        ("traficsourceid", int16(|hit| hit.traffic_source)),
        ("searchengineid", int16(|hit| hit.search_engine)),
        ("searchphrase", text(Hit::push_phrase)),
        ("advengineid", int16(|hit| hit.advertiser)),
        ("islink", int16(|hit| hit.is_link.into())),
        ("isdownload", int16(|hit| hit.is_download.into())),
        ("dontcounthits", int16(|hit| hit.dont_count.into())),
        ("refererhash", int64(|hit| hit.referer.hash())),
        ("urlhash", int64(|hit| hit.page.url_hash())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, false)))
}
