//! Syntax of the standard that the parser reads otherwise, or the planner does not know, as syntax that means the same to both.
//!
//! - `a IS DISTINCT FROM b AND c`: the parser takes `b AND c` for one operand.
//! - `OVER (w ROWS 1 PRECEDING)`: the planner forgets the window `w`.
//! - `LIKE … ESCAPE 'c'`, `FETCH FIRST`, `GROUP BY ()`, `AS MATERIALIZED`.
//! - `ARRAY[t.a]` in a subquery, `unnest(t.list)` beside `t`, `SIMILAR TO`, `(a, b) IS NULL`.
//! - The merged columns of `RIGHT JOIN … USING` and `FULL JOIN … USING`: the planner takes the left side's.

use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DuplicateTreatment, Expr, Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident,
    JoinConstraint, JoinOperator, LimitClause, NamedWindowExpr, Query, ReplaceSelectElement, ReplaceSelectItem, Select, SelectItem,
    SetExpr, TableAliasColumnDef, TableFactor, TableWithJoins, UnaryOperator, Value, VisitMut, VisitorMut, WindowSpec, WindowType,
    visit_expressions,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// A query before what stands within it.
pub fn correct_query(query: &mut Query) -> Result<()> {
    if let Some(with) = &mut query.with {
        // A hint: no answer depends on it.
        with.cte_tables.iter_mut().for_each(|cte| cte.materialized = None);
    }
    fetch_as_limit(query)?;
    selects_of(&mut query.body).into_iter().try_for_each(correct_select)
}

/// The selects of a query, and of a set operation all of them.
pub fn selects_of(body: &mut SetExpr) -> Vec<&mut Select> {
    match body {
        SetExpr::Select(select) => vec![select.as_mut()],
        SetExpr::SetOperation { left, right, .. } => {
            let mut selects = selects_of(left);
            selects.extend(selects_of(right));
            selects
        }
        // What stands in parentheses is a query of its own.
        _ => vec![],
    }
}

fn correct_select(select: &mut Select) -> Result<()> {
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        for key in keys.iter_mut() {
            if matches!(key, Expr::Tuple(parts) if parts.is_empty()) {
                *key = Expr::GroupingSets(vec![vec![]]);
            }
        }
    }
    merge_columns(select)
}

/// `t, unnest(t.list) AS u(x)`: a lateral subquery, since it names columns of what stands before it.
pub fn lateral_unnest(factor: &mut TableFactor) -> Result<()> {
    let (alias, arguments, ordinality) = match factor {
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
            (alias.clone(), array_exprs.clone(), *with_ordinality)
        }
        TableFactor::Function { lateral: true, name, args, alias, with_ordinality: false }
            if name.to_string().eq_ignore_ascii_case("unnest") =>
        {
            let arguments = args.iter().filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            });
            (alias.clone(), arguments.collect::<Vec<_>>(), false)
        }
        _ => return Ok(()),
    };
    if ordinality {
        return plan_err!("unnest(…) WITH ORDINALITY is not supported: number the elements with row_number() OVER ()");
    }
    let names_columns = arguments.iter().any(|argument| {
        let found = visit_expressions(argument, |part| match part {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        found.is_break()
    });
    if !names_columns {
        return Ok(());
    }
    let items: Vec<String> = arguments.iter().enumerate().map(|(at, list)| format!("unnest({list}) AS column{at}")).collect();
    let mut select = Parser::new(&GenericDialect).try_with_sql(&format!("SELECT {}", items.join(", ")))?;
    let alias = alias.map(|mut alias| {
        // The name of the relation is that of its one column, too.
        if alias.columns.is_empty() && arguments.len() == 1 {
            alias.columns = vec![TableAliasColumnDef::from_name(alias.name.value.clone())];
        }
        alias
    });
    *factor = TableFactor::Derived { lateral: true, subquery: select.parse_query()?, alias, sample: None };
    Ok(())
}

/// A query after what stands within it: windows that are not named there are named here.
pub fn resolve_windows(query: &mut Query) {
    let mut sorted = match query.body.as_ref() {
        SetExpr::Select(select) => named_windows(select),
        _ => Windows(BTreeMap::new()),
    };
    let _ = query.order_by.visit(&mut sorted);
    for select in selects_of(&mut query.body) {
        let mut windows = named_windows(select);
        let _ = select.projection.visit(&mut windows);
        let _ = select.qualify.visit(&mut windows);
    }
}

fn named_windows(select: &Select) -> Windows {
    let mut known: BTreeMap<String, WindowSpec> = BTreeMap::new();
    for definition in &select.named_window {
        let spec = match &definition.1 {
            NamedWindowExpr::NamedWindow(other) => known.get(&folded(other)).cloned(),
            NamedWindowExpr::WindowSpec(spec) => Some(over_named(spec, &known)),
        };
        if let Some(spec) = spec {
            known.insert(folded(&definition.0), spec);
        }
    }
    Windows(known)
}

fn folded(name: &Ident) -> String {
    if name.quote_style.is_some() { name.value.clone() } else { name.value.to_ascii_lowercase() }
}

struct Windows(BTreeMap<String, WindowSpec>);

impl VisitorMut for Windows {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(call) = expr
            && let Some(WindowType::WindowSpec(spec)) = &mut call.over
        {
            *spec = over_named(spec, &self.0);
        }
        ControlFlow::Continue(())
    }
}

