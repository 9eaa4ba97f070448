//! Where a table's files lie: `node://<node or *>/<volume>/<path>` or `s3://<bucket>/<prefix>`.

use crate::control::TABLE_FOLDER;
use crate::error::{Error, Result};
use url::Url;

/// A parsed LOCATION.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Files in a volume of the named node, or of every node that has such a volume.
    Node {
        /// Node id; `None` for `*`.
        node: Option<String>,
        /// Volume name.
        volume: String,
        /// Path below the volume: a folder (ends with `/` or is empty) or one file.
        path: String,
    },
    /// Objects of a bucket.
    Bucket {
        /// `s3://bucket`, as the storage configuration names it.
        url: Url,
        /// Key prefix without a leading `/`.
        prefix: String,
    },
}

impl Location {
    /// Parses the text after LOCATION.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::user(format!(
                "LOCATION '{text}' {why}: write 'node://*/<volume>/<folder>/' for files in the volumes of all nodes, 'node://<node>/<volume>/<file>.parquet' for one, or 's3://<bucket>/<prefix>/'"
            ))
        };
        if let Some(rest) = text.strip_prefix("node://") {
            let mut parts = rest.splitn(3, '/');
            let node = parts.next().filter(|node| !node.is_empty()).ok_or_else(|| wrong("names no node"))?;
            let volume = parts.next().filter(|volume| !volume.is_empty()).ok_or_else(|| wrong("names no volume"))?;
            if !valid_name(volume) {
                return Err(wrong("has a volume name with characters other than letters, digits, '-' and '_'"));
            }
            let path = parts.next().unwrap_or_default();
            if path.split('/').any(|part| part == "..") {
                return Err(wrong("contains '..'"));
            }
            return Ok(Self::Node {
                node: (node != "*").then(|| node.to_string()),
                volume: volume.to_string(),
                path: folder_or_file(path),
            });
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(wrong("names no bucket"));
            }
            // A URL would read a user, a port or an escape out of other names.
            if !bucket.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '.' | '_')) {
                return Err(wrong("has a bucket name with characters other than letters, digits, '-', '.' and '_'"));
            }
            let url = Url::parse(&format!("s3://{bucket}")).map_err(|_| wrong("is no valid URL"))?;
            return Ok(Self::Bucket { url, prefix: folder_or_file(prefix.trim_start_matches('/')) });
        }
        Err(wrong("has an unknown scheme"))
    }

    /// Base URL that every node registers the location's object store under. The node is not part of it: placement decides that.
    pub fn store_url(&self) -> Result<Url> {
        match self {
            Self::Node { volume, .. } => volume_url(volume),
            Self::Bucket { url, .. } => Ok(url.clone()),
        }
    }

    /// Where the files of a managed table lie: in this volume of several nodes, in a folder of its own.
    pub fn of_managed(volume: &str, folder: uuid::Uuid) -> String {
        format!("node://*/{volume}/{TABLE_FOLDER}/{folder}/")
    }

    /// Whether the files there are the cluster's to write.
    pub fn is_managed(&self) -> bool {
        matches!(self, Self::Node { path, .. } if path.starts_with(TABLE_FOLDER))
    }

    /// Whether a file of the volume or bucket belongs to the location.
    pub fn covers(&self, file: &str) -> bool {
        let (Self::Node { path, .. } | Self::Bucket { prefix: path, .. }) = self;
        path.is_empty() || (path.ends_with('/') && file.starts_with(path.as_str())) || file == path
    }
}

/// The name of a stored file, character by character. What is made of text otherwise would escape those that some stores do not like.
pub fn object_path(path: &str) -> object_store::path::Path {
    object_store::path::Path::parse(path).unwrap_or_else(|_| object_store::path::Path::from(path))
}

/// URL of a volume's object store inside plans.
pub fn volume_url(volume: &str) -> Result<Url> {
    Url::parse(&format!("node://{volume}")).map_err(|error| Error::user(format!("volume name '{volume}' cannot be part of a URL: {error}")))
}

/// Whether a node or volume name is safe in URLs, paths and headers.
pub fn valid_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
}

/// A path that names no Parquet file is a folder, with or without the slash.
fn folder_or_file(path: &str) -> String {
    if path.is_empty() || path.ends_with('/') || path.to_ascii_lowercase().ends_with(".parquet") {
        path.to_string()
    } else {
        format!("{path}/")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_nodes_volumes_and_buckets() {
        let all = Location::parse("node://*/data/lineitem").unwrap();
        assert_eq!(all, Location::Node { node: None, volume: "data".into(), path: "lineitem/".into() });
        assert!(all.covers("lineitem/part-1.parquet") && !all.covers("lineitems/part-1.parquet"));
        let one = Location::parse("node://node-1/data/a.parquet").unwrap();
        assert!(one.covers("a.parquet") && !one.covers("b.parquet"));
        for text in ["s3://é", "s3://é/x/", "s3://", "s3:///x", "s3://a b/x", "s3://user@b/x", "s3://b:80/x", "s3://b?x", "s3://%41/x"] {
            let said = Location::parse(text).unwrap_err().message();
            assert!(said.contains(text) && said.contains("bucket"), "{said}");
        }
        let bucket = Location::parse("s3://b/x/y/").unwrap();
        assert_eq!(bucket, Location::Bucket { url: Url::parse("s3://b").unwrap(), prefix: "x/y/".into() });
    }

    #[test]
    fn refuses_what_it_cannot_place() {
        for text in ["file:///etc/passwd", "node://", "node://*", "node://*/Data/x", "node://*/data/../x", "/data"] {
            assert!(Location::parse(text).is_err(), "{text}");
        }
    }
}
