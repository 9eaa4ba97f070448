//! Passwords, kept as Argon2 hashes. An unknown user takes as long as a wrong password.

use crate::error::{Error, Result};
use crate::limits;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The users and the hashes of their passwords.
pub struct Passwords {
    hashes: BTreeMap<String, String>,
    /// Checked for unknown users where no user has a password.
    decoy: String,
    /// Chooses, always in the same way within this process, whose hash is checked for an unknown user.
    decoys: RandomState,
    checks: Arc<Semaphore>,
}

/// Room for one check.
pub struct CheckPermit(OwnedSemaphorePermit);

impl Passwords {
    /// Checks that every hash is one.
    ///
    /// # Errors
    /// [`Error::Config`] that names the user.
    pub fn new(hashes: &BTreeMap<String, String>) -> Result<Self> {
        if let Some(problem) = problems(hashes).into_iter().next() {
            return Err(problem);
        }
        Ok(Self {
            hashes: hashes.clone(),
            decoy: hash_password("a password of nobody")?,
            decoys: RandomState::new(),
            checks: Arc::new(Semaphore::new(limits::PASSWORD_CHECKS_MAX)),
        })
    }

    /// The hash of a user's password.
    pub fn hash(&self, user: &str) -> Option<&str> {
        self.hashes.get(user).map(String::as_str)
    }

    /// Waits until there is room for one more check. Nothing only when the server ends.
    pub async fn permit(&self) -> Option<CheckPermit> {
        self.checks.clone().acquire_owned().await.ok().map(CheckPermit)
    }

    /// Whether this is the user's password.
    pub async fn check(&self, user: &str, password: String, permit: CheckPermit) -> bool {
        let known = self.hash(user);
        let hash = known.unwrap_or_else(|| self.decoy_for(user)).to_string();
        // The permit stays with the check, which runs to its end even when the caller is gone.
        let checked = tokio::task::spawn_blocking(move || {
            let matches = verify(&password, &hash);
            drop(permit.0);
            matches
        });
        checked.await.unwrap_or(false) && known.is_some()
    }

    /// Hashes may differ in what they cost, so an unknown user costs what some user does, and each time the same one.
    fn decoy_for(&self, user: &str) -> &str {
        let position = self.decoys.hash_one(user) as usize % self.hashes.len().max(1);
        self.hashes.values().nth(position).unwrap_or(&self.decoy)
    }
}

/// Hashes that no password would ever match. Their text is told to nobody: it may be a password in the wrong place.
pub fn problems(hashes: &BTreeMap<String, String>) -> Vec<Error> {
    let broken = hashes.iter().filter_map(|(user, hash)| Some((user, broken(hash)?)));
    let told =
        |(user, why)| Error::config(format!("auth.users.{user} is not a password hash: {why}. Make one with 'bowshot hash-password'"));
    broken.map(told).collect()
}

/// Why nothing can be checked against a hash.
fn broken(hash: &str) -> Option<&'static str> {
    let Ok(parsed) = PasswordHash::new(hash) else {
        return Some("it is not in the form $argon2id$v=19$m=…,t=…,p=…$salt$hash, or a part of it is cut off");
    };
    if Algorithm::try_from(parsed.algorithm.as_str()).is_err() {
        return Some("it is of another kind than argon2id, argon2i and argon2d");
    }
    if parsed.salt.is_none() || parsed.hash.is_none() {
        return Some("its end is missing: a shell takes what begins with $ out of a text in double quotes");
    }
    let version = parsed.version.map_or(Ok(Version::default()), Version::try_from);
    if version.is_err() || Params::try_from(&parsed).is_err() {
        return Some("its parameters are none of Argon2's");
    }
    None
}

fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// The hash of a password with a random salt, as it belongs into `auth.users`.
///
/// # Errors
/// When the machine has no random numbers.
pub fn hash_password(password: &str) -> Result<String> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| Error::config(format!("the password cannot be hashed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_that_nothing_matches_is_none_and_is_not_told() {
        let whole = hash_password("secret").unwrap();
        assert_eq!(broken(&whole), None);
        let cut = whole.rsplit_once('$').unwrap().0;
        let params = whole.replace("p=1", "p=0");
        let other = whole.replace("argon2id", "scrypt");
        for bad in ["secret", "", cut, &whole[..whole.len() - 30], &params, &other, "$2b$12$abcdefghijklmnopqrstuv"] {
            let said = problems(&BTreeMap::from([("ana".to_string(), bad.to_string())]));
            assert_eq!(said.len(), 1, "{bad}");
            let said = said[0].to_string();
            assert!(said.contains("auth.users.ana") && (bad.len() < 8 || !said.contains(bad)), "{said}");
        }
    }

    #[tokio::test]
    async fn only_a_users_own_password_is_right() {
        let hashes = ["ana", "bob"].map(|user| (user.to_string(), hash_password(&format!("{user}'s")).unwrap()));
        let passwords = Passwords::new(&BTreeMap::from(hashes)).unwrap();
        // An unknown user is never let in, not even with the password whose hash stands in for theirs.
        for (user, password, right) in [("ana", "ana's", true), ("ana", "bob's", false), ("eve", "ana's", false), ("eve", "bob's", false)] {
            let permit = passwords.permit().await.unwrap();
            assert_eq!(passwords.check(user, password.to_string(), permit).await, right, "{user}");
        }
        let decoy = passwords.decoy_for("eve");
        assert!(passwords.hashes.values().any(|hash| hash == decoy) && decoy == passwords.decoy_for("eve"));
        assert!(Passwords::new(&BTreeMap::from([("ana".to_string(), "plain".to_string())])).is_err());
    }
}
