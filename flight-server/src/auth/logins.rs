//! Tokens of logins: signed, expiring, and closed before that when their owner says so.
//!
//! A token is `bowshot_` and, in URL-safe Base64: version (1 byte), way of the login (1), login id (16), time of issue and of expiry (8 each,
//! milliseconds since 1970, big endian), standing (8), user (UTF-8, to the end), and a signature of all that (32). Whoever holds the key
//! can check it, so logins survive a restart; nothing is remembered but the closed ones.

use super::Way;
use crate::error::{Error, Result};
use crate::limits;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PREFIX: &str = "bowshot_";
const VERSION: u8 = 1;
/// Keeps signatures of other things under the same key from being taken for tokens.
const PURPOSE: &[u8] = b"bowshot login token\0";
const USER_AT: usize = 1 + 1 + 16 + 8 + 8 + 8;
const SIGNATURE_LENGTH: usize = 32;

/// Tells one login from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LoginId([u8; 16]);

/// Tells one state of what a login was bought with from another: a changed password ends the logins of the old one.
pub type Standing = [u8; 8];

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub id: LoginId,
    pub user: String,
    pub way: Way,
    pub standing: Standing,
    issued_ms: u64,
    expires_ms: u64,
}

/// Why a token is not taken; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    #[error("not a token of this server")]
    Foreign,
    #[error("the login has expired")]
    Expired,
    #[error("the login was closed")]
    Closed,
}

/// Signs and checks tokens, and remembers closed logins.
pub struct Logins {
    key: Vec<u8>,
    life: Duration,
    closed: Mutex<Closed>,
}

/// Closed logins, until their tokens would have expired.
#[derive(Default)]
struct Closed {
    /// Each with its user and expiry.
    logins: HashMap<LoginId, (Arc<str>, u64)>,
    /// Users who closed so many that these were put together: none of their logins issued up to the first moment counts, which need not be
    /// remembered after the second.
    users: HashMap<Arc<str>, (u64, u64)>,
}

impl Logins {
    /// With the key of a file, or else a random one.
    ///
    /// # Errors
    /// When the file cannot be read or holds too few or too many bytes, or the machine has no random numbers.
    pub fn new(key_file: Option<&Path>, life: Duration) -> Result<Self> {
        let key = match key_file {
            Some(path) => read_key(path)?,
            None => random::<32>()?.to_vec(),
        };
        Ok(Self { key, life, closed: Mutex::default() })
    }

    /// A new login, which ends after the life of tokens or at `until`, whichever comes first.
    ///
    /// # Errors
    /// When the machine has no random numbers.
    pub fn issue(&self, user: &str, way: Way, standing: Standing, until: Option<SystemTime>, now: SystemTime) -> Result<String> {
        let expires = until.map_or(now + self.life, |until| until.min(now + self.life));
        let mut token = vec![VERSION, way as u8];
        token.extend_from_slice(&random::<16>()?);
        token.extend_from_slice(&milliseconds(now).to_be_bytes());
        token.extend_from_slice(&milliseconds(expires).to_be_bytes());
        token.extend_from_slice(&standing);
        token.extend_from_slice(user.as_bytes());
        let signature = self.signature(&token)?.finalize().into_bytes();
        token.extend_from_slice(&signature);
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(token)))
    }

    /// Whether a text looks like a token of a login, of whichever server.
    pub fn is_token(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// What a token says, if it is good.
    ///
    /// # Errors
    /// [`LoginError`], and the user where the token is ours.
    pub fn check(&self, token: &str, now: SystemTime) -> Result<Login, (LoginError, Option<String>)> {
        let login = self.read(token).ok_or((LoginError::Foreign, None))?;
        if login.expires_ms <= milliseconds(now) {
            return Err((LoginError::Expired, Some(login.user)));
        }
        if self.closed.lock().has(&login) {
            return Err((LoginError::Closed, Some(login.user)));
        }
        Ok(login)
    }

    fn read(&self, token: &str) -> Option<Login> {
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX)?).ok()?;
        let (signed, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE_LENGTH)?)?;
        // Takes the same time wherever the signatures differ.
        self.signature(signed).ok()?.verify_slice(signature).ok()?;
        if signed.first() != Some(&VERSION) {
            return None;
        }
        let eight = |at: usize| signed.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        Some(Login {
            id: LoginId(signed.get(2..18)?.try_into().ok()?),
            user: String::from_utf8(signed.get(USER_AT..)?.to_vec()).ok()?,
            way: Way::of(*signed.get(1)?)?,
            standing: eight(34)?,
            issued_ms: u64::from_be_bytes(eight(18)?),
            expires_ms: u64::from_be_bytes(eight(26)?),
        })
    }

    /// Ends a login: its token is refused from now on.
    pub fn close(&self, login: &Login, now: SystemTime) {
        self.closed.lock().add(login, milliseconds(now), milliseconds(now + self.life));
    }

    fn signature(&self, signed: &[u8]) -> Result<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).map_err(|error| Error::config(format!("the key of tokens: {error}")))?;
        mac.update(PURPOSE);
        mac.update(signed);
        Ok(mac)
    }
}

