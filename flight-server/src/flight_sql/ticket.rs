//! Tickets: signed, expiring, bound to one query, or a part of its result, and one user.
//!
//! Layout: version (1 byte), query id (16), part (4, big endian; all ones for the whole result), expiry (8, milliseconds since 1970, big
//! endian), signature (32). The user is signed but not sent: whoever presents the ticket must be that user.

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::Sha256;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

const VERSION: u8 = 2;
const SIGNED_LENGTH: usize = 1 + 16 + 4 + 8;
const SIGNATURE_LENGTH: usize = 32;

/// What a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    pub query_id: Uuid,
    /// Number of a part of its result; nothing for all of it.
    pub part: Option<u32>,
}

impl Fetch {
    /// All of a result.
    pub fn whole(query_id: Uuid) -> Self {
        Self { query_id, part: None }
    }
}

/// Why a ticket is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Not made by this server, altered, or of another user: told apart for nobody.
    #[error("this ticket is not valid here")]
    Invalid,
    /// Too old.
    #[error("this ticket has expired; run the statement again")]
    Expired,
}

/// Signs and checks tickets with a key that lives as long as the process: a restart forgets the results too.
pub struct TicketSigner {
    key: [u8; 32],
}

impl TicketSigner {
    /// A signer with a random key.
    ///
    /// # Errors
    /// When the machine has no random numbers.
    pub fn new() -> std::io::Result<Self> {
        let mut key = [0_u8; 32];
        OsRng.try_fill_bytes(&mut key).map_err(std::io::Error::other)?;
        Ok(Self { key })
    }

    /// A ticket for `user` to `fetch` until `valid_for` has passed after `now`.
    pub fn sign(&self, fetch: Fetch, user: &str, now: SystemTime, valid_for: Duration) -> Vec<u8> {
        let mut ticket = Vec::with_capacity(SIGNED_LENGTH + SIGNATURE_LENGTH);
        ticket.push(VERSION);
        ticket.extend_from_slice(fetch.query_id.as_bytes());
        ticket.extend_from_slice(&fetch.part.unwrap_or(u32::MAX).to_be_bytes());
        ticket.extend_from_slice(&milliseconds(now + valid_for).to_be_bytes());
        if let Some(mac) = self.mac(&ticket, user) {
            ticket.extend_from_slice(&mac.finalize().into_bytes());
        }
        ticket
    }

    /// What a ticket is for, when `user` may use it at `now`.
    ///
    /// # Errors
    /// [`TicketError`].
    pub fn check(&self, ticket: &[u8], user: &str, now: SystemTime) -> Result<Fetch, TicketError> {
        if ticket.len() != SIGNED_LENGTH + SIGNATURE_LENGTH || ticket[0] != VERSION {
            return Err(TicketError::Invalid);
        }
        let (signed, signature) = ticket.split_at(SIGNED_LENGTH);
        let mac = self.mac(signed, user).ok_or(TicketError::Invalid)?;
        // Takes the same time wherever the signatures differ.
        mac.verify_slice(signature).map_err(|_| TicketError::Invalid)?;
        let expiry = <[u8; 8]>::try_from(&signed[21..]).map_err(|_| TicketError::Invalid)?;
        if u64::from_be_bytes(expiry) < milliseconds(now) {
            return Err(TicketError::Expired);
        }
        let query_id = Uuid::from_slice(&signed[1..17]).map_err(|_| TicketError::Invalid)?;
        let part = <[u8; 4]>::try_from(&signed[17..21]).map_err(|_| TicketError::Invalid)?;
        Ok(Fetch { query_id, part: Some(u32::from_be_bytes(part)).filter(|part| *part != u32::MAX) })
    }

    fn mac(&self, signed: &[u8], user: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(signed);
        mac.update(user.as_bytes());
        Some(mac)
    }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_ticket_is_good_for_its_user_until_it_expires() {
        let signer = TicketSigner::new().unwrap();
        let now = SystemTime::now();
        for part in [None, Some(0), Some(7)] {
            let fetch = Fetch { query_id: Uuid::now_v7(), part };
            let ticket = signer.sign(fetch, "ana", now, MINUTE);
            assert_eq!(signer.check(&ticket, "ana", now), Ok(fetch));
            assert_eq!(signer.check(&ticket, "bob", now), Err(TicketError::Invalid));
            assert_eq!(signer.check(&ticket, "ana", now + MINUTE * 2), Err(TicketError::Expired));
        }
    }

    #[test]
    fn an_altered_or_foreign_ticket_is_refused() {
        let signer = TicketSigner::new().unwrap();
        let now = SystemTime::now();
        let ticket = signer.sign(Fetch::whole(Uuid::now_v7()), "ana", now, MINUTE);
        for position in 0..ticket.len() {
            let mut altered = ticket.clone();
            altered[position] ^= 1;
            assert_eq!(signer.check(&altered, "ana", now), Err(TicketError::Invalid), "byte {position}");
        }
        assert_eq!(signer.check(&ticket[..20], "ana", now), Err(TicketError::Invalid));
        let other = TicketSigner::new().unwrap();
        assert_eq!(other.check(&ticket, "ana", now), Err(TicketError::Invalid));
    }

    #[test]
    fn a_ticket_that_is_nearly_right_is_refused() {
        let signer = TicketSigner::new().unwrap();
        let now = SystemTime::now();
        let tickets = [None, Some(7)].map(|part| signer.sign(Fetch { query_id: Uuid::now_v7(), part }, "ana", now, MINUTE));
        bowshot_mutations::near_bytes(&tickets, |case| {
            let known = tickets.iter().any(|ticket| ticket == case);
            assert_eq!(signer.check(case, "ana", now).is_ok(), known, "{}", case.escape_ascii());
        });
    }
}
