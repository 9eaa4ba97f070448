//! Bounds on a statement's text, checked before any parser or planner recurses over it.

use crate::error::{Error, Result};
use crate::limits;

/// Refuses statements that are too long, too deep, or have chains of operators that build too deep a tree.
pub fn check(sql: &str) -> Result<()> {
    if sql.len() > limits::SQL_BYTES_MAX {
        return Err(Error::user(format!("the statement has {} bytes, more than the limit of {}", sql.len(), limits::SQL_BYTES_MAX)));
    }
    let (mut depth, mut chain, mut operators) = (0usize, 0usize, 0usize);
    let mut chains = vec![];
    for token in tokens(sql) {
        match token {
            Token::Open => {
                depth += 1;
                chains.push(std::mem::take(&mut chain));
            }
            Token::Close => {
                depth = depth.saturating_sub(1);
                chain = chains.pop().unwrap_or(0);
            }
            Token::Separator => {
                operators += 1;
                chain = 0;
            }
            Token::Operator => {
                operators += 1;
                chain += 1;
            }
        }
        let exceeded = [
            (depth, limits::SQL_DEPTH_MAX, "nested parentheses"),
            (chain, limits::SQL_CHAIN_MAX, "operators in one chain"),
            (operators, limits::SQL_OPERATORS_MAX, "operators and list items"),
        ];
        for (count, limit, what) in exceeded {
            if count > limit {
                return Err(Error::user(format!("the statement has more than {limit} {what}: split it, or put long lists into a table")));
            }
        }
    }
    Ok(())
}

enum Token {
    Open,
    Close,
    Separator,
    Operator,
}

/// Structure of a statement outside strings, quoted names and comments.
fn tokens(sql: &str) -> impl Iterator<Item = Token> + '_ {
    let bytes = sql.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let byte = bytes[at];
            let rest = &bytes[at..];
            at += 1;
            match byte {
                b'\'' | b'"' => at += rest[1..].iter().position(|&other| other == byte).map_or(rest.len() - 1, |end| end + 1),
                b'-' if rest.starts_with(b"--") => at += rest.iter().position(|&other| other == b'\n').unwrap_or(rest.len()) - 1,
                b'/' if rest.starts_with(b"/*") => {
                    at += rest.windows(2).skip(2).position(|pair| pair == b"*/").map_or(rest.len() - 1, |end| end + 3)
                }
                b'(' | b'[' => return Some(Token::Open),
                b')' | b']' => return Some(Token::Close),
                b',' | b';' => return Some(Token::Separator),
                b'+' | b'-' | b'*' | b'/' | b'%' | b'|' | b'=' | b'<' | b'>' | b'^' | b'&' => return Some(Token::Operator),
                _ if byte.is_ascii_alphabetic() || byte == b'_' => {
                    let length = rest.iter().position(|other| !other.is_ascii_alphanumeric() && *other != b'_').unwrap_or(rest.len());
                    at += length - 1;
                    let word = &rest[..length];
                    // NOT nests without parentheses too.
                    if [&b"and"[..], b"or", b"not", b"union", b"case", b"join"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword)) {
                        return Some(Token::Operator);
                    }
                }
                _ => {}
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_chains_and_depth_are_bounded() {
        assert!(check(&format!("SELECT 1{}", "+1".repeat(999))).is_ok());
        assert!(check(&format!("SELECT 1{}", "+1".repeat(2000))).is_err());
        assert!(check(&format!("SELECT {}1{}", "(".repeat(128), ")".repeat(128))).is_ok());
        assert!(check(&format!("SELECT {}1{}", "(".repeat(129), ")".repeat(129))).is_err());
        assert!(check(&format!("SELECT {}true", "not ".repeat(2000))).is_err());
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
}