impl Closed {
    fn has(&self, login: &Login) -> bool {
        self.logins.contains_key(&login.id) || self.users.get(login.user.as_str()).is_some_and(|(until, _)| login.issued_ms <= *until)
    }

    fn add(&mut self, login: &Login, now_ms: u64, forgotten_ms: u64) {
        if self.logins.len() + self.users.len() >= limits::LOGINS_CLOSED_MAX {
            self.make_room(now_ms, forgotten_ms);
        }
        self.logins.insert(login.id, (Arc::from(login.user.as_str()), login.expires_ms));
    }

    /// Forgets what has expired. When that is little, all logins so far of the user who closed most are ended, which takes one entry: memory
    /// is bounded, nobody's closed login comes back, and who closes without measure closes the door on nobody else.
    fn make_room(&mut self, now_ms: u64, forgotten_ms: u64) {
        self.logins.retain(|_, (_, expires_ms)| *expires_ms > now_ms);
        self.users.retain(|_, (_, forgotten_ms)| *forgotten_ms > now_ms);
        if self.logins.len() + self.users.len() < limits::LOGINS_CLOSED_MAX / 4 * 3 {
            return;
        }
        let mut counts: HashMap<Arc<str>, usize> = HashMap::new();
        for (user, _) in self.logins.values() {
            *counts.entry(user.clone()).or_default() += 1;
        }
        if let Some(busiest) = counts.into_iter().max_by_key(|(_, count)| *count).map(|(user, _)| user) {
            tracing::warn!(
                user = super::user_name::shown(&busiest),
                "a user closed too many logins to remember each: all of its logins so far are ended"
            );
            self.logins.retain(|_, (user, _)| *user != busiest);
            self.users.insert(busiest, (now_ms, forgotten_ms));
        }
    }
}

