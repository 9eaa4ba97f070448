//! What the server can do, by the ids of the specification: all of them, since some drivers fail on a missing one.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow_flight::error::FlightError;
use arrow_flight::sql::SqlInfo as Id;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use std::collections::BTreeMap;

/// No limit is known, or the limit is that of the statement's length.
const UNLIMITED: i64 = 0;
/// Transactions: none. Anything else would make clients turn autocommit off.
const NO_TRANSACTIONS: i32 = 0;

/// Version of the Arrow library; the one pinned in the workspace.
const ARROW_VERSION: &str = "59.3";

/// The oldest release of Substrait whose plans are tested: that of DataFusion 48.
const SUBSTRAIT_MIN: &str = "0.62.0";

const NUMERIC_FUNCTIONS: [&str; 22] = [
    "ABS", "ACOS", "ASIN", "ATAN", "ATAN2", "CEIL", "COS", "COT", "DEGREES", "EXP", "FLOOR", "LN", "LOG", "LOG10", "PI", "POWER",
    "RADIANS", "RANDOM", "ROUND", "SIN", "SQRT", "TAN",
];
const STRING_FUNCTIONS: [&str; 17] = [
    "ASCII",
    "CHAR_LENGTH",
    "CHR",
    "CONCAT",
    "INITCAP",
    "LEFT",
    "LENGTH",
    "LOWER",
    "LPAD",
    "LTRIM",
    "REPEAT",
    "REPLACE",
    "REVERSE",
    "RIGHT",
    "RTRIM",
    "SUBSTRING",
    "UPPER",
];
const DATETIME_FUNCTIONS: [&str; 8] =
    ["CURRENT_DATE", "CURRENT_TIME", "DATE_BIN", "DATE_PART", "DATE_TRUNC", "EXTRACT", "NOW", "TO_TIMESTAMP"];
/// Words that are keywords here and not in SQL:2003.
const KEYWORDS: [&str; 5] = ["EXPLAIN", "ILIKE", "QUALIFY", "SHOW", "UNNEST"];

/// The schema of the answer.
pub fn schema() -> Schema {
    SqlInfoDataBuilder::schema().clone()
}

/// The facts with the given ids, or all for none. `substrait` is the newest release whose plans can be sent, if they can.
///
/// # Errors
/// A defect of ours only.
pub fn answer(ids: &[u32], substrait: Option<(u32, u32, u32)>) -> Result<RecordBatch, FlightError> {
    facts(substrait)?.record_batch(ids.iter().copied())
}

fn facts(substrait: Option<(u32, u32, u32)>) -> Result<SqlInfoData, FlightError> {
    let mut facts = SqlInfoDataBuilder::new();
    server(&mut facts, substrait);
    language(&mut facts);
    grammar(&mut facts);
    bounds(&mut facts);
    transactions(&mut facts);
    facts.build()
}