/// A window that adds to a named one, written out.
fn over_named(spec: &WindowSpec, known: &BTreeMap<String, WindowSpec>) -> WindowSpec {
    let Some(named) = spec.window_name.as_ref().and_then(|name| known.get(&folded(name))) else { return spec.clone() };
    WindowSpec {
        window_name: None,
        partition_by: if spec.partition_by.is_empty() { named.partition_by.clone() } else { spec.partition_by.clone() },
        order_by: if spec.order_by.is_empty() { named.order_by.clone() } else { spec.order_by.clone() },
        window_frame: spec.window_frame.clone().or_else(|| named.window_frame.clone()),
    }
}

/// `FETCH FIRST n ROWS ONLY` is a LIMIT.
fn fetch_as_limit(query: &mut Query) -> Result<()> {
    let Some(Fetch { with_ties, percent, quantity }) = &query.fetch else { return Ok(()) };
    if *with_ties || *percent {
        return plan_err!("FETCH FIRST … WITH TIES and PERCENT are not supported: filter by rank() OVER (ORDER BY …) instead");
    }
    let count = quantity.clone().or_else(|| parsed("1"));
    match &mut query.limit_clause {
        None => query.limit_clause = Some(LimitClause::LimitOffset { limit: count, offset: None, limit_by: vec![] }),
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = count,
        Some(_) => return plan_err!("a query has LIMIT and FETCH FIRST: leave one out"),
    }
    query.fetch = None;
    Ok(())
}

fn parsed(text: &str) -> Option<Expr> {
    Parser::new(&GenericDialect).try_with_sql(text).ok()?.parse_expr().ok()
}

