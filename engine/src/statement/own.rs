//! Statements of our own, which DataFusion's parser does not know: `REFRESH TABLE`, `CACHE TABLE`, `UNCACHE TABLE`, `ALTER TABLE`,
//! `ALTER NODE`, `USE`, `COMMENT ON`.

use super::keys::{self, DeclaredKey};
use crate::catalog::location::valid_name;
use crate::config::CacheAction;
use crate::error::{Error, Result};
use crate::limits;
use datafusion::common::TableReference;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
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
    /// `ALTER TABLE t SET (replicas = 2, regions = 'eu, us')`; what is `None` stays.
    AlterTable {
        /// The table.
        table: TableReference,
        /// Copies of each file.
        replicas: Option<u32>,
        /// Regions that the rows never leave; empty for none.
        regions: Option<Vec<String>>,
    },
    /// `ALTER TABLE t ADD PRIMARY KEY (a)`, `ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (b)`.
    AddKey {
        /// The table.
        table: TableReference,
        /// What is declared.
        key: DeclaredKey,
    },
    /// `ALTER TABLE t DROP CONSTRAINT k`.
    DropKey {
        /// The table.
        table: TableReference,
        /// Name of the key.
        name: String,
        /// Whether it may be absent.
        if_exists: bool,
    },
    /// `COMMENT ON TABLE t IS 'text'`, `COMMENT ON COLUMN t.c IS NULL`.
    Comment {
        /// The table.
        table: TableReference,
        /// The column, if it is one's.
        column: Option<String>,
        /// The comment; `None` takes it away.
        text: Option<String>,
    },
    /// `USE s`, `USE c.s`, `USE SCHEMA s` or `USE CATALOG c`: what names without them mean from now on.
    Use {
        /// The catalog, if it is named.
        catalog: Option<String>,
        /// The schema, if it is named.
        schema: Option<String>,
    },
    /// `ALTER NODE n DRAIN`, `ALTER NODE n RESUME` or `ALTER NODE n SCRUB`.
    AlterNode {
        /// Node id.
        node: String,
        /// What it is to do.
        change: NodeChange,
    },
}

/// What a node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeChange {
    /// Be emptied.
    Drain,
    /// Stay.
    Resume,
    /// Read all that it keeps for the cluster again, to find changed bytes.
    Scrub,
}

/// The statement, if the text is one of ours.
pub fn parse(sql: &str) -> Result<Option<OwnStatement>> {
    let Some(verb) = sql.split_whitespace().next().map(str::to_ascii_uppercase) else { return Ok(None) };
    let usage = match verb.as_str() {
        "REFRESH" => "REFRESH TABLE <schema>.<table>",
        "CACHE" => "CACHE TABLE <schema>.<table> [COLUMNS (<column>, …)]",
        "UNCACHE" => "UNCACHE TABLE <schema>.<table> [COLUMNS (<column>, …)]",
        "COMMENT" => {
            "COMMENT ON TABLE <schema>.<table> IS '<text>', or COMMENT ON COLUMN <schema>.<table>.<column> IS '<text>'; NULL takes it away"
        }
        "USE" => "USE <schema>, USE <catalog>.<schema> or USE CATALOG <catalog>",
        "ALTER" => {
            "ALTER TABLE <schema>.<table> SET (replicas = <n>, regions = '<region>, …'), ADD [CONSTRAINT <key>] PRIMARY KEY (…) or FOREIGN KEY (…) REFERENCES <table> (…), DROP CONSTRAINT <key>, or ALTER NODE <node> DRAIN | RESUME | SCRUB"
        }
        _ => return Ok(None),
    };
    let statement = match verb.as_str() {
        "ALTER" => read_alter(sql),
        "USE" => read_use(sql),
        "COMMENT" => read_comment(sql),
        _ => read(sql, &verb),
    };
    let statement = statement.map_err(|error| {
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
    let table = table_name(&mut parser)?;
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
    end(&mut parser)?;
    Ok(match verb {
        "REFRESH" => OwnStatement::Refresh(table),
        "CACHE" => OwnStatement::Cache { action: CacheAction::Pin, table, columns },
        _ => OwnStatement::Cache { action: CacheAction::Drop, table, columns },
    })
}

fn read_comment(sql: &str) -> Result<OwnStatement, ParserError> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(sql)?;
    parser.next_token();
    let on = parser.next_token();
    if !is_word(&on.token, "ON") {
        return parser.expected("ON", on);
    }
    let what = parser.next_token();
    let of_column = is_word(&what.token, "COLUMN");
    if !of_column && !is_word(&what.token, "TABLE") {
        return parser.expected("TABLE or COLUMN", what);
    }
    let mut names = vec![name(&mut parser)?];
    while parser.consume_token(&Token::Period) {
        names.push(name(&mut parser)?);
    }
    let column = if of_column { names.pop() } else { None };
    let table = reference(names)?;
    let is = parser.next_token();
    if !is_word(&is.token, "IS") {
        return parser.expected("IS", is);
    }
    let text = parser.next_token();
    let text = match text.token {
        Token::SingleQuotedString(text) => Some(text),
        ref null if is_word(null, "NULL") => None,
        _ => return parser.expected("a text in single quotes, or NULL", text),
    };
    end(&mut parser)?;
    Ok(OwnStatement::Comment { table, column, text })
}

fn read_use(sql: &str) -> Result<OwnStatement, ParserError> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(sql)?;
    parser.next_token();
    let first = parser.peek_token().token;
    let named = [Token::SemiColon, Token::EOF, Token::Period].contains(&parser.peek_nth_token(1).token);
    // `USE catalog` is a schema of that name.
    let kind = ["CATALOG", "SCHEMA", "DATABASE"].into_iter().find(|kind| !named && is_word(&first, kind));
    if kind.is_some() {
        parser.next_token();
    }
    let mut names = vec![name(&mut parser)?];
    if kind != Some("CATALOG") && parser.consume_token(&Token::Period) {
        names.push(name(&mut parser)?);
    }
    end(&mut parser)?;
    let last = names.pop();
    Ok(match kind {
        Some("CATALOG") => OwnStatement::Use { catalog: last, schema: None },
        _ => OwnStatement::Use { catalog: names.pop(), schema: last },
    })
}

