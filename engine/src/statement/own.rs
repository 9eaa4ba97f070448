//! Statements of our own, which DataFusion's parser does not know: `REFRESH TABLE`, `CACHE TABLE`, `UNCACHE TABLE`.

use crate::config::CacheAction;
use crate::error::{Error, Result};
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// A statement of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OwnStatement {
    /// `REFRESH TABLE t`: takes the files that are at its location now.
    Refresh(TableReference),
    /// `CACHE TABLE t [COLUMNS (a, b)]` or `UNCACHE TABLE t [COLUMNS (a, b)]`.
    Cache {
        /// Pin or drop.
        action: CacheAction,
        /// The table.
        table: TableReference,
        /// Columns; all of them when empty.
        columns: Vec<String>,
    },
}

/// The statement, if the text is one of ours.
pub fn parse(sql: &str) -> Result<Option<OwnStatement>> {
    let Some(verb) = sql.split_whitespace().next().map(str::to_ascii_uppercase) else { return Ok(None) };
    let usage = match verb.as_str() {
        "REFRESH" => "REFRESH TABLE <schema>.<table>",
        "CACHE" => "CACHE TABLE <schema>.<table> [COLUMNS (<column>, …)]",
        "UNCACHE" => "UNCACHE TABLE <schema>.<table> [COLUMNS (<column>, …)]",
        _ => return Ok(None),
    };
    let statement = read(sql, &verb).map_err(|error| {
        let what = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => "nested too deeply".into(),
        };
        Error::user(format!("{what}: write {usage}"))
    })?;
    Ok(Some(statement))
}

fn read(sql: &str, verb: &str) -> Result<OwnStatement, ParserError> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(sql)?;
    parser.next_token();
    let table_word = parser.next_token();
    if !is_word(&table_word.token, "TABLE") {
        return parser.expected("TABLE", table_word);
    }
    let mut names = vec![name(&mut parser)?];
    while parser.consume_token(&Token::Period) {
        names.push(name(&mut parser)?);
    }
    let table = match <[String; 1]>::try_from(names) {
        Ok([table]) => TableReference::bare(table),
        Err(names) => match names.as_slice() {
            [schema, table] => TableReference::partial(schema.as_str(), table.as_str()),
            [catalog, schema, table] => TableReference::full(catalog.as_str(), schema.as_str(), table.as_str()),
            _ => return Err(ParserError::ParserError(format!("a table name of {} parts", names.len()))),
        },
    };
    let mut columns = vec![];
    if verb != "REFRESH" && is_word(&parser.peek_token().token, "COLUMNS") {
        parser.next_token();
        parser.expect_token(&Token::LParen)?;
        columns.push(name(&mut parser)?);
        while parser.consume_token(&Token::Comma) {
            columns.push(name(&mut parser)?);
        }
        parser.expect_token(&Token::RParen)?;
    }
    while parser.consume_token(&Token::SemiColon) {}
    let rest = parser.next_token();
    if rest.token != Token::EOF {
        return parser.expected("the end of the statement", rest);
    }
    Ok(match verb {
        "REFRESH" => OwnStatement::Refresh(table),
        "CACHE" => OwnStatement::Cache { action: CacheAction::Pin, table, columns },
        _ => OwnStatement::Cache { action: CacheAction::Drop, table, columns },
    })
}

/// A name as DataFusion resolves it: lower case unless it is quoted.
fn name(parser: &mut Parser) -> Result<String, ParserError> {
    let ident = parser.parse_identifier()?;
    Ok(if ident.quote_style.is_some() { ident.value } else { ident.value.to_ascii_lowercase() })
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_of_our_own_are_told_from_others() {
        assert_eq!(parse("SELECT 1").unwrap(), None);
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(
            parse(" refresh  table Tpch.Orders ; ").unwrap(),
            Some(OwnStatement::Refresh(TableReference::partial("tpch", "orders")))
        );
        let cache = |action, table, columns: &[&str]| OwnStatement::Cache {
            action,
            table,
            columns: columns.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(parse("CACHE TABLE t").unwrap(), Some(cache(CacheAction::Pin, TableReference::bare("t"), &[])));
        assert_eq!(
            parse("cache table bowshot.s.\"T t\" columns (a, \"B c\");").unwrap(),
            Some(cache(CacheAction::Pin, TableReference::full("bowshot", "s", "T t"), &["a", "B c"]))
        );
        assert_eq!(
            parse("UNCACHE TABLE s.t COLUMNS (a)").unwrap(),
            Some(cache(CacheAction::Drop, TableReference::partial("s", "t"), &["a"]))
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_the_way_to_write_it() {
        for sql in
            ["CACHE t", "CACHE TABLE", "CACHE TABLE a.b.c.d", "CACHE TABLE t COLUMNS ()", "CACHE TABLE t COLUMNS (a", "CACHE TABLE t x"]
        {
            let error = parse(sql).unwrap_err().to_string();
            assert!(error.contains("write CACHE TABLE <schema>.<table> [COLUMNS (<column>, …)]"), "{sql}: {error}");
        }
        let error = parse("REFRESH TABLE t COLUMNS (a)").unwrap_err().to_string();
        assert!(error.contains("write REFRESH TABLE <schema>.<table>"), "{error}");
    }
}