/// An expression after its parts.
pub fn correct_expr(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::IsDistinctFrom(..) | Expr::IsNotDistinctFrom(..) => bind_tighter(expr, |operand| {
            let (Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right)) = operand else { return None };
            Some(right)
        }),
        Expr::UnaryOp { op: UnaryOperator::Not, .. } => bind_tighter(expr, |operand| {
            let Expr::UnaryOp { expr, .. } = operand else { return None };
            Some(expr)
        }),
        Expr::BinaryOp { op: BinaryOperator::And, right, .. }
            if matches!(right.as_ref(), Expr::BinaryOp { op: BinaryOperator::Or | BinaryOperator::Xor, .. }) =>
        {
            bind_tighter(expr, |operand| {
                let Expr::BinaryOp { right, .. } = operand else { return None };
                Some(right)
            });
        }
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
                && matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]) =>
        {
            return plan_err!("{name}(DISTINCT *) is not supported: name the columns, or count the rows of a SELECT DISTINCT *");
        }
        Expr::IsNull(of) | Expr::IsNotNull(of) if matches!(of.as_ref(), Expr::Tuple(_)) => {
            let test = if matches!(expr, Expr::IsNull(_)) { "IS NULL" } else { "IS NOT NULL" };
            let (Expr::IsNull(of) | Expr::IsNotNull(of)) = &*expr else { return Ok(()) };
            let Expr::Tuple(values) = of.as_ref() else { return Ok(()) };
            // All fields are, or none.
            let each: Vec<String> = values.iter().map(|value| format!("({value}) {test}")).collect();
            if let Some(all) = parsed(&format!("({})", each.join(" AND "))) {
                *expr = all;
            }
        }
        // The parser gives the words behind the last argument to the argument, where that is a call: `last_value(abs(x) IGNORE NULLS)`.
        Expr::Function(Function { args: FunctionArguments::List(list), null_treatment: outer @ None, over: Some(_), .. }) => {
            if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(inner)))) = list.args.last_mut()
                && inner.over.is_none()
            {
                *outer = inner.null_treatment.take();
            }
        }
        // Field by field, so that a NULL is what it is in each comparison.
        Expr::BinaryOp { left, op, right } if matches!((left.as_ref(), right.as_ref()), (Expr::Tuple(_), Expr::Tuple(_))) => {
            if let Some(compared) = rows_compared(left, op, right) {
                *expr = compared;
            }
        }
        Expr::InList { expr: row, list, negated } if matches!(row.as_ref(), Expr::Tuple(_)) => {
            let same: Option<Vec<String>> =
                list.iter().map(|item| Some(rows_compared(row, &BinaryOperator::Eq, item)?.to_string())).collect();
            if let Some(any) = same.and_then(|same| parsed(&format!("({})", same.join(" OR ")))) {
                *expr = if *negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) } } else { any };
            }
        }
        // The planner reads the elements of a literal as if nothing stood around it.
        Expr::Array(array) if !array.elem.is_empty() => {
            if let Some(mut call) = parsed("make_array(NULL)")
                && let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = &mut call
            {
                let elements = std::mem::take(&mut array.elem).into_iter();
                list.args = elements.map(|element| FunctionArg::Unnamed(FunctionArgExpr::Expr(element))).collect();
                *expr = call;
            }
        }
        Expr::SimilarTo { negated, expr: of, pattern, escape_char } => {
            let (Expr::Value(text), escape) = (pattern.as_ref(), escape_char.as_ref().map(|value| &value.value)) else {
                return plan_err!("SIMILAR TO takes a literal pattern; the operator ~ takes any regular expression");
            };
            let (Value::SingleQuotedString(text), None | Some(Value::SingleQuotedString(_))) = (&text.value, escape) else {
                return Ok(());
            };
            let escape = match escape {
                Some(Value::SingleQuotedString(escape)) => escape.chars().next(),
                _ => Some('\\'),
            };
            let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
            let regex = Value::SingleQuotedString(similar_as_regex(text, escape)).with_empty_span();
            *expr = Expr::BinaryOp { left: of.clone(), op, right: Box::new(Expr::Value(regex)) };
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(Value::SingleQuotedString(escape)) = escape_char.as_ref().map(|value| &value.value)
                && escape != "\\"
                && let Expr::Value(text) = pattern.as_mut()
                && let Value::SingleQuotedString(written) = &mut text.value
            {
                *written = with_backslashes(written, escape)?;
                *escape_char = None;
            }
        }
        _ => {}
    }
    Ok(())
}

/// An operator whose last operand was read too far, up to an AND or OR that stands in no parentheses: it ends before that.
fn bind_tighter(expr: &mut Expr, operand: impl Fn(&mut Expr) -> Option<&mut Box<Expr>>) {
    let is_looser = |of: &Expr| matches!(of, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. });
    let null = || Expr::Value(Value::Null.with_empty_span());
    let Some(whole) = operand(expr).filter(|of| is_looser(of)).map(|of| std::mem::replace(of.as_mut(), null())) else { return };
    let mut operator = std::mem::replace(expr, whole);
    // The leftmost operand of what was read too far is the operator's own.
    let mut place = &mut *expr;
    while let Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, left, .. } = place {
        place = left.as_mut();
    }
    if let Some(own) = operand(&mut operator) {
        **own = std::mem::replace(place, null());
    }
    // Written out, it is read the same again.
    *place = Expr::Nested(Box::new(operator));
}

