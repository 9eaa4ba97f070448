//! Bounds on a statement, checked before any parser or planner recurses over it.
//!
//! Each level of an expression takes a token: a bracket or CASE that is not closed yet, or an operator or keyword of an item that has not ended. So what
//! is open at one place is never deeper than its tokens on the way there. They are counted as the parser reads them, which knows `$$'$$` and `E'\''`.
//! Items end at commas, clauses, joins, AND and OR, chains of which the planner takes as they are; those have bounds of their own.

use super::syntax::folded;
use crate::error::{Error, Result, from_datafusion};
use crate::limits;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{self, Visit};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// Refuses statements that are too long, too deep, or have chains of operators that build too deep a tree. Says how deep the deepest item is.
pub fn check(sql: &str) -> Result<usize> {
    if sql.len() > limits::SQL_BYTES_MAX {
        return Err(Error::user(format!("the statement has {} bytes, more than the limit of {}", sql.len(), limits::SQL_BYTES_MAX)));
    }
    // What is no sequence of tokens is refused by the parser, with its place.
    let Ok(tokens) = Tokenizer::new(&GenericDialect {}, sql).tokenize() else { return Ok(0) };
    let mut open = Open::default();
    tokens.iter().try_for_each(|token| open.add(token))?;
    Ok(open.deepest)
}

/// What is open at one place of a statement.
#[derive(Default)]
struct Open {
    outer: Vec<Level>,
    level: Level,
    /// Operators and keywords of all items that are open.
    path: usize,
    deepest: usize,
    operators: usize,
    set_operations: usize,
}

/// Within one bracket or CASE.
#[derive(Default)]
struct Level {
    is_case: bool,
    /// Operators and keywords of the present item.
    chain: usize,
    /// BETWEEN whose AND is still to come.
    between: usize,
    /// AND, OR and joins so far.
    links: usize,
}

impl Open {
    fn add(&mut self, token: &Token) -> Result<()> {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => self.begin(false),
            Token::RParen | Token::RBracket | Token::RBrace => {
                while self.level.is_case {
                    self.end();
                }
                self.end();
            }
            Token::Comma | Token::SemiColon => {
                self.operators += 1;
                self.next_item();
            }
            Token::Word(word) if word.quote_style.is_none() => self.add_keyword(word.keyword),
            // Other kinds of strings count as operators: nobody writes many in one chain.
            Token::Whitespace(_)
            | Token::EOF
            | Token::Period
            | Token::Placeholder(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Word(_) => {}
            _ => {
                self.operators += 1;
                self.grow();
            }
        }
        let exceeded = [
            (self.outer.len(), limits::SQL_DEPTH_MAX, "nested parentheses and CASE"),
            (self.path, limits::SQL_CHAIN_MAX, "operators and keywords in one chain"),
            (self.level.links, limits::SQL_LINKS_MAX, "AND, OR and JOIN in one chain"),
            (self.operators, limits::SQL_OPERATORS_MAX, "operators and list items"),
            (self.set_operations, limits::SQL_SET_OPERATIONS_MAX, "set operations"),
        ];
        for (count, limit, what) in exceeded {
            if count > limit {
                return Err(Error::user(format!("the statement has more than {limit} {what}: split it, or put long lists into a table")));
            }
        }
        Ok(())
    }

    fn add_keyword(&mut self, keyword: Keyword) {
        match keyword {
            Keyword::NoKeyword => {}
            Keyword::CASE => self.begin(true),
            Keyword::END if self.level.is_case => self.end(),
            Keyword::BETWEEN => {
                self.level.between += 1;
                self.grow();
            }
            Keyword::AND if self.level.between > 0 => {
                self.level.between -= 1;
                self.grow();
            }
            Keyword::AND | Keyword::OR | Keyword::JOIN => {
                self.level.links += 1;
                self.operators += 1;
                self.next_item();
            }
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS => {
                self.set_operations += 1;
                self.next_item();
                self.level.links = 0;
            }
            Keyword::SELECT | Keyword::FROM | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER | Keyword::LIMIT => {
                self.next_item();
            }
            Keyword::WHEN | Keyword::THEN | Keyword::ELSE if self.level.is_case => self.next_item(),
            _ => self.grow(),
        }
    }

