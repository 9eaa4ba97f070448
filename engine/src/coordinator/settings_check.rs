//! What is wrong with the settings of a coordinator, all of it: a start refuses with the first, `bowshot config check` prints each.

use crate::catalog::location::valid_name;
use crate::config::CoordinatorConfig;
use crate::error::{Error, Result};
use crate::settings_check::{buckets, region};
use crate::worker::{check_token, store};

/// Every problem that can be told without opening anything. Certificates tell theirs when they are read.
pub fn problems(config: &CoordinatorConfig) -> Vec<Error> {
    let single = [
        check_token(&config.cluster_token, "coordinator"),
        region("coordinator.region", &config.region),
        compression(config),
        tables_volume(config),
        schema(config),
    ];
    let mut problems: Vec<Error> = single.into_iter().filter_map(Result::err).collect();
    // Mistakes are found at start, not by the first query.
    problems.extend(buckets("coordinator", &config.storage, store::open_bucket));
    problems
}

fn compression(config: &CoordinatorConfig) -> Result<()> {
    match ["auto", "none", "lz4", "zstd"].contains(&config.query.compression.as_str()) {
        true => Ok(()),
        false => {
            Err(Error::user(format!("coordinator.query.compression cannot be '{}': use auto, none, lz4 or zstd", config.query.compression)))
        }
    }
}

fn tables_volume(config: &CoordinatorConfig) -> Result<()> {
    match &config.tables_volume {
        Some(volume) if !valid_name(volume) => Err(Error::user(format!(
            "coordinator.tables_volume '{volume}' is no name of a volume: use lower-case letters, digits, '-' and '_'"
        ))),
        _ => Ok(()),
    }
}

fn schema(config: &CoordinatorConfig) -> Result<()> {
    match config.default_schema.trim().is_empty() {
        true => Err(Error::user("coordinator.default_schema is empty: name a schema, such as public")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told() {
        let good = CoordinatorConfig { cluster_token: "0123456789abcdef".into(), ..CoordinatorConfig::default() };
        assert!(problems(&good).is_empty());
        let mut bad = CoordinatorConfig { cluster_token: "has a line\nbreak in it".into(), ..good };
        bad.query.compression = "gzip".into();
        bad.region = String::new();
        bad.tables_volume = Some("../data".into());
        bad.default_schema = " ".into();
        let said: Vec<String> = problems(&bad).iter().map(Error::message).collect();
        assert_eq!(said.len(), 5, "{said:#?}");
        assert!(said[0].contains("cannot travel in a header") && !said[0].contains("break in it"), "{said:#?}");
    }
}