/// `(a, b) < (c, d)` as `a < c OR (a = c AND b < d)`; the other comparisons likewise.
fn rows_compared(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<Expr> {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    let (Expr::Tuple(left), Expr::Tuple(right)) = (left, right) else { return None };
    if left.len() != right.len() || left.is_empty() {
        return None;
    }
    let pairs: Vec<(&Expr, &Expr)> = left.iter().zip(right).collect();
    let each = |op: &str, by: &str| {
        let fields: Vec<String> = pairs.iter().map(|(left, right)| format!("({left}) {op} ({right})")).collect();
        format!("({})", fields.join(by))
    };
    let text = match op {
        Eq => each("=", " AND "),
        NotEq => each("<>", " OR "),
        Lt | LtEq | Gt | GtEq => {
            let strict = if matches!(op, Lt | LtEq) { "<" } else { ">" };
            let mut text = String::new();
            for (at, (left, right)) in pairs.iter().enumerate().rev() {
                text = match at + 1 == pairs.len() {
                    true => format!("(({left}) {op} ({right}))"),
                    false => format!("(({left}) {strict} ({right}) OR (({left}) = ({right}) AND {text}))"),
                };
            }
            text
        }
        _ => return None,
    };
    parsed(&text)
}

/// A pattern of SIMILAR TO, which is of the whole text, as a regular expression.
fn similar_as_regex(pattern: &str, escape: Option<char>) -> String {
    let mut regex = String::from("^(?s:");
    let (mut rest, mut in_class) = (pattern.chars(), false);
    while let Some(character) = rest.next() {
        match character {
            escaped if Some(escaped) == escape => regex.extend(rest.next().map(regex_literal).into_iter().flatten()),
            '%' if !in_class => regex.push_str(".*"),
            '_' if !in_class => regex.push('.'),
            '[' | ']' => {
                in_class = character == '[';
                regex.push(character);
            }
            '|' | '*' | '+' | '?' | '{' | '}' | '(' | ')' => regex.push(character),
            '-' | '^' if in_class => regex.push(character),
            other => regex.extend(regex_literal(other)),
        }
    }
    regex + ")$"
}

fn regex_literal(character: char) -> impl Iterator<Item = char> {
    (!character.is_alphanumeric() && !character.is_whitespace() && character.is_ascii()).then_some('\\').into_iter().chain([character])
}

/// A pattern whose escape is another character, with backslashes.
fn with_backslashes(pattern: &str, escape: &str) -> Result<String> {
    let mut escapes = escape.chars();
    let (escape, None) = (escapes.next(), escapes.next()) else {
        return plan_err!("ESCAPE '{escape}' has more than one character");
    };
    let mut written = String::with_capacity(pattern.len());
    let mut rest = pattern.chars();
    while let Some(character) = rest.next() {
        let meant = if Some(character) == escape {
            match rest.next() {
                Some(escaped @ ('%' | '_' | '\\')) => format!("\\{escaped}"),
                Some(escaped) => escaped.to_string(),
                None => return plan_err!("the LIKE pattern '{pattern}' ends with its escape character"),
            }
        } else if character == '\\' {
            "\\\\".to_string()
        } else {
            character.to_string()
        };
        written += &meant;
    }
    Ok(written)
}

/// The columns that USING merges, by name: their expression, and whether it is another than the left side's.
type Merged = BTreeMap<String, (Expr, bool)>;

/// Writes out the merged columns of outer joins, wherever the select names them alone.
fn merge_columns(select: &mut Select) -> Result<()> {
    let mut merged = Merged::new();
    for from in &select.from {
        merged.extend(merged_of(from)?);
    }
    if merged.is_empty() {
        return Ok(());
    }
    let others: BTreeMap<&String, &Expr> = merged.iter().filter(|(_, (_, other))| *other).map(|(name, (expr, _))| (name, expr)).collect();
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                if let Some((expr, _)) = merged.get(&folded(name)) {
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: name.clone() };
                }
            }
            SelectItem::Wildcard(options) if !others.is_empty() => {
                let replaced = others.iter().map(|(name, expr)| {
                    let column_name = Ident::with_quote('"', name.as_str());
                    Box::new(ReplaceSelectElement { expr: (*expr).clone(), column_name, as_keyword: true })
                });
                let replace = options.opt_replace.get_or_insert_with(|| ReplaceSelectItem { items: vec![] });
                let added: Vec<_> = replaced
                    .filter(|added| !replace.items.iter().any(|item| folded(&item.column_name) == folded(&added.column_name)))
                    .collect();
                replace.items.extend(added);
            }
            _ => {}
        }
    }
    drop(others);
    let merged = merged.into_iter().map(|(name, (expr, _))| (name, expr)).collect();
    let mut columns = Columns { merged, depth: 0 };
    let _ = select.projection.visit(&mut columns);
    let _ = select.selection.visit(&mut columns);
    let _ = select.group_by.visit(&mut columns);
    let _ = select.having.visit(&mut columns);
    let _ = select.qualify.visit(&mut columns);
    Ok(())
}