    fn begin(&mut self, is_case: bool) {
        self.grow();
        self.outer.push(std::mem::replace(&mut self.level, Level { is_case, ..Level::default() }));
    }

    fn end(&mut self) {
        self.path -= self.level.chain;
        self.level = self.outer.pop().unwrap_or_default();
    }

    fn next_item(&mut self) {
        self.path -= self.level.chain;
        (self.level.chain, self.level.between) = (0, 0);
    }

    fn grow(&mut self) {
        self.level.chain += 1;
        self.path += 1;
        self.deepest = self.deepest.max(self.path);
    }
}

/// Refuses WITH queries that double what they name over and over: the planner walks through all of it.
pub fn check_names(statement: &ast::Statement) -> Result<()> {
    match statement.visit(&mut Named::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// How many relations each open query names, with those within the WITH queries that it names.
#[derive(Default)]
struct Named {
    open: Vec<OpenQuery>,
    with_queries: usize,
}

struct OpenQuery {
    relations: usize,
    /// Of the WITH queries that ended.
    known: HashMap<String, usize>,
    /// Those that are still to come, by where they are.
    coming: Vec<(*const ast::Query, String)>,
}

impl ast::Visitor for Named {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        let with = query.with.iter().flat_map(|with| &with.cte_tables);
        let coming: Vec<_> = with.map(|cte| (&raw const *cte.query, folded(&cte.alias.name))).collect();
        self.with_queries += coming.len();
        self.open.push(OpenQuery { relations: 1, known: HashMap::new(), coming });
        within(self.with_queries, limits::SQL_WITH_QUERIES_MAX, "WITH queries")
    }

    fn post_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        let Some(ended) = self.open.pop() else { return ControlFlow::Continue(()) };
        if let Some(outer) = self.open.last_mut() {
            match outer.coming.iter().position(|(place, _)| std::ptr::eq(*place, query)) {
                Some(at) => {
                    let (_, name) = outer.coming.swap_remove(at);
                    outer.known.insert(name, ended.relations);
                }
                None => outer.relations = outer.relations.saturating_add(ended.relations),
            }
        }
        within(ended.relations, limits::SQL_RELATIONS_MAX, "tables, with those of its WITH queries in every place that names them")
    }

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<Error> {
        let name = match relation.0.as_slice() {
            [ast::ObjectNamePart::Identifier(name)] => folded(name),
            _ => String::new(),
        };
        let weight = self.open.iter().rev().find_map(|query| query.known.get(&name)).copied().unwrap_or(1);
        if let Some(query) = self.open.last_mut() {
            query.relations = query.relations.saturating_add(weight);
        }
        ControlFlow::Continue(())
    }
}

fn within(count: usize, limit: usize, what: &str) -> ControlFlow<Error> {
    if count <= limit {
        return ControlFlow::Continue(());
    }
    ControlFlow::Break(Error::user(format!("the statement has more than {limit} {what}: store a part of it in a table")))
}

/// Refuses plans that are too large or too deep: a WITH query or view that is named twice is there twice, and what names that one twice, four times.
pub fn check_plan(plan: &LogicalPlan) -> Result<()> {
    walk(plan, 1, &mut 0).map_err(|error| from_datafusion(&error))
}

