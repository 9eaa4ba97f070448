//! What is wrong with settings that coordinators and workers share.

use crate::catalog::location::valid_name;
use crate::config::StorageConfig;
use crate::error::{Error, Result};
use std::collections::HashSet;
use url::Url;

/// Every problem of the configured buckets that can be told without a request. `open` makes a client of a bucket; `section` is that of the settings.
pub fn buckets<T>(section: &str, configured: &[StorageConfig], open: impl Fn(&StorageConfig) -> Result<T>) -> Vec<Error> {
    let mut problems = vec![];
    let mut known = HashSet::new();
    for bucket in configured {
        let url = &bucket.url;
        if !known.insert(url.trim_end_matches('/')) {
            problems.push(Error::user(format!(
                "storage {url} stands twice in {section}.storage: which of the two counts nobody could say, so take one out"
            )));
        }
        let opened = open(bucket).map(drop);
        problems.extend(endpoint(bucket).and(opened).err());
        if let Some(label) = &bucket.residency {
            problems.extend(region(&format!("residency of storage {url}"), label).err());
        }
    }
    problems
}

/// Checks the label of a region, whoever has it.
///
/// # Errors
/// When it is none.
pub fn region(setting: &str, label: &str) -> Result<()> {
    match valid_name(label) {
        true => Ok(()),
        false => {
            Err(Error::user(format!("{setting} '{label}' is no name of a region: use 1 to 64 lower-case letters, digits, '-' and '_'")))
        }
    }
}

fn endpoint(bucket: &StorageConfig) -> Result<()> {
    let (url, Some(endpoint)) = (&bucket.url, &bucket.endpoint) else { return Ok(()) };
    match Url::parse(endpoint) {
        // What stands before the host could be a secret.
        Ok(parsed) if !parsed.username().is_empty() || parsed.password().is_some() => Err(Error::user(format!(
            "storage {url}: its endpoint holds a user or password; write access_key_id and secret_access_key instead"
        ))),
        Ok(parsed) if parsed.scheme() == "https" && parsed.host().is_some() => Ok(()),
        Ok(parsed) if parsed.scheme() == "http" && parsed.host().is_some() => match bucket.allow_http {
            true => Ok(()),
            false => Err(Error::user(format!(
                "storage {url}: its endpoint {endpoint} is not encrypted: write https://, or allow_http = true beside it"
            ))),
        },
        _ => Err(Error::user(format!("storage {url}: its endpoint '{endpoint}' is not a URL like https://host:9000"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::store::open_bucket;

    fn bucket(url: &str) -> StorageConfig {
        StorageConfig {
            url: url.into(),
            region: None,
            residency: None,
            endpoint: None,
            access_key_id: None,
            secret_access_key: None,
            allow_http: false,
        }
    }

    #[test]
    fn each_problem_names_its_bucket_and_no_secret() {
        assert!(buckets("coordinator", &[bucket("s3://a"), bucket("s3://b")], open_bucket).is_empty());
        let configured = [
            bucket("s3://a"),
            bucket("s3://a/"),
            bucket("file:///etc"),
            StorageConfig { secret_access_key: Some("very secret".into()), ..bucket("s3://half") },
            StorageConfig { endpoint: Some("http://minio:9000".into()), ..bucket("s3://plain") },
            StorageConfig { endpoint: Some("https://me:very%20secret@minio".into()), ..bucket("s3://user") },
            StorageConfig { residency: Some("EU".into()), ..bucket("s3://label") },
        ];
        let said: Vec<String> = buckets("coordinator", &configured, open_bucket).iter().map(Error::message).collect();
        for word in ["stands twice", "must be s3://<bucket>", "s3://half", "allow_http", "holds a user", "residency of storage s3://label"]
        {
            assert!(said.iter().any(|text| text.contains(word)), "{word}: {said:#?}");
        }
        assert_eq!(said.len(), 6, "{said:#?}");
        assert!(!said.concat().contains("very"), "{said:#?}");
    }
}
