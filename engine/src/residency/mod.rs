//! Rows that must not leave their regions: what is known of them, and the two places where it is checked.
//!
//! 1. A table is pinned by `ALTER TABLE … SET (regions = 'eu')`. Placement reads its files on nodes of those regions alone.
//! 2. The coordinator follows the rows of pinned tables through the plan ([`flow`]), sends every fragment that receives them to nodes of their
//!    regions, and refuses the plan where that cannot be ([`plan`]).
//! 3. It declares with each task where that task's rows may go. The worker that reads pinned files compares that with its own copy of the rules
//!    ([`policy`]), every worker lets only callers from declared regions read from a task, and a worker that reads from another one's task must
//!    have declared no more than that one ([`ledger`]). So a plan that the coordinator's checker never saw gets no further.
//!
//! Errors quote values. The text of a task that reads pinned rows, or reads from a task that does, leaves their regions only if it is known to
//! quote none; else its reader gets its class, and the text stays in the node's log.
//!
//! An aggregate releases: partial sums, counts, averages, variances, minima and maxima may cross a border, and so may group keys. States that
//! carry the values themselves (DISTINCT, lists, percentiles, first and last, string_agg) count as rows. What still tells of single rows, such as
//! a sum over a group of one, is not held back here; this module is the one place where rules for that belong.

pub mod flow;
pub mod ledger;
pub mod plan;
pub mod policy;

use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fmt;

/// Metadata key of the regions that a task's rows may go to, on the call that sets its plan and on the answer to those who read from it.
pub const REGIONS_HEADER: &str = "x-bowshot-regions";
/// Metadata key of the regions that the texts of a task's errors may go to, likewise.
pub const ERROR_REGIONS_HEADER: &str = "x-bowshot-error-regions";
/// Metadata key of a caller's region, on every call between nodes.
pub const CALLER_REGION_HEADER: &str = "x-bowshot-caller-region";
/// Metadata key of the task that a plan is for.
pub const TASK_HEADER: &str = "x-bowshot-task";

/// Where rows may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(Option<BTreeSet<String>>);

impl Reach {
    /// Of a header that may be absent: anywhere, then.
    pub fn of_header(value: Option<&http::HeaderValue>) -> Self {
        value.map_or_else(Self::anywhere, |value| Self::parse(value.to_str().unwrap_or_default()))
    }

    /// Anywhere.
    pub fn anywhere() -> Self {
        Self(None)
    }

    /// Within these regions; anywhere where there are none.
    pub fn within(regions: &[String]) -> Self {
        Self((!regions.is_empty()).then(|| regions.iter().cloned().collect()))
    }

    /// Within these regions, be there any or none.
    pub fn exactly(regions: &[String]) -> Self {
        Self(Some(regions.iter().cloned().collect()))
    }

    /// The regions; none for anywhere.
    pub fn regions(&self) -> Vec<String> {
        self.0.iter().flatten().cloned().collect()
    }

    /// As a header says it: labels between commas.
    pub fn parse(text: &str) -> Self {
        Self(Some(text.split(',').map(|region| region.trim().to_string()).filter(|region| !region.is_empty()).collect()))
    }

    /// Whether it has a border at all.
    pub fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// Whether rows may go to `region`; an unknown region is beyond every border.
    pub fn allows(&self, region: Option<&str>) -> bool {
        self.0.as_ref().is_none_or(|regions| region.is_some_and(|region| regions.contains(region)))
    }

    /// Whether everything that may go there may go to `other` too.
    pub fn is_within(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(own), Some(other)) => own.is_subset(other),
        }
    }

    /// Rows of both.
    pub fn and(&self, other: &Self) -> Self {
        Self(match (&self.0, &other.0) {
            (None, reach) | (reach, None) => reach.clone(),
            (Some(own), Some(other)) => Some(own.intersection(other).cloned().collect()),
        })
    }

    /// For a header; `None` for anywhere.
    pub fn header(&self) -> Result<Option<http::HeaderValue>> {
        let Some(regions) = &self.0 else { return Ok(None) };
        let text = regions.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        http::HeaderValue::from_str(&text).map(Some).map_err(|_| Error::bug(format!("regions '{text}' cannot travel in a header")))
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("any region"),
            Some(regions) if regions.is_empty() => f.write_str("no region"),
            Some(regions) => f.write_str(&regions.iter().map(String::as_str).collect::<Vec<_>>().join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reaches_narrow_and_never_widen() {
        let reach = |text: &str| Reach::parse(text);
        assert!(Reach::anywhere().allows(None) && !reach("eu").allows(None));
        assert!(reach("eu,us").allows(Some("us")) && !reach("eu").allows(Some("us")) && !reach("").allows(Some("eu")));
        assert_eq!(reach("eu,us").and(&reach("us, ch")), reach("us"));
        assert_eq!(reach("eu").and(&reach("us")), reach(""));
        assert_eq!(reach("eu").and(&Reach::anywhere()), reach("eu"));
        assert!(reach("eu").is_within(&reach("eu,us")) && !reach("eu,us").is_within(&reach("eu")));
        assert!(!Reach::anywhere().is_within(&reach("eu")) && reach("eu").is_within(&Reach::anywhere()));
        assert_eq!(Reach::parse(reach("us,eu").header().unwrap().unwrap().to_str().unwrap()), reach("eu,us"));
    }
}
