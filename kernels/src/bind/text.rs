//! String predicates, evaluated once on the distinct strings of a chunk.

use arrow::array::{Array, BooleanArray, Scalar, StringArray};
use arrow::compute;

use crate::error::Decline;
use crate::expr::{CompareOp, Literal};

/// A predicate over one string, which is not NULL.
pub(super) enum Predicate<'a> {
    /// `string op value`, by bytes.
    Compare { op: CompareOp, value: &'a str },
    /// The string is in the list; NULLs in it are the caller's matter.
    In { list: &'a [Literal] },
    /// SQL LIKE or ILIKE.
    Like { pattern: &'a str, case_insensitive: bool },
}

impl Predicate<'_> {
    /// One byte a code: 1 where the answer is `wanted`.
    pub(super) fn evaluate(&self, dictionary: &StringArray, wanted: bool) -> Result<Vec<u8>, Decline> {
        match self {
            Self::Compare { op, value } => Ok(table(dictionary, |string| op.holds(string, *value) == wanted)),
            Self::In { list } => {
                let strings: std::collections::HashSet<&str> =
                    list.iter().filter_map(|item| if let Literal::Utf8(value) = item { Some(value.as_str()) } else { None }).collect();
                Ok(table(dictionary, |string| strings.contains(string) == wanted))
            }
            Self::Like { pattern, case_insensitive } => {
                let pattern = Scalar::new(StringArray::from(vec![*pattern]));
                let matched = if *case_insensitive { compute::ilike(dictionary, &pattern) } else { compute::like(dictionary, &pattern) };
                let matched: BooleanArray = matched.map_err(|error| Decline::new(format!("LIKE: {error}")))?;
                Ok((0..matched.len()).map(|code| u8::from(matched.value(code) == wanted)).collect())
            }
        }
    }
}

fn table(dictionary: &StringArray, answer: impl Fn(&str) -> bool) -> Vec<u8> {
    (0..dictionary.len()).map(|code| u8::from(answer(dictionary.value(code)))).collect()
}
