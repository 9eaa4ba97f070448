//! The outer shape of SQL text: which parts are code, and which are strings, quoted names or comments.
//!
//! Splitting statements and rewriting parameters both need only this; parsing is the engine's.

/// What a stretch of SQL text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keywords, names, numbers, operators: where `;` and `?` have their meaning.
    Code,
    /// `'…'`, `"…"`, `` `…` `` or `$tag$…$tag$`.
    Quoted,
    /// `-- …` to the end of the line, or `/* … */`, which nests.
    Comment,
}

/// One stretch of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    pub kind: Kind,
    pub text: &'a str,
    /// False when the text ended before the closing quote or comment mark.
    pub closed: bool,
}

/// Cuts SQL text into segments; together they are the whole text.
pub fn segments(sql: &str) -> Vec<Segment<'_>> {
    let mut found = Vec::new();
    let mut code_start = 0;
    let mut position = 0;
    while position < sql.len() {
        let rest = &sql[position..];
        let Some((kind, length, closed)) = special(rest, ends_in_name(&sql[..position])) else {
            position += rest.chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if code_start < position {
            found.push(code(&sql[code_start..position]));
        }
        found.push(Segment { kind, text: &rest[..length], closed });
        position += length;
        code_start = position;
    }
    if code_start < sql.len() {
        found.push(code(&sql[code_start..]));
    }
    found
}

fn code(text: &str) -> Segment<'_> {
    Segment { kind: Kind::Code, text, closed: true }
}

/// `a$b$` is a name, not the start of a dollar quote.
fn ends_in_name(before: &str) -> bool {
    before.chars().next_back().is_some_and(|last| last.is_alphanumeric() || last == '_')
}

/// Kind, byte length and closedness of the quoted text or comment that `rest` starts with.
fn special(rest: &str, after_name: bool) -> Option<(Kind, usize, bool)> {
    let first = rest.chars().next()?;
    match first {
        '\'' | '"' | '`' => Some(quoted(rest, first)),
        '-' if rest.starts_with("--") => {
            let length = rest.find('\n').map_or(rest.len(), |end| end + 1);
            Some((Kind::Comment, length, true))
        }
        '/' if rest.starts_with("/*") => Some(block_comment(rest)),
        '$' if !after_name => dollar_quoted(rest),
        _ => None,
    }
}

/// A doubled quote inside stands for one; it reads here as two quoted texts side by side, which is as good.
fn quoted(rest: &str, quote: char) -> (Kind, usize, bool) {
    match rest[1..].find(quote) {
        Some(end) => (Kind::Quoted, end + 2, true),
        None => (Kind::Quoted, rest.len(), false),
    }
}

fn block_comment(rest: &str) -> (Kind, usize, bool) {
    let mut depth = 0_usize;
    let mut position = 0;
    while position < rest.len() {
        let here = &rest[position..];
        if here.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return (Kind::Comment, position, true);
            }
        } else {
            position += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    (Kind::Comment, rest.len(), false)
}

fn dollar_quoted(rest: &str) -> Option<(Kind, usize, bool)> {
    let tag_end = rest[1..].find('$')? + 2;
    let tag = &rest[..tag_end];
    let name = &tag[1..tag.len() - 1];
    let is_tag =
        name.chars().all(|letter| letter.is_alphanumeric() || letter == '_') && !name.starts_with(|first: char| first.is_ascii_digit());
    if !is_tag {
        return None;
    }
    Some(match rest[tag_end..].find(tag) {
        Some(end) => (Kind::Quoted, tag_end + end + tag.len(), true),
        None => (Kind::Quoted, rest.len(), false),
    })
}

/// The statements of a text, cut at `;`, without empty ones; the last may lack its `;`.
pub fn split_statements(sql: &str) -> Vec<String> {
    let (mut statements, last) = complete_statements(sql);
    if has_content(&last) {
        statements.push(last.trim().to_string());
    }
    statements
}

/// Whether every statement of a text is ended by `;`: what the interactive shell waits for.
pub fn is_complete(sql: &str) -> bool {
    let closed = segments(sql).last().is_none_or(|segment| segment.closed);
    closed && !has_content(&complete_statements(sql).1)
}

fn complete_statements(sql: &str) -> (Vec<String>, String) {
    let mut statements = Vec::new();
    let mut current = String::new();
    for segment in segments(sql) {
        if segment.kind != Kind::Code {
            current.push_str(segment.text);
            continue;
        }
        let mut pieces = segment.text.split(';');
        current.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            if has_content(&current) {
                statements.push(current.trim().to_string());
            }
            current = piece.to_string();
        }
    }
    (statements, current)
}