fn read_alter(sql: &str) -> Result<OwnStatement, ParserError> {
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(sql)?;
    parser.next_token();
    let what = parser.next_token();
    if is_word(&what.token, "NODE") {
        let node = match parser.peek_token().token {
            Token::SingleQuotedString(_) => parser.parse_literal_string()?,
            _ => node_name(&mut parser)?,
        };
        let verb = parser.next_token();
        let changes = [("DRAIN", NodeChange::Drain), ("RESUME", NodeChange::Resume), ("SCRUB", NodeChange::Scrub)];
        let Some((_, change)) = changes.into_iter().find(|(word, _)| is_word(&verb.token, word)) else {
            return parser.expected("DRAIN, RESUME or SCRUB", verb);
        };
        end(&mut parser)?;
        return Ok(OwnStatement::AlterNode { node, change });
    }
    if !is_word(&what.token, "TABLE") {
        return parser.expected("TABLE or NODE", what);
    }
    let table = table_name(&mut parser)?;
    let set = parser.next_token();
    if is_word(&set.token, "ADD") {
        let Some(constraint) = parser.parse_optional_table_constraint()? else {
            let next = parser.next_token();
            return parser.expected("PRIMARY KEY or FOREIGN KEY", next);
        };
        let key = keys::from_constraint(constraint)?;
        end(&mut parser)?;
        return Ok(OwnStatement::AddKey { table, key });
    }
    if is_word(&set.token, "DROP") {
        let constraint = parser.next_token();
        if !is_word(&constraint.token, "CONSTRAINT") {
            return parser.expected("CONSTRAINT", constraint);
        }
        let if_exists = parser.parse_keywords(&[Keyword::IF, Keyword::EXISTS]);
        let name = name(&mut parser)?;
        end(&mut parser)?;
        return Ok(OwnStatement::DropKey { table, name, if_exists });
    }
    if !is_word(&set.token, "SET") {
        return parser.expected("SET, ADD or DROP", set);
    }
    parser.expect_token(&Token::LParen)?;
    let (mut replicas, mut regions) = (None, None);
    loop {
        let property = name(&mut parser)?;
        parser.expect_token(&Token::Eq)?;
        let value = parser.next_token();
        let text = match &value.token {
            Token::Number(text, _) | Token::SingleQuotedString(text) => text.clone(),
            _ => return parser.expected("a number or a text in single quotes", value),
        };
        match property.as_str() {
            "replicas" => replicas = Some(parse_replicas(&text)?),
            "regions" => regions = Some(parse_regions(&text)?),
            other => return Err(ParserError::ParserError(format!("a table has no property '{other}'"))),
        }
        if !parser.consume_token(&Token::Comma) {
            break;
        }
    }
    parser.expect_token(&Token::RParen)?;
    end(&mut parser)?;
    Ok(OwnStatement::AlterTable { table, replicas, regions })
}

/// How many copies a table's files have: 1 to [`limits::REPLICAS_MAX`].
pub fn parse_replicas(text: &str) -> Result<u32, ParserError> {
    let wrong = || ParserError::ParserError(format!("replicas cannot be '{text}': a whole number from 1 to {}", limits::REPLICAS_MAX));
    text.trim().parse().ok().filter(|replicas| (1..=limits::REPLICAS_MAX).contains(replicas)).ok_or_else(wrong)
}

/// Region labels between commas; none in an empty text.
pub fn parse_regions(text: &str) -> Result<Vec<String>, ParserError> {
    let mut regions: Vec<String> = text.split(',').map(|region| region.trim().to_string()).filter(|region| !region.is_empty()).collect();
    regions.sort();
    regions.dedup();
    match regions.iter().find(|region| !valid_name(region)) {
        Some(region) => Err(ParserError::ParserError(format!("'{region}' is no region: lower-case letters, digits, '-' and '_'"))),
        None => Ok(regions),
    }
}

