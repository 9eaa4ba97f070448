//! Names of users that come from outside: what may be one, and how any text is shown in the log.

use crate::limits;

/// Whether a name that a token or certificate gives can be a user's.
pub fn is_user_name(name: &str) -> bool {
    !name.trim().is_empty() && name.len() <= limits::USER_NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// A name as a caller gave it, for one line of the log: bounded, and without anything that a terminal or a reader of logs would act on.
pub fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(limits::LOGGED_NAME_LETTERS_MAX).flat_map(escaped).collect();
    if name.chars().nth(limits::LOGGED_NAME_LETTERS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Letters of other scripts stay readable; control characters, quotes and what changes the direction of text do not act.
fn escaped(letter: char) -> impl Iterator<Item = char> {
    let plain = letter.is_alphanumeric() || letter == ' ' || (letter.is_ascii_punctuation() && letter != '"' && letter != '\\');
    let (plain, coded) = if plain { (Some(letter), None) } else { (None, Some(letter.escape_default())) };
    plain.into_iter().chain(coded.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_the_log_is_one_bounded_line() {
        assert_eq!(shown("ana müller@x"), "ana müller@x");
        assert_eq!(shown("a\nb\u{1b}[31m\"\u{202e}"), "a\\nb\\u{1b}[31m\\\"\\u{202e}");
        let long = shown(&"x".repeat(10_000));
        assert_eq!(long.chars().count(), limits::LOGGED_NAME_LETTERS_MAX + 1);
    }

    #[test]
    fn a_user_has_a_name() {
        assert!(is_user_name("ana") && is_user_name("Ana Müller"));
        for name in ["", "  ", "a\0b", "a\nb", &"x".repeat(limits::USER_NAME_BYTES_MAX + 1)] {
            assert!(!is_user_name(name), "{name:?}");
        }
    }
}
