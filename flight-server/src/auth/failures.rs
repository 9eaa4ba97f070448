//! Refusals: told of in the log, counted by user name and by address, and answered later and later.
//!
//! Nobody is locked out, or an attacker could lock out others: the right credentials are never held back for what somebody else sent
//! under the same name. Guessing many at once gains nothing either: an address that was refused a few times has its passwords checked
//! in turns, and a turn lasts until its answer goes out, whether or not the caller is still there to take it.

use super::user_name;
use crate::limits;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// The one text of every refusal.
pub const REFUSED: &str = "the credentials were not accepted";
/// The text for logins beyond those that may wait. Their credentials were not looked at, so it tells nothing of them.
const TOO_MANY: &str = "too many logins from this address wait for their turn after wrong ones; try again later";

/// Why credentials were refused: for the log alone.
#[derive(Debug)]
pub struct Refusal {
    /// Kind of the credentials.
    pub way: &'static str,
    /// The user that they claim to be of, as far as that can be read.
    pub user: Option<String>,
    pub reason: String,
}

impl Refusal {
    pub fn new(way: &'static str, user: Option<String>, reason: impl Into<String>) -> Self {
        Self { way, user, reason: reason.into() }
    }
}

/// What is known of past refusals.
pub struct Failures {
    users: Cache<[u8; 32], Score>,
    addresses: Cache<IpAddr, Score>,
    turns: Cache<IpAddr, Arc<Turns>>,
    delayed: Arc<Semaphore>,
}

/// A count that halves with time.
#[derive(Debug, Clone, Copy)]
struct Score {
    count: f64,
    at: Instant,
}

impl Score {
    fn now(self, now: Instant) -> f64 {
        let half_lives = now.saturating_duration_since(self.at).as_secs_f64() / limits::REFUSAL_HALF_LIFE.as_secs_f64();
        self.count * (-half_lives).exp2()
    }
}

/// Checks of an address beside each other, and those that wait for one.
struct Turns {
    running: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The right to have one password of an address checked.
pub struct Turn(#[expect(dead_code, reason = "held for its end")] OwnedSemaphorePermit);

impl Default for Failures {
    fn default() -> Self {
        // After some half-lives nothing is left of a count.
        let forgotten = limits::REFUSAL_HALF_LIFE * 10;
        Self {
            users: Cache::builder().max_capacity(limits::REFUSALS_COUNTED_MAX).time_to_idle(forgotten).build(),
            addresses: Cache::builder().max_capacity(limits::REFUSALS_COUNTED_MAX).time_to_idle(forgotten).build(),
            turns: Cache::builder().max_capacity(limits::REFUSALS_COUNTED_MAX).time_to_idle(forgotten).build(),
            delayed: Arc::new(Semaphore::new(limits::REFUSALS_DELAYED_MAX)),
        }
    }
}

impl Failures {
    /// Whether passwords of this address are checked in turns.
    pub fn takes_turns(&self, address: SocketAddr) -> bool {
        self.addresses.get(&machine(address)).is_some_and(|score| score.now(Instant::now()) >= limits::TURNS_AFTER_REFUSALS)
    }

    /// Waits for a turn of this address.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when too many wait already.
    pub async fn turn(&self, address: SocketAddr) -> Result<Turn, Status> {
        let turns = self.turns.get_with(machine(address), || {
            Arc::new(Turns { running: Arc::new(Semaphore::new(limits::TURNS_PER_ADDRESS)), waiting: AtomicUsize::new(0) })
        });
        let waiting = Waiting::among(&turns.waiting).ok_or_else(|| Status::resource_exhausted(TOO_MANY))?;
        let permit = turns.running.clone().acquire_owned().await.map_err(|_| Status::unavailable("the server is about to end"))?;
        drop(waiting);
        Ok(Turn(permit))
    }

    /// Counts and logs a refusal, waits, and gives the answer. `turn` ends with the wait, even when the caller does not stay for it.
    pub async fn refuse(&self, refusal: Refusal, address: SocketAddr, turn: Option<Turn>) -> Status {
        let delay = self.count(refusal.user.as_deref(), address, Instant::now());
        metrics::counter!("bowshot_auth_failures_total", "way" => refusal.way).increment(1);
        tracing::warn!(
            user = user_name::shown(refusal.user.as_deref().unwrap_or_default()),
            %address,
            way = refusal.way,
            reason = user_name::shown(&refusal.reason),
            delay_ms = delay.as_millis(),
            "credentials were refused"
        );
        if let Ok(room) = self.delayed.clone().try_acquire_owned() {
            let waited = tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                drop((turn, room));
            });
            // An error only at the end of the runtime.
            let _ = waited.await;
        }
        Status::unauthenticated(REFUSED)
    }