/// Node ids have dashes, which no plain identifier has: `node-1` need not be quoted here.
fn node_name(parser: &mut Parser) -> Result<String, ParserError> {
    let mut node = name(parser)?;
    loop {
        let next = parser.peek_token_no_skip();
        match next.token {
            Token::Minus => node.push('-'),
            Token::Number(text, _) => node.push_str(&text),
            Token::Word(word) => node.push_str(&word.value),
            _ => return Ok(node),
        }
        parser.next_token_no_skip();
    }
}

fn table_name(parser: &mut Parser) -> Result<TableReference, ParserError> {
    let mut names = vec![name(parser)?];
    while parser.consume_token(&Token::Period) {
        names.push(name(parser)?);
    }
    reference(names)
}

fn reference(names: Vec<String>) -> Result<TableReference, ParserError> {
    match <[String; 1]>::try_from(names) {
        Ok([table]) => Ok(TableReference::bare(table)),
        Err(names) => match names.as_slice() {
            [schema, table] => Ok(TableReference::partial(schema.as_str(), table.as_str())),
            [catalog, schema, table] => Ok(TableReference::full(catalog.as_str(), schema.as_str(), table.as_str())),
            _ => Err(ParserError::ParserError(format!("a table name of {} parts", names.len()))),
        },
    }
}

fn end(parser: &mut Parser) -> Result<(), ParserError> {
    while parser.consume_token(&Token::SemiColon) {}
    let rest = parser.next_token();
    if rest.token == Token::EOF { Ok(()) } else { parser.expected("the end of the statement", rest) }
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
    fn tables_and_columns_are_commented() {
        let of = |table, column: Option<&str>, text: Option<&str>| {
            Some(OwnStatement::Comment { table, column: column.map(Into::into), text: text.map(Into::into) })
        };
        let table = TableReference::partial("s", "t");
        assert_eq!(parse("COMMENT ON TABLE S.T IS 'it''s a table';").unwrap(), of(table.clone(), None, Some("it's a table")));
        assert_eq!(parse("comment on column s.t.\"C\" is null").unwrap(), of(table, Some("C"), None));
        assert_eq!(parse("COMMENT ON COLUMN t.c IS ''").unwrap(), of(TableReference::bare("t"), Some("c"), Some("")));
        for sql in ["COMMENT ON COLUMN c IS 'x'", "COMMENT ON TABLE t", "COMMENT ON VIEW v IS 'x'", "COMMENT ON TABLE t IS x"] {
            assert!(parse(sql).unwrap_err().to_string().contains("write COMMENT ON TABLE"), "{sql}");
        }
    }

    #[test]
    fn schemas_are_used() {
        let of = |catalog: Option<&str>, schema: Option<&str>| {
            Some(OwnStatement::Use { catalog: catalog.map(Into::into), schema: schema.map(Into::into) })
        };
        for (sql, expected) in [
            ("USE tpch", of(None, Some("tpch"))),
            ("use \"T\";", of(None, Some("T"))),
            ("USE bowshot.Tpch", of(Some("bowshot"), Some("tpch"))),
            ("USE SCHEMA s", of(None, Some("s"))),
            ("USE DATABASE s", of(None, Some("s"))),
            ("USE CATALOG bowshot", of(Some("bowshot"), None)),
            ("USE schema", of(None, Some("schema"))),
        ] {
            assert_eq!(parse(sql).unwrap(), expected, "{sql}");
        }
        assert!(parse("USE a.b.c").unwrap_err().to_string().contains("write USE <schema>"));
    }

    #[test]
    fn tables_and_nodes_are_altered() {
        let alter = |replicas, regions: Option<&[&str]>| {
            let regions = regions.map(|regions| regions.iter().map(ToString::to_string).collect());
            Some(OwnStatement::AlterTable { table: TableReference::partial("s", "t"), replicas, regions })
        };
        assert_eq!(parse("ALTER TABLE s.t SET (replicas = 2)").unwrap(), alter(Some(2), None));
        assert_eq!(parse("alter table S.T set (regions = 'us, eu', REPLICAS = '3');").unwrap(), alter(Some(3), Some(&["eu", "us"])));
        assert_eq!(parse("ALTER TABLE s.t SET (regions = '')").unwrap(), alter(None, Some(&[])));
        let node = |node: &str, change| Some(OwnStatement::AlterNode { node: node.into(), change });
        assert_eq!(parse("ALTER NODE node-2 DRAIN").unwrap(), node("node-2", NodeChange::Drain));
        assert_eq!(parse("alter node eu-west-1a_7 resume;").unwrap(), node("eu-west-1a_7", NodeChange::Resume));
        assert_eq!(parse("ALTER NODE 'node-2' RESUME").unwrap(), node("node-2", NodeChange::Resume));
        for sql in [
            "ALTER TABLE t SET (replicas = 0)",
            "ALTER TABLE t SET (replicas = 'many')",
            "ALTER TABLE t SET (regions = 'E U')",
            "ALTER TABLE t SET (colour = 1)",
            "ALTER TABLE t ADD COLUMN x INT",
            "ALTER NODE n",
            "ALTER VIEW v",
        ] {
            assert!(parse(sql).unwrap_err().to_string().contains("write ALTER TABLE"), "{sql}");
        }
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
