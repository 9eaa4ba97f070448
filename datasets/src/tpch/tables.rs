//! The tables: their schemas, sizes and row generators.

use crate::error::{Error, Result};
use crate::parts::{BATCH_ROWS, Batches, PartedTable};
use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use std::sync::Arc;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
    SupplierGenerator,
};
use tpchgen_arrow::{CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow};

/// The tables, largest first: a queue in this order keeps several threads busy to the end.
pub const TABLES: [&str; 8] = ["lineitem", "orders", "partsupp", "part", "customer", "supplier", "nation", "region"];

/// Columns with few distinct values, which a dictionary makes small; all others are written plain.
const DICTIONARY_COLUMNS: [&str; 22] = [
    "l_linenumber",
    "l_quantity",
    "l_discount",
    "l_tax",
    "l_returnflag",
    "l_linestatus",
    "l_shipdate",
    "l_commitdate",
    "l_receiptdate",
    "l_shipinstruct",
    "l_shipmode",
    "o_orderstatus",
    "o_orderdate",
    "o_orderpriority",
    "o_shippriority",
    "p_mfgr",
    "p_brand",
    "p_type",
    "p_size",
    "p_container",
    "c_mktsegment",
    "c_nationkey",
];

/// One of the tables at a scale.
struct TpchTable {
    name: String,
    scale: f64,
}

/// A table of TPC-H at a scale, to be generated.
///
/// # Errors
/// [`Error::UnknownTable`], [`Error::Parameter`].
pub(super) fn parted(table: &str, scale: f64) -> Result<Arc<dyn PartedTable>> {
    if !(scale.is_finite() && scale > 0.0 && scale <= 100_000.0) {
        return Err(Error::Parameter { parameter: "scale", value: scale.to_string(), expected: "above 0 and at most 100000" });
    }
    schema(table)?;
    Ok(Arc::new(TpchTable { name: table.to_string(), scale }))
}

impl PartedTable for TpchTable {
    fn name(&self) -> &str {
        &self.name
    }

    fn scale(&self) -> f64 {
        self.scale
    }

    fn schema(&self) -> Result<SchemaRef> {
        schema(&self.name)
    }

    fn has_dictionary(&self, column: &str) -> bool {
        DICTIONARY_COLUMNS.contains(&column)
    }

    fn is_undivided(&self) -> bool {
        matches!(self.name.as_str(), "nation" | "region")
    }

    // The generator counts parts in 32 bits; their number is bounded far below.

    fn expected_rows(&self, part: usize, parts: usize) -> Result<usize> {
        expected_rows(&self.name, self.scale, part as i32, parts as i32)
    }

    fn rows(&self, part: usize, parts: usize) -> Result<Batches> {
        rows(&self.name, self.scale, part as i32, parts as i32)
    }
}

/// The schema of a table as its files hold it: 64-bit keys, `Decimal128(15, 2)`, `Date32`, plain `Utf8`, no nulls.
///
/// # Errors
/// [`Error::UnknownTable`].
pub fn schema(table: &str) -> Result<SchemaRef> {
    let generated = match table {
        "lineitem" => LineItemArrow::schema_ref(),
        "orders" => OrderArrow::schema_ref(),
        "partsupp" => PartSuppArrow::schema_ref(),
        "part" => PartArrow::schema_ref(),
        "customer" => CustomerArrow::schema_ref(),
        "supplier" => SupplierArrow::schema_ref(),
        "nation" => NationArrow::schema_ref(),
        "region" => RegionArrow::schema_ref(),
        _ => return Err(unknown(table)),
    };
    let fields: Vec<Field> = generated
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            // Views are a form for memory; every reader understands plain strings.
            DataType::Utf8View => field.as_ref().clone().with_data_type(DataType::Utf8),
            _ => field.as_ref().clone(),
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Rows of one part; for lineitem an estimate within one percent above, since orders have 1 to 7 lines at random.
///
/// # Errors
/// [`Error::UnknownTable`].
fn expected_rows(table: &str, scale: f64, part: i32, parts: i32) -> Result<usize> {
    let rows = match table {
        "lineitem" => {
            let orders = OrderGenerator::calculate_row_count(scale, part, parts);
            orders * 4 + orders / 25
        }
        "orders" => OrderGenerator::calculate_row_count(scale, part, parts),
        "partsupp" => PartSuppGenerator::calculate_row_count(scale, part, parts) * 4,
        "part" => PartGenerator::calculate_row_count(scale, part, parts),
        "customer" => CustomerGenerator::calculate_row_count(scale, part, parts),
        "supplier" => SupplierGenerator::calculate_row_count(scale, part, parts),
        "nation" => 25,
        "region" => 5,
        _ => return Err(unknown(table)),
    };
    Ok(usize::try_from(rows).unwrap_or(0))
}

/// The rows of part `part` of `parts` (counted from 1) of a table.
///
/// # Errors
/// [`Error::UnknownTable`].
fn rows(table: &str, scale: f64, part: i32, parts: i32) -> Result<Batches> {
    macro_rules! generate {
        ($arrow:ident, $generator:ident) => {
            Box::new($arrow::new($generator::new(scale, part, parts)).with_batch_size(BATCH_ROWS))
        };
    }
    let generated: Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send> = match table {
        "lineitem" => generate!(LineItemArrow, LineItemGenerator),
        "orders" => generate!(OrderArrow, OrderGenerator),
        "partsupp" => generate!(PartSuppArrow, PartSuppGenerator),
        "part" => generate!(PartArrow, PartGenerator),
        "customer" => generate!(CustomerArrow, CustomerGenerator),
        "supplier" => generate!(SupplierArrow, SupplierGenerator),
        "nation" => generate!(NationArrow, NationGenerator),
        "region" => generate!(RegionArrow, RegionGenerator),
        _ => return Err(unknown(table)),
    };
    let schema = schema(table)?;
    let table = table.to_string();
    Ok(Box::new(generated.map(move |batch| {
        batch.and_then(|batch| with_plain_strings(&batch, &schema)).map_err(|source| Error::Columns { table: table.clone(), source })
    })))
}

fn with_plain_strings(batch: &RecordBatch, schema: &SchemaRef) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(schema.fields())
        .map(|(column, field)| cast(column, field.data_type()))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), columns)
}

fn unknown(table: &str) -> Error {
    Error::UnknownTable { table: table.to_string(), known: TABLES.join(", ") }
}