fn read_key(path: &Path) -> Result<Vec<u8>> {
    let wrong = |problem: String| Error::config(format!("auth.token_key_file: {} {problem}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    // A pipe would hold the reader for as long as nobody writes.
    if !metadata.is_file() {
        return Err(wrong("is no file".into()));
    }
    let mut key = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(limits::TOKEN_KEY_BYTES_MAX + 1).read_to_end(&mut key))
        .map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let length = key.len() as u64;
    if !(limits::TOKEN_KEY_BYTES_MIN..=limits::TOKEN_KEY_BYTES_MAX).contains(&length) {
        return Err(wrong(format!(
            "must hold {} to {} random bytes: 'openssl rand -base64 48' writes some",
            limits::TOKEN_KEY_BYTES_MIN,
            limits::TOKEN_KEY_BYTES_MAX
        )));
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o004 != 0 {
        tracing::warn!(file = %path.display(), "every user of this machine can read the key of tokens, and sign tokens for anyone: chmod 600");
    }
    Ok(key)
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut random = [0_u8; N];
    OsRng.try_fill_bytes(&mut random).map_err(|error| Error::config(format!("this machine has no random numbers for tokens: {error}")))?;
    Ok(random)
}

fn milliseconds(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const STANDING: Standing = [7; 8];

    fn logins() -> Logins {
        Logins::new(None, HOUR).unwrap()
    }

    #[test]
    fn a_token_names_its_login_until_it_expires() {
        let (logins, now) = (logins(), SystemTime::now());
        let issue = |until| logins.issue("ana", Way::Password, STANDING, until, now).unwrap();
        let token = issue(None);
        let login = logins.check(&token, now).unwrap();
        assert_eq!((login.user.as_str(), login.way, login.standing), ("ana", Way::Password, STANDING));
        assert_ne!(login.id, logins.check(&issue(None), now).unwrap().id);
        assert_eq!(logins.check(&token, now + HOUR), Err((LoginError::Expired, Some("ana".into()))));
        // What it was bought with ends sooner, and later.
        let short = issue(Some(now + HOUR / 2));
        assert!(logins.check(&short, now + HOUR / 3).is_ok() && logins.check(&short, now + HOUR / 2).is_err());
        assert!(logins.check(&issue(Some(now + HOUR * 2)), now + HOUR).is_err());
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed() {
        let (logins, now) = (logins(), SystemTime::now());
        let token = logins.issue("ana", Way::Password, STANDING, None, now).unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(PREFIX).unwrap()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            let altered = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(altered));
            assert_eq!(logins.check(&altered, now), Err((LoginError::Foreign, None)), "bit {bit}");
        }
        let other = Logins::new(None, HOUR).unwrap();
        for foreign in [&token[..20], "bowshot_", "", "bowshot_ä"] {
            assert!(logins.check(foreign, now).is_err(), "{foreign}");
        }
        assert_eq!(other.check(&token, now), Err((LoginError::Foreign, None)));
    }

    #[test]
    fn a_closed_login_stays_closed_and_others_stay_open() {
        let (logins, now) = (logins(), SystemTime::now());
        let issue = |user: &str| logins.issue(user, Way::Password, STANDING, None, now).unwrap();
        let (closed, open) = (issue("ana"), issue("ana"));
        logins.close(&logins.check(&closed, now).unwrap(), now);
        assert_eq!(logins.check(&closed, now), Err((LoginError::Closed, Some("ana".into()))));
        assert!(logins.check(&open, now).is_ok());
    }

    #[test]
    fn who_closes_without_measure_is_logged_out_and_nobody_else() {
        let (logins, now) = (logins(), SystemTime::now());
        let issue = |user: &str, at| logins.check(&logins.issue(user, Way::Password, STANDING, None, at).unwrap(), at).unwrap();
        let (bob_closed, bob_open, ana_open) = (issue("bob", now), issue("bob", now), issue("ana", now));
        logins.close(&bob_closed, now);
        let flood = issue("ana", now);
        for number in 0..limits::LOGINS_CLOSED_MAX as u128 {
            logins.close(&Login { id: LoginId(number.to_be_bytes()), ..flood.clone() }, now);
        }
        let closed = logins.closed.lock();
        assert!(closed.logins.len() + closed.users.len() < limits::LOGINS_CLOSED_MAX);
        assert!(closed.has(&bob_closed) && !closed.has(&bob_open));
        assert!(closed.has(&ana_open) && closed.has(&flood));
        drop(closed);
        // Checks it as well.
        issue("ana", now + Duration::from_millis(2));
    }

    #[test]
    fn a_key_of_a_file_is_the_same_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        std::fs::write(&path, [9; 48]).unwrap();
        let open = || Logins::new(Some(&path), HOUR).unwrap();
        let token = open().issue("ana", Way::Password, STANDING, None, SystemTime::now()).unwrap();
        assert_eq!(open().check(&token, SystemTime::now()).unwrap().user, "ana");
        for wrong in [vec![9; 31], vec![9; 4097]] {
            std::fs::write(&path, wrong).unwrap();
            let error = Logins::new(Some(&path), HOUR).err().unwrap().to_string();
            assert!(error.contains("auth.token_key_file") && error.contains("32 to 4096"), "{error}");
        }
        assert!(Logins::new(Some(folder.path()), HOUR).err().unwrap().to_string().contains("is no file"));
    }
}
