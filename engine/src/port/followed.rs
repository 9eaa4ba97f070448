//! What is made of certificate files, following them: files that changed, and fit together, serve the connections after that; those that are open
//! stay open with what they showed.

use super::certificate_files::Content;
use crate::control::now_ms;
use crate::limits;
use parking_lot::RwLock;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the files are, and what they are for.
pub trait Source: Send + Sync + 'static {
    /// What is made of them.
    type Made: Send + Sync + 'static;
    /// What is wrong with them.
    type Error: Display;

    /// The files in words: "the certificates …".
    const CALLED: &'static str;

    /// Where the certificate is, for the log.
    fn certificate(&self) -> &Path;

    /// Reads them.
    ///
    /// # Errors
    /// When one cannot be read.
    fn read(&self) -> Result<Content, Self::Error>;

    /// Checks that they fit together and are valid now. Returns also when the certificate ends, in seconds since the epoch.
    ///
    /// # Errors
    /// When they are not.
    fn make(&self, content: &Content) -> Result<(Self::Made, u64), Self::Error>;
}

/// What is made of files as they are now.
pub struct Followed<S: Source> {
    source: S,
    current: RwLock<Current<S::Made>>,
}

struct Current<M> {
    made: Arc<M>,
    valid_until: u64,
    digest: [u8; 32],
}

/// What the last look at the files left behind.
#[derive(Default)]
pub(crate) struct Watch {
    /// Content that was new at the last look: taken when the next look finds the same, so that half-written files are not.
    settling: Option<[u8; 32]>,
    /// What was complained about last, so that it is said once.
    pub complaint: Option<String>,
    /// When the end of the certificate was announced last.
    announced: Option<Instant>,
}

impl<S: Source> Followed<S> {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// When one cannot be read or they do not fit together.
    pub fn open(source: S) -> Result<Self, S::Error> {
        let current = Self::current_of(&source, &source.read()?)?;
        Ok(Self { source, current: RwLock::new(current) })
    }

    fn current_of(source: &S, content: &Content) -> Result<Current<S::Made>, S::Error> {
        let (made, valid_until) = source.make(content)?;
        Ok(Current { made: Arc::new(made), valid_until, digest: content.digest() })
    }

    /// What was made of them last.
    pub fn made(&self) -> Arc<S::Made> {
        self.current.read().made.clone()
    }

    /// When the certificate in use ends, in seconds since the epoch.
    pub fn valid_until(&self) -> u64 {
        self.current.read().valid_until
    }

    /// Looks at the files every few seconds for as long as somebody uses them. Needs a runtime.
    pub fn follow(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut watch = Watch::default();
            loop {
                tokio::time::sleep(limits::CERTIFICATE_LOOK_INTERVAL).await;
                let Some(followed) = weak.upgrade() else { return };
                let looking = tokio::task::spawn_blocking(move || {
                    followed.look(&mut watch);
                    watch
                });
                match looking.await {
                    Ok(looked) => watch = looked,
                    // Only at the end of the runtime.
                    Err(_) => return,
                }
            }
        });
    }

    pub(crate) fn look(&self, watch: &mut Watch) {
        match self.take_new(watch) {
            Ok(taken) => {
                watch.complaint = None;
                if taken {
                    tracing::info!(
                        certificate = %self.source.certificate().display(),
                        valid_until = date(self.valid_until()),
                        "{} were replaced: new connections use them", S::CALLED
                    );
                    watch.announced = None;
                }
            }
            Err(error) => {
                let complaint = error.to_string();
                if watch.complaint.as_ref() != Some(&complaint) {
                    tracing::error!(%error, "{} cannot be replaced: those before stay in use", S::CALLED);
                    watch.complaint = Some(complaint);
                }
            }
        }
        self.announce_end(watch);
    }

    /// Takes files that differ from those in use and did not change since the last look. Returns whether it did.
    fn take_new(&self, watch: &mut Watch) -> Result<bool, S::Error> {
        let content = self.source.read()?;
        let digest = content.digest();
        if digest == self.current.read().digest {
            watch.settling = None;
            return Ok(false);
        }
        if watch.settling.replace(digest) != Some(digest) {
            return Ok(false);
        }
        *self.current.write() = Self::current_of(&self.source, &content)?;
        watch.settling = None;
        Ok(true)
    }

    /// Says daily that the certificate is about to end: after that nobody would connect any more.
    fn announce_end(&self, watch: &mut Watch) {
        let valid_until = self.valid_until();
        let left = Duration::from_secs(valid_until.saturating_sub(now_ms() / 1000));
        if left > limits::CERTIFICATE_END_NOTICE
            || watch.announced.is_some_and(|announced| announced.elapsed() < limits::CERTIFICATE_END_REPEAT)
        {
            return;
        }
        watch.announced = Some(Instant::now());
        tracing::warn!(
            certificate = %self.source.certificate().display(),
            valid_until = date(valid_until),
            "{} end soon: replace the files, no restart is needed", S::CALLED
        );
    }
}

/// A moment for people, of seconds since the epoch.
pub fn date(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| chrono::DateTime::from_timestamp(seconds, 0))
        .map_or_else(|| format!("second {seconds} of the epoch"), |moment| moment.format("%Y-%m-%d %H:%M UTC").to_string())
}