fn server(facts: &mut SqlInfoDataBuilder, substrait: Option<(u32, u32, u32)>) {
    facts.append(Id::FlightSqlServerName, "Bowshot");
    facts.append(Id::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    facts.append(Id::FlightSqlServerArrowVersion, ARROW_VERSION);
    facts.append(Id::FlightSqlServerReadOnly, false);
    facts.append(Id::FlightSqlServerSql, true);
    let (oldest, newest) = match substrait {
        Some((major, minor, patch)) => (SUBSTRAIT_MIN, format!("{major}.{minor}.{patch}")),
        None => Default::default(),
    };
    facts.append(Id::FlightSqlServerSubstrait, substrait.is_some());
    facts.append(Id::FlightSqlServerSubstraitMinVersion, oldest);
    facts.append(Id::FlightSqlServerSubstraitMaxVersion, newest.as_str());
    facts.append(Id::FlightSqlServerTransaction, NO_TRANSACTIONS);
    facts.append(Id::FlightSqlServerCancel, true);
    facts.append(Id::FlightSqlServerBulkIngestion, true);
    facts.append(Id::FlightSqlServerIngestTransactionsSupported, false);
    facts.append(Id::FlightSqlServerStatementTimeout, 0_i32);
    facts.append(Id::FlightSqlServerTransactionTimeout, 0_i32);
}

fn language(facts: &mut SqlInfoDataBuilder) {
    const LOWERCASE: i64 = 3;
    const CASE_SENSITIVE: i64 = 0;
    const NULLS_SORTED_HIGH: i64 = 0;
    facts.append(Id::SqlDdlCatalog, false);
    facts.append(Id::SqlDdlSchema, true);
    facts.append(Id::SqlDdlTable, true);
    facts.append(Id::SqlIdentifierCase, LOWERCASE);
    facts.append(Id::SqlIdentifierQuoteChar, "\"");
    facts.append(Id::SqlQuotedIdentifierCase, CASE_SENSITIVE);
    facts.append(Id::SqlAllTablesAreSelectable, true);
    facts.append(Id::SqlNullOrdering, NULLS_SORTED_HIGH);
    facts.append(Id::SqlKeywords, KEYWORDS.as_slice());
    facts.append(Id::SqlNumericFunctions, NUMERIC_FUNCTIONS.as_slice());
    facts.append(Id::SqlStringFunctions, STRING_FUNCTIONS.as_slice());
    facts.append(Id::SqlSystemFunctions, ["VERSION"].as_slice());
    facts.append(Id::SqlDatetimeFunctions, DATETIME_FUNCTIONS.as_slice());
    facts.append(Id::SqlSearchStringEscape, "\\");
    facts.append(Id::SqlExtraNameCharacters, "");
}

fn grammar(facts: &mut SqlInfoDataBuilder) {
    let no_conversions: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    facts.append(Id::SqlSupportsColumnAliasing, true);
    facts.append(Id::SqlNullPlusNullIsNull, true);
    facts.append(Id::SqlSupportsConvert, no_conversions);
    facts.append(Id::SqlSupportsTableCorrelationNames, true);
    facts.append(Id::SqlSupportsDifferentTableCorrelationNames, false);
    facts.append(Id::SqlSupportsExpressionsInOrderBy, true);
    facts.append(Id::SqlSupportsOrderByUnrelated, true);
    // Bit 0: columns that are not selected; bit 1: columns beyond the selected ones.
    facts.append(Id::SqlSupportedGroupBy, 0b11_i32);
    facts.append(Id::SqlSupportsLikeEscapeClause, true);
    facts.append(Id::SqlSupportsNonNullableColumns, true);
    // Bits 0 to 2: minimum, core and extended grammar.
    facts.append(Id::SqlSupportedGrammar, 0b011_i32);
    // Bit 0: entry level.
    facts.append(Id::SqlAnsi92SupportedLevel, 0b001_i32);
    facts.append(Id::SqlSupportsIntegrityEnhancementFacility, false);
    // Bit 2: full outer joins; bit 1: limited ones.
    facts.append(Id::SqlOuterJoinsSupportLevel, 0b110_i32);
    facts.append(Id::SqlSchemaTerm, "schema");
    facts.append(Id::SqlProcedureTerm, "procedure");
    facts.append(Id::SqlCatalogTerm, "catalog");
    facts.append(Id::SqlCatalogAtStart, true);
    facts.append(Id::SqlSchemasSupportedActions, 0_i32);
    facts.append(Id::SqlCatalogsSupportedActions, 0_i32);
    facts.append(Id::SqlSupportedPositionedCommands, 0_i32);
    facts.append(Id::SqlSelectForUpdateSupported, false);
    facts.append(Id::SqlStoredProceduresSupported, false);
    // In comparisons, EXISTS, IN and quantified ones.
    facts.append(Id::SqlSupportedSubqueries, 0b1111_i32);
    facts.append(Id::SqlCorrelatedSubqueriesSupported, true);
    // UNION and UNION ALL.
    facts.append(Id::SqlSupportedUnions, 0b11_i32);
}

fn bounds(facts: &mut SqlInfoDataBuilder) {
    for id in [
        Id::SqlMaxBinaryLiteralLength,
        Id::SqlMaxCharLiteralLength,
        Id::SqlMaxColumnNameLength,
        Id::SqlMaxColumnsInGroupBy,
        Id::SqlMaxColumnsInIndex,
        Id::SqlMaxColumnsInOrderBy,
        Id::SqlMaxColumnsInSelect,
        Id::SqlMaxColumnsInTable,
        Id::SqlMaxConnections,
        Id::SqlMaxCursorNameLength,
        Id::SqlMaxIndexLength,
        Id::SqlDbSchemaNameLength,
        Id::SqlMaxProcedureNameLength,
        Id::SqlMaxCatalogNameLength,
        Id::SqlMaxRowSize,
        Id::SqlMaxStatements,
        Id::SqlMaxTableNameLength,
        Id::SqlMaxTablesInSelect,
        Id::SqlMaxUsernameLength,
    ] {
        facts.append(id, UNLIMITED);
    }
    facts.append(Id::SqlMaxRowSizeIncludesBlobs, true);
    facts.append(Id::SqlMaxStatementLength, crate::limits::STATEMENT_BYTES_MAX as i64);
}

fn transactions(facts: &mut SqlInfoDataBuilder) {
    facts.append(Id::SqlDefaultTransactionIsolation, 0_i64);
    facts.append(Id::SqlTransactionsSupported, false);
    facts.append(Id::SqlSupportedTransactionsIsolationLevels, 1_i32);
    facts.append(Id::SqlDataDefinitionCausesTransactionCommit, false);
    facts.append(Id::SqlDataDefinitionsInTransactionsIgnored, true);
    // Bit 1: forward-only result sets, bit 0 of the next four: concurrency not specified or read-only.
    facts.append(Id::SqlSupportedResultSetTypes, 0b10_i32);
    facts.append(Id::SqlSupportedConcurrenciesForResultSetUnspecified, 0_i32);
    facts.append(Id::SqlSupportedConcurrenciesForResultSetForwardOnly, 0b10_i32);
    facts.append(Id::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0_i32);
    facts.append(Id::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0_i32);
    facts.append(Id::SqlBatchUpdatesSupported, true);
    facts.append(Id::SqlSavepointsSupported, false);
    facts.append(Id::SqlNamedParametersSupported, false);
    facts.append(Id::SqlLocatorsUpdateCopy, false);
    facts.append(Id::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, UInt32Array};

    #[test]
    fn every_id_of_the_specification_has_an_answer() {
        for substrait in [None, Some((0, 90, 1))] {
            let all = answer(&[], substrait).unwrap();
            let ids = all.column(0).as_any().downcast_ref::<UInt32Array>().unwrap();
            let known: Vec<u32> = (0..=11).chain(100..=101).chain(500..=576).collect();
            assert_eq!(ids.values().to_vec(), known);
        }
        assert_eq!(answer(&[0, 4], None).unwrap().num_rows(), 2);
        assert_eq!(answer(&[99_999], None).unwrap().num_rows(), 0);
    }
}