fn has_content(sql: &str) -> bool {
    segments(sql).iter().any(|segment| segment.kind != Kind::Comment && !segment.text.trim().is_empty())
}

/// Numbers the parameters written as `?`: the first becomes `$1`. The engine would read every `?` as one and the
/// same parameter.
///
/// # Errors
/// When parameters have numbers of their own too: which of them a `?` is, nobody could say.
pub fn number_parameters(sql: &str) -> Result<String, String> {
    let mut numbered = String::with_capacity(sql.len() + 8);
    let (mut count, mut with_numbers) = (0, false);
    for segment in segments(sql) {
        if segment.kind != Kind::Code {
            numbered.push_str(segment.text);
            continue;
        }
        let mut letters = segment.text.chars().peekable();
        while let Some(letter) = letters.next() {
            if letter == '?' {
                count += 1;
                numbered.push_str(&format!("${count}"));
                continue;
            }
            with_numbers |= letter == '$' && !ends_in_name(&numbered) && letters.peek().is_some_and(char::is_ascii_digit);
            numbered.push(letter);
        }
    }
    if count > 0 && with_numbers {
        return Err("the statement has parameters written as ? and as $n: write all of them in one of the two ways".into());
    }
    Ok(numbered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_only_in_code() {
        for (sql, expected) in [
            ("SELECT ?, ? FROM t WHERE a = ?", "SELECT $1, $2 FROM t WHERE a = $3"),
            ("SELECT '?', \"?\", `?` , ?", "SELECT '?', \"?\", `?` , $1"),
            ("SELECT 'it''s ?' || ?", "SELECT 'it''s ?' || $1"),
            ("SELECT ? -- why?\n, ?", "SELECT $1 -- why?\n, $2"),
            ("SELECT /* ? /* ? */ ? */ ?", "SELECT /* ? /* ? */ ? */ $1"),
            ("SELECT $$ ? $$, $tag$ ? $$ ? $tag$, ?", "SELECT $$ ? $$, $tag$ ? $$ ? $tag$, $1"),
            ("SELECT $1, $2", "SELECT $1, $2"),
            ("SELECT a$1, ?", "SELECT a$1, $1"),
            ("SELECT '$1', ? -- $2", "SELECT '$1', $1 -- $2"),
            ("SELECT 'open ?", "SELECT 'open ?"),
            ("SELECT 'ä' || ? || '日本?'", "SELECT 'ä' || $1 || '日本?'"),
        ] {
            assert_eq!(number_parameters(sql).as_deref(), Ok(expected));
        }
        assert!(number_parameters("SELECT ? WHERE a = $1").unwrap_err().contains("one of the two ways"));
    }

    #[test]
    fn statements_are_split_outside_of_strings_and_comments() {
        let sql = "SELECT ';' ; -- one; two\n;;\nSELECT \"a;b\" /* ; */ FROM t;\n SELECT 3 -- end;";
        assert_eq!(split_statements(sql), ["SELECT ';'", "SELECT \"a;b\" /* ; */ FROM t", "SELECT 3 -- end;"]);
        assert!(split_statements(" ; -- nothing\n ").is_empty());
    }

    #[test]
    fn a_statement_is_complete_at_its_semicolon() {
        for (sql, complete) in [
            ("SELECT 1;", true),
            ("SELECT 1; -- done", true),
            ("SELECT 1", false),
            ("SELECT ';", false),
            ("SELECT 1; SELECT", false),
            ("SELECT /* ;", false),
            ("", true),
        ] {
            assert_eq!(is_complete(sql), complete, "{sql}");
        }
    }

    #[test]
    fn segments_hold_the_whole_text() {
        let sql = "a 'b' -- c\n\"d\" $x$ e $x$ /* f */ $1 a$b$ 'open";
        let joined: String = segments(sql).iter().map(|segment| segment.text).collect();
        assert_eq!(joined, sql);
        assert!(!segments(sql).last().unwrap().closed);
    }

    #[test]
    fn whatever_a_text_is_its_segments_are_all_of_it() {
        let texts = ["SELECT 'it''s', \"a\"\"b\", $$x$$, $t$y$t$ -- z\n; /* /* n */ */ SELECT ?, E'\\'', `q`", "a;b;'c", "$1$;$$"];
        bowshot_mutations::near_texts(&texts, |case| {
            let again = segments(case).iter().map(|segment| segment.text).collect::<String>();
            assert_eq!(again, case);
            let _ = (split_statements(case), is_complete(case), number_parameters(case));
        });
    }
}
