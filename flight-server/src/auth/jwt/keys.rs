//! The keys in use: read again when a token names an unknown one and every few minutes, never more often than is bearable. Those read
//! last stay in use while their source gives no others.

use super::key_set::KeySet;
use super::provider::KeySource;
use crate::limits;
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An issuer's keys.
pub struct Keys {
    source: KeySource,
    current: RwLock<Arc<KeySet>>,
    /// Whoever reads the keys holds this; the others wait for what it brings.
    reading: tokio::sync::Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    ended: Option<Instant>,
    /// What was complained about last, so that it is said once.
    complaint: Option<String>,
}

impl Keys {
    /// Keys of a source, none read yet but these.
    pub fn new(source: KeySource, first: KeySet) -> Self {
        Self { source, current: RwLock::new(Arc::new(first)), reading: tokio::sync::Mutex::default() }
    }

    /// The keys that may have signed a token. Reads them again when there is none.
    pub async fn fitting(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<DecodingKey> {
        let found = self.current().fitting(id, algorithm);
        if !found.is_empty() {
            return found;
        }
        self.refresh(limits::JWT_KEYS_UNKNOWN_INTERVAL).await;
        self.current().fitting(id, algorithm)
    }

    fn current(&self) -> Arc<KeySet> {
        self.current.read().clone()
    }

    /// Keeps the keys fresh for as long as somebody uses them. Needs a runtime.
    pub fn follow(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(keys) = weak.upgrade() {
                keys.refresh(limits::JWT_KEYS_UNKNOWN_INTERVAL).await;
                drop(keys);
                tokio::time::sleep(limits::JWT_KEYS_REFRESH_INTERVAL).await;
            }
        });
    }

    /// Reads the keys, unless that was done a moment ago.
    async fn refresh(&self, at_most_every: Duration) {
        let mut reading = self.reading.lock().await;
        if reading.ended.is_some_and(|ended| ended.elapsed() < at_most_every) {
            return;
        }
        match self.source.keys().await {
            Ok(keys) => {
                tracing::debug!(source = %self.source, keys = keys.len(), "the keys of JWTs were read");
                *self.current.write() = Arc::new(keys);
                reading.complaint = None;
            }
            Err(problem) => {
                if reading.complaint.as_ref() != Some(&problem) {
                    let kept = self.current().len();
                    tracing::error!(problem, kept, "the keys of JWTs cannot be read: those before stay in use");
                    reading.complaint = Some(problem);
                }
            }
        }
        reading.ended = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn write(path: &std::path::Path, id: &str) {
        let set = json!({ "keys": [{ "kty": "RSA", "kid": id, "n": "AQAB", "e": "AQAB" }] });
        std::fs::write(path, set.to_string()).unwrap();
    }

    #[tokio::test]
    async fn an_unknown_key_has_the_keys_read_again_but_not_at_will() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let keys = Keys::new(KeySource::File(path.clone()), KeySet::default());
        let known = async |id: &str| !keys.fitting(Some(id), Algorithm::RS256).await.is_empty();
        // However long the machine takes for this test, the last reading was just now, or long ago.
        let just_now = async || keys.reading.lock().await.ended = Some(Instant::now() + Duration::from_secs(3600));
        let long_ago = async || keys.reading.lock().await.ended = None;
        assert!(!known("a").await, "there is no file yet");
        write(&path, "a");
        just_now().await;
        assert!(!known("a").await, "it was looked for a moment ago");
        long_ago().await;
        assert!(known("a").await);
        write(&path, "b");
        assert!(known("a").await, "nobody has asked for another");
        long_ago().await;
        assert!(known("b").await);
        just_now().await;
        assert!(!known("a").await);
        // The source goes away, its keys stay.
        std::fs::remove_file(&path).unwrap();
        long_ago().await;
        assert!(!known("c").await && known("b").await);
    }
}
