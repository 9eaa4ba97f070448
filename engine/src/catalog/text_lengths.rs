//! Lengths of text that columns declare: `VARCHAR(3)`, `CHAR(3)`.
//!
//! As in Postgres, a longer value is an error where it would be stored, unless all that is too much is spaces. The spaces at the end of a CHAR
//! mean nothing: they are not stored.

use crate::error::{Error, Result};
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Characters of a value that a message shows.
const SHOWN_CHARACTERS: usize = 40;

/// The length of a column's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextLength {
    /// Most characters, which are Unicode code points.
    pub characters: u64,
    /// Whether it is a CHAR, whose spaces at the end mean nothing.
    #[serde(default)]
    pub is_char: bool,
}

/// Lengths by column.
pub type TextLengths = BTreeMap<String, TextLength>;

impl TextLength {
    /// The type as a CREATE TABLE names it.
    pub fn declared(self) -> String {
        format!("{}({})", self.name(), self.characters)
    }

    /// The type without its length.
    pub fn name(self) -> &'static str {
        if self.is_char { "CHAR" } else { "VARCHAR" }
    }

    /// Values as they are stored.
    ///
    /// # Errors
    /// With the first value that is too long.
    pub fn stored(self, column: &str, values: &ArrayRef) -> Result<ArrayRef> {
        if *values.data_type() != DataType::Utf8 {
            return Ok(values.clone());
        }
        let texts = values.as_string::<i32>();
        // No text has more characters than bytes.
        let as_it_is = |text: &str| text.len() as u64 <= self.characters && !(self.is_char && text.ends_with(' '));
        if texts.iter().flatten().all(as_it_is) {
            return Ok(values.clone());
        }
        let stored = texts.iter().map(|text| text.map(|text| self.one(column, text)).transpose());
        Ok(Arc::new(stored.collect::<Result<StringArray>>()?))
    }

    fn one<'t>(self, column: &str, text: &'t str) -> Result<&'t str> {
        let end = usize::try_from(self.characters).ok().and_then(|most| text.char_indices().nth(most)).map(|(at, _)| at);
        let kept = match end {
            Some(end) if text[end..].chars().any(|letter| letter != ' ') => {
                let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
                let more = if text.chars().nth(SHOWN_CHARACTERS).is_some() { "…" } else { "" };
                return Err(Error::user(format!(
                    "column {column}: the value '{shown}{more}' has {} characters, too many for {}; nothing was stored: CAST(… AS {}) cuts it",
                    text.chars().count(),
                    self.declared(),
                    self.declared()
                )));
            }
            Some(end) => &text[..end],
            None => text,
        };
        Ok(if self.is_char { kept.trim_end_matches(' ') } else { kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_alone_may_be_too_many() {
        let (varchar, char) = (TextLength { characters: 3, is_char: false }, TextLength { characters: 3, is_char: true });
        for (length, given, stored) in [
            (varchar, "ab  ", "ab "),
            (varchar, "äöü", "äöü"),
            (varchar, "äöü ", "äöü"),
            (char, "ab  ", "ab"),
            (char, " ä ", " ä"),
            (char, "", ""),
        ] {
            assert_eq!(length.one("c", given).unwrap(), stored);
        }
        for length in [varchar, char] {
            let said = length.one("c", "äöüß").unwrap_err().message();
            assert!(said.contains("column c: the value 'äöüß' has 4 characters, too many for "), "{said}");
        }
    }
}
