//! Object stores that a node's plans may read: its volumes and the configured buckets, nothing else.
//!
//! DataFusion's own registry serves `file://` by default: a plan from a stranger could read any file of the machine.

use crate::catalog::location::volume_url;
use crate::config::StorageConfig;
use crate::error::{Error, Result};
use datafusion::common::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use url::Url;

/// The registry of a node.
#[derive(Debug, Default)]
pub struct RestrictedStores {
    stores: RwLock<HashMap<String, Arc<dyn ObjectStore>>>,
    volumes: RwLock<HashMap<String, std::path::PathBuf>>,
}

fn key(url: &Url) -> String {
    format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default())
}

impl RestrictedStores {
    /// Serves a folder as `node://<volume>`.
    pub fn add_volume(&self, volume: &str, folder: &Path) -> Result<()> {
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| Error::user(format!("volume '{volume}' in {} cannot be opened: {error}", folder.display())))?;
        let url = volume_url(volume)?;
        self.stores.write().insert(key(&url), Arc::new(store));
        self.volumes.write().insert(key(&url), folder.to_path_buf());
        Ok(())
    }

    /// Serves a bucket as `s3://<bucket>`.
    pub fn add_bucket(&self, config: &StorageConfig) -> Result<()> {
        let url = Url::parse(&config.url)
            .map_err(|error| Error::user(format!("storage url '{}' is no URL: {error}; write s3://bucket", config.url)))?;
        self.stores.write().insert(key(&url), open_bucket(config)?);
        Ok(())
    }

    /// Folder of a volume, by its store URL.
    pub fn volume_folder(&self, url: &Url) -> Option<std::path::PathBuf> {
        self.volumes.read().get(&key(url)).cloned()
    }
}

/// Opens a bucket; no request is sent yet.
pub fn open_bucket(config: &StorageConfig) -> Result<Arc<dyn ObjectStore>> {
    let bucket = config
        .url
        .strip_prefix("s3://")
        .map(|rest| rest.trim_end_matches('/'))
        .filter(|bucket| !bucket.is_empty() && !bucket.contains('/'))
        .ok_or_else(|| Error::user(format!("storage url '{}' must be s3://<bucket>", config.url)))?;
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_allow_http(config.allow_http);
    builder = builder.with_region(config.region.as_deref().unwrap_or("us-east-1"));
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder = match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => builder.with_access_key_id(id).with_secret_access_key(secret),
        (None, None) => builder.with_skip_signature(true),
        _ => {
            return Err(Error::user(format!(
                "storage {} has an access key id without a secret, or the reverse: give both or none",
                config.url
            )));
        }
    };
    let retry = object_store::RetryConfig { max_retries: 3, retry_timeout: std::time::Duration::from_secs(10), ..Default::default() };
    let store =
        builder.with_retry(retry).build().map_err(|error| Error::user(format!("storage {} cannot be opened: {error}", config.url)))?;
    Ok(Arc::new(store))
}

impl ObjectStoreRegistry for RestrictedStores {
    fn register_store(&self, url: &Url, _store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        tracing::warn!(%url, "a plan tried to register an object store; ignored");
        None
    }

    fn get_store(&self, url: &Url) -> datafusion::common::Result<Arc<dyn ObjectStore>> {
        self.stores.read().get(&key(url)).cloned().ok_or_else(|| {
            DataFusionError::from(match url.scheme() {
                "node" => Error::new(
                    crate::error::ErrorClass::Denied,
                    format!("this node serves no volume '{}'", url.host_str().unwrap_or_default()),
                ),
                "s3" => Error::user(format!("bucket {} is not configured: add it under [[coordinator.storage]]", key(url))),
                _ => Error::new(
                    crate::error::ErrorClass::Denied,
                    format!("this node does not read {}://: only its volumes and configured buckets", url.scheme()),
                ),
            })
        })
    }
}