struct Columns {
    merged: BTreeMap<String, Expr>,
    /// Queries that the visitor is in: their names are others.
    depth: usize,
}

impl VisitorMut for Columns {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if self.depth == 0
            && let Expr::Identifier(name) = expr
            && let Some(merged) = self.merged.get(&folded(name))
        {
            *expr = merged.clone();
        }
        ControlFlow::Continue(())
    }
}

fn merged_of(from: &TableWithJoins) -> Result<Merged> {
    let mut merged = Merged::new();
    let first = name_of(&from.relation);
    let joined_before = |at: usize| from.joins.iter().take(at).any(|join| !matches!(join.join_operator, JoinOperator::LeftSemi(_)));
    for (at, join) in from.joins.iter().enumerate() {
        let (constraint, full) = match &join.join_operator {
            JoinOperator::Right(constraint) | JoinOperator::RightOuter(constraint) => (constraint, Some(false)),
            JoinOperator::FullOuter(constraint) => (constraint, Some(true)),
            JoinOperator::Join(constraint)
            | JoinOperator::Inner(constraint)
            | JoinOperator::Left(constraint)
            | JoinOperator::LeftOuter(constraint) => (constraint, None),
            _ => continue,
        };
        let names = match constraint {
            JoinConstraint::Using(names) => names,
            JoinConstraint::Natural if full.is_some() => {
                return plan_err!(
                    "NATURAL RIGHT JOIN and NATURAL FULL JOIN are not supported: write the common columns, as in FULL JOIN … USING (id)"
                );
            }
            _ => continue,
        };
        for name in names {
            let Some(column) = name.0.last().and_then(|part| part.as_ident()) else { continue };
            let key = folded(column);
            let of = |relation: &Ident| Expr::CompoundIdentifier(vec![relation.clone(), column.clone()]);
            let left = match merged.get(&key) {
                Some((expr, _)) => Some(expr.clone()),
                // The first of the chain has it: the first USING says so.
                None if !joined_before(at) => first.as_ref().map(of),
                None => None,
            };
            let other = merged.get(&key).is_some_and(|(_, other)| *other);
            let right = name_of(&join.relation).as_ref().map(of);
            let expr = match (full, left, right) {
                (None, Some(left), _) => (left, other),
                (None, None, _) => continue,
                (Some(false), _, Some(right)) => (right, true),
                (Some(true), Some(left), Some(right)) => match parsed(&format!("coalesce({left}, {right})")) {
                    Some(either) => (either, true),
                    None => continue,
                },
                _ => {
                    return Err(DataFusionError::Plan(format!(
                        "column {column} of an outer join with USING is of a relation without a name, or of one among several: name the relations, and write ON"
                    )));
                }
            };
            merged.insert(key, expr);
        }
    }
    Ok(merged)
}

/// What columns of a relation are qualified by.
fn name_of(relation: &TableFactor) -> Option<Ident> {
    match relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, .. } => name.0.last().and_then(|part| part.as_ident()).cloned(),
        _ => None,
    }
}
