//! Planning errors as people read them: what is wrong, what was probably meant, and a caret at the place.

use crate::catalog::{SYSTEM_SCHEMA, Snapshot};
use crate::error::{Error, ErrorClass, from_datafusion};
use crate::system;
use datafusion::common::DataFusionError;
use datafusion::common::utils::datafusion_strsim::levenshtein;

/// Widest part of a statement's line that is shown above the caret.
const SHOWN_COLUMNS: usize = 100;

/// The user's text for an error of parsing or planning `sql`.
pub fn planning_error(sql: &str, error: &DataFusionError, snapshot: &Snapshot) -> Error {
    let ours = from_datafusion(error);
    let text = ours.message();
    let (class, message) = match text.strip_prefix("table '").and_then(|rest| rest.strip_suffix("' not found")) {
        Some(missing) => (ErrorClass::NotFound, missing_table(missing, snapshot)),
        None => (ours.class(), shortened(&text)),
    };
    match place(sql, error, &text) {
        Some((line, column)) => Error::new(class, format!("{message}\n{}", caret(sql, line, column))),
        None => Error::new(class, message),
    }
}

/// A list of all valid columns helps nobody once a name was suggested; without one it is cut to what can be read.
fn shortened(text: &str) -> String {
    match text.split_once("\nValid fields are ") {
        Some((message, _)) if message.contains("Did you mean") => message.to_string(),
        Some((message, fields)) => {
            let names: Vec<&str> = fields.trim_end_matches('.').split(", ").collect();
            let more = if names.len() > 12 { format!(" and {} more", names.len() - 12) } else { String::new() };
            format!("{message} The columns are {}{more}.", names[..names.len().min(12)].join(", "))
        }
        None => text.to_string(),
    }
}

/// What to say of a table that is not there.
pub fn missing_table(missing: &str, snapshot: &Snapshot) -> String {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
    let wanted = last(missing);
    let stored = snapshot.schemas.iter().flat_map(|(schema, tables)| tables.keys().map(move |name| format!("{schema}.{name}")));
    let names = stored.chain(system::NAMES.iter().map(|name| format!("{SYSTEM_SCHEMA}.{name}")));
    let near =
        names.map(|name| (levenshtein(&last(&name), &wanted), name)).filter(|(distance, _)| *distance <= 3.min(wanted.len() / 2)).min();
    match near {
        Some((0, name)) => format!(
            "there is no table '{missing}', but there is {name}: write it so, or SET schema = '{}'",
            name.split('.').next().unwrap_or_default()
        ),
        Some((_, name)) => format!("there is no table '{missing}'; did you mean {name}?"),
        None => format!("there is no table '{missing}'; SHOW TABLES lists those there are"),
    }
}

/// Line and column, from 1, of what the error is about.
fn place(sql: &str, error: &DataFusionError, text: &str) -> Option<(usize, usize)> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        return Some((span.start.line as usize, span.start.column as usize));
    }
    // The parser puts the place into its text.
    let at = text.rfind("Line: ")?;
    let mut numbers = text[at..].split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse::<usize>().ok());
    numbers.next().zip(numbers.next()).filter(|(line, _)| *line >= 1 && *line <= sql.lines().count())
}

fn caret(sql: &str, line: usize, column: usize) -> String {
    let text: Vec<char> =
        sql.lines().nth(line.saturating_sub(1)).unwrap_or_default().chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let column = column.clamp(1, text.len() + 1) - 1;
    // A window around the place when the line is long.
    let start = if text.len() <= SHOWN_COLUMNS { 0 } else { column.saturating_sub(SHOWN_COLUMNS / 2) };
    let shown: String = text.iter().skip(start).take(SHOWN_COLUMNS).collect();
    let label = format!("line {line}: ");
    format!("{label}{shown}\n{}^", " ".repeat(label.len() + column - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_place() {
        assert_eq!(caret("SELECT a\nFROM nowhere", 2, 6), "line 2: FROM nowhere\n             ^");
        let long = format!("SELECT {}x", "a, ".repeat(200));
        let drawn = caret(&long, 1, 608);
        let (above, below) = drawn.split_once('\n').unwrap();
        assert_eq!(above.chars().nth(below.len() - 1), Some('x'));
        assert!(above.len() < 120);
        assert_eq!(caret("", 7, 9), "line 7: \n        ^");
    }

    #[test]
    fn long_lists_of_columns_are_cut() {
        let fields: Vec<String> = (0..40).map(|n| format!("c{n}")).collect();
        let text = format!("No field named z.\nValid fields are {}.", fields.join(", "));
        assert!(shortened(&text).ends_with("c11 and 28 more."));
        assert_eq!(shortened("No field named z. Did you mean 'a'?\nValid fields are a."), "No field named z. Did you mean 'a'?");
    }
}
