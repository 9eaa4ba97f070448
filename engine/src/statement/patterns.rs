//! Patterns of LIKE with another escape than the backslash, and of SIMILAR TO: the planner knows the backslash alone, and takes SIMILAR TO for a
//! regular expression.

use datafusion::common::{Result, plan_err};
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Value, ValueWithSpan};

/// Writes `LIKE … ESCAPE 'c'` over a literal with backslashes.
pub fn correct_like(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) -> Result<()> {
    if let Some(Value::SingleQuotedString(character)) = escape.as_ref().map(|value| &value.value)
        && character != "\\"
        && let Expr::Value(text) = pattern
        && let Value::SingleQuotedString(written) = &mut text.value
    {
        *written = with_backslashes(written, character)?;
        *escape = None;
    }
    Ok(())
}

/// `x SIMILAR TO 'pattern'` as a match of a regular expression; `None` of other expressions.
pub fn similar_to(expr: &Expr) -> Result<Option<Expr>> {
    let Expr::SimilarTo { negated, expr: of, pattern, escape_char } = expr else { return Ok(None) };
    let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = pattern.as_ref() else {
        return plan_err!("SIMILAR TO takes a literal pattern; the operator ~ takes any regular expression");
    };
    let escape = match escape_char.as_ref().map(|value| &value.value) {
        None => Some('\\'),
        Some(Value::SingleQuotedString(escape)) if escape.chars().count() <= 1 => escape.chars().next(),
        Some(other) => return plan_err!("ESCAPE {other} has more than one character"),
    };
    let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
    let regex = Value::SingleQuotedString(as_regex(text, escape)).with_empty_span();
    Ok(Some(Expr::BinaryOp { left: of.clone(), op, right: Box::new(Expr::Value(regex)) }))
}

/// A pattern of SIMILAR TO, which is of the whole text, as a regular expression.
fn as_regex(pattern: &str, escape: Option<char>) -> String {
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