    /// Counts a refusal, and gives the delay of its answer.
    fn count(&self, user: Option<&str>, address: SocketAddr, now: Instant) -> Duration {
        let mut highest = add(&self.addresses, machine(address), now);
        if let Some(user) = user {
            // A digest, so that long names take no more room than short ones.
            highest = highest.max(add(&self.users, Sha256::digest(user.as_bytes()).into(), now));
        }
        // Half a refusal that is left of an old one does not double yet.
        let doublings = (highest - 1.0).round().clamp(0.0, 20.0);
        limits::REFUSAL_DELAY_FIRST.mul_f64(doublings.exp2()).min(limits::REFUSAL_DELAY_MAX)
    }
}

fn add<K: std::hash::Hash + Eq + Send + Sync + 'static>(scores: &Cache<K, Score>, key: K, now: Instant) -> f64 {
    let entry = scores.entry(key).and_upsert_with(|before| {
        let before = before.map_or(0.0, |entry| entry.into_value().now(now));
        Score { count: before + 1.0, at: now }
    });
    entry.into_value().count
}

/// Who counts as one: an IPv4 address, or the 64 bits of an IPv6 network, within which a machine may choose its address.
fn machine(address: SocketAddr) -> IpAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// One among those that wait, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn among(count: &'a AtomicUsize) -> Option<Self> {
        let room = |waiting: usize| (waiting < limits::TURNS_WAITING_MAX).then_some(waiting + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn delays_double_up_to_a_limit_and_are_forgotten() {
        let (failures, start) = (Failures::default(), Instant::now());
        let attacker = from("192.0.2.1");
        let delays: Vec<_> = (0..8).map(|_| failures.count(Some("ana"), attacker, start).as_millis()).collect();
        assert_eq!(delays, [250, 500, 1000, 2000, 4000, 4000, 4000, 4000]);
        // By name from elsewhere, by address under another name, and neither.
        let elsewhere = from("192.0.2.2");
        assert_eq!(failures.count(Some("ana"), elsewhere, start), limits::REFUSAL_DELAY_MAX);
        assert_eq!(failures.count(Some("bob"), attacker, start), limits::REFUSAL_DELAY_MAX);
        assert_eq!(failures.count(Some("carl"), from("192.0.2.3"), start), limits::REFUSAL_DELAY_FIRST);
        let later = start + limits::REFUSAL_HALF_LIFE * 6;
        assert_eq!(failures.count(Some("ana"), attacker, later), limits::REFUSAL_DELAY_FIRST);
    }

    #[test]
    fn a_machine_cannot_change_its_count_by_its_address() {
        assert_eq!(machine(from("2001:db8::1")), machine(from("2001:db8::2:3")));
        assert_ne!(machine(from("2001:db8:0:1::1")), machine(from("2001:db8::1")));
        assert_eq!(machine(from("::ffff:192.0.2.1")), machine(from("192.0.2.1")));
    }

    #[tokio::test]
    async fn an_attackers_turns_last_as_long_as_their_delays_even_when_it_hangs_up() {
        let failures = Arc::new(Failures::default());
        let address = from("192.0.2.1");
        for _ in 0..3 {
            failures.count(None, address, Instant::now());
        }
        assert!(failures.takes_turns(address) && !failures.takes_turns(from("192.0.2.9")));
        let before = Instant::now();
        for _ in 0..limits::TURNS_PER_ADDRESS {
            let turn = failures.turn(address).await.unwrap();
            let refusing = failures.refuse(Refusal::new("password", None, "wrong"), address, Some(turn));
            // The caller hangs up at once.
            assert!(tokio::time::timeout(Duration::from_millis(1), refusing).await.is_err());
        }
        let _turn = failures.turn(address).await.unwrap();
        // The fourth refusal's delay; a half-life that has begun may take a little of it.
        assert!(before.elapsed() >= Duration::from_millis(1900), "{:?}", before.elapsed());
    }

    #[tokio::test]
    async fn those_who_wait_are_bounded() {
        let failures = Arc::new(Failures::default());
        let address = from("192.0.2.1");
        let mut held = vec![];
        for _ in 0..limits::TURNS_PER_ADDRESS {
            held.push(failures.turn(address).await.unwrap());
        }
        let mut waiting: Vec<_> = (0..limits::TURNS_WAITING_MAX).map(|_| Box::pin(failures.turn(address))).collect();
        for turn in &mut waiting {
            assert!(futures::poll!(turn.as_mut()).is_pending());
        }
        let refused = failures.turn(address).await.err().unwrap();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        // Those who go make room.
        waiting.pop();
        drop(held);
        assert!(failures.turn(from("192.0.2.2")).await.is_ok());
        assert!(futures::poll!(waiting[0].as_mut()).is_ready());
    }
}