fn walk(plan: &LogicalPlan, depth: usize, nodes: &mut usize) -> datafusion::common::Result<()> {
    let mut open = vec![(plan, depth)];
    while let Some((node, depth)) = open.pop() {
        *nodes += 1;
        for (count, limit, what) in
            [(*nodes, limits::PLAN_NODES_MAX, "operators"), (depth, limits::PLAN_DEPTH_MAX, "operators each over the one before")]
        {
            if count > limit {
                let text = format!(
                    "the statement's plan has more than {limit} {what}, with its views and WITH queries in every place that names them: store a \
                     part of it in a table"
                );
                return Err(Error::user(text).into());
            }
        }
        open.extend(node.inputs().into_iter().map(|input| (input, depth + 1)));
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                let subquery = match part {
                    Expr::ScalarSubquery(subquery) => subquery,
                    Expr::InSubquery(list) => &list.subquery,
                    Expr::Exists(exists) => &exists.subquery,
                    Expr::SetComparison(set) => &set.subquery,
                    Expr::GroupingSet(sets) => {
                        check_grouping_sets(sets)?;
                        return Ok(TreeNodeRecursion::Continue);
                    }
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                walk(&subquery.subquery, depth + 1, nodes)?;
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
    }
    Ok(())
}

/// Refuses so many grouping sets that the groups of one batch of rows do not fit: each set makes groups of every row.
fn check_grouping_sets(sets: &GroupingSet) -> Result<()> {
    let count = match sets {
        GroupingSet::GroupingSets(sets) => sets.len(),
        GroupingSet::Rollup(columns) => columns.len() + 1,
        GroupingSet::Cube(columns) => {
            u32::try_from(columns.len()).ok().and_then(|columns| 1_usize.checked_shl(columns)).unwrap_or(usize::MAX)
        }
    };
    if count > limits::GROUPING_SETS_MAX {
        let limit = limits::GROUPING_SETS_MAX;
        return Err(Error::user(format!(
            "the statement has {count} grouping sets in one GROUP BY, more than {limit}: leave columns out of CUBE, or put queries together with UNION ALL"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_chains_and_depth_are_bounded() {
        assert!(check(&format!("SELECT 1{}", "+1".repeat(240))).is_ok());
        assert!(check(&format!("SELECT 1{}", "+1".repeat(260))).is_err());
        assert!(check(&format!("SELECT {}1{}", "(".repeat(128), ")".repeat(128))).is_ok());
        assert!(check(&format!("SELECT {}1{}", "(".repeat(129), ")".repeat(129))).is_err());
        assert!(check(&format!("SELECT {}true", "not ".repeat(2000))).is_err());
        assert!(check(&format!("SELECT 1 WHERE 1 = 1{}", " OR 1 + 1 = 2".repeat(900))).is_ok());
        assert!(check(&format!("SELECT 1 WHERE 1 = 1{}", " OR 1 + 1 = 2".repeat(1100))).is_err());
        assert!(check(&format!("SELECT CASE{} END", " WHEN a = 1 THEN 2".repeat(900))).is_ok());
        assert!(check(&format!("SELECT {}1{}", "CASE WHEN a THEN 1 ELSE ".repeat(200), " END".repeat(200))).is_err());
        assert!(check(&format!("SELECT 1 WHERE 1{}", " BETWEEN 0 AND 1".repeat(200))).is_err());
        assert!(check(&format!("SELECT * FROM t a{}", " LEFT JOIN t ON t.x = a.x AND t.y = a.y".repeat(300))).is_ok());
    }

    #[test]
    fn strings_names_and_comments_do_not_count() {
        let text = "+".repeat(5000);
        for sql in
            [format!("SELECT '{text}'"), format!("SELECT 1 AS \"{text}\""), format!("SELECT 1 --{text}"), format!("SELECT /*{text}*/ 1")]
        {
            assert!(check(&sql).is_ok(), "{}", &sql[..12]);
        }
        assert!(check("SELECT 'unterminated").is_ok());
        assert!(check("SELECT 1 /* unterminated").is_ok());
    }

    #[test]
    fn what_nests_without_parentheses_is_bounded() {
        for piece in [" is null", "::int", "explain ", "interval ", "not ", "- ", " at time zone 'utc'", " collate x", " like 'a'"] {
            assert!(check(&format!("SELECT 1{}", piece.repeat(3000))).is_err(), "{piece}");
        }
        assert!(check(&"SELECT 1, 1 EXCEPT ".repeat(700)).is_err());
        // Nothing in a string of any kind hides what follows.
        let chain = " is null".repeat(3000);
        for string in ["$$'$$", "`'`", r"E'\''"] {
            assert!(check(&format!("SELECT {string}, 1{chain}")).is_err(), "{string}");
        }
        // A list item is not deeper for those before it.
        assert!(check(&format!("SELECT {}", ["a + b IS NULL"; 900].join(", "))).is_ok());
    }
}
