//! A pool of memory that is shared fairly between those who hold some of it.
//!
//! DataFusion's `FairSpillPool` divides by everyone who is registered: beside a hundred small queries, an operator that needs two megabytes is
//! refused while most of the pool is free. And it lets operators that spill take all, so that one that cannot spill fails beside them.
//!
//! ```text
//!   | cannot spill ──►     ◄── can spill: at most four fifths of the pool, an equal share for each holder | reserve |
//! ```
//!
//! As there, a share is held against one reservation, whatever else is held: an operator that writes what it has to disk starts a new one
//! meanwhile, and one that finds the shares of others full must be able to start: held to the sum, it fails where it would have spilled. Shares shrink
//! as holders come, and each spills at its next step, so that the pool is exceeded for moments only, and never by more than [`EXCESS_TIMES`] says but
//! for first bytes.

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;

/// Who holds less is no holder, and gets as much in any case: operators cannot spill what they have not got yet.
const SMALL_BYTES: usize = 2 << 20;
/// That, as a part of a small pool.
const SMALL_PART: usize = 32;
/// Part of the pool that operators which spill leave to those that cannot.
const RESERVE_PART: usize = 5;

/// The most that is held at any moment, in sizes of the pool.
const EXCESS_TIMES: usize = 2;

/// In the name of an operator that aggregates, before its partition.
const AGGREGATES: &str = "AggregateStream[";

/// The pool.
#[derive(Debug)]
pub struct FairPool {
    limit: usize,
    small: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of consumers that cannot spill.
    fixed: usize,
    /// What each other consumer holds, by its id.
    holders: HashMap<usize, Held>,
    /// Bytes of consumers that can spill.
    spillable_bytes: usize,
}

/// What a consumer holds.
#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    /// Those, and what is set aside for it.
    charged: usize,
    spills: bool,
}

/// What a consumer of `bytes` costs. One that aggregates ends by making a batch of its groups, which it does not account for: half as much again is
/// set aside for that.
fn charge(consumer: &MemoryConsumer, bytes: usize) -> usize {
    if consumer.name().contains(AGGREGATES) { bytes.saturating_add(bytes / 2) } else { bytes }
}

impl State {
    fn change(&mut self, consumer: &MemoryConsumer, change: impl Fn(usize) -> usize) {
        let weighed = consumer.can_spill() || consumer.name().contains(AGGREGATES);
        let total = if consumer.can_spill() { &mut self.spillable_bytes } else { &mut self.fixed };
        if !weighed {
            *total = change(*total);
            return;
        }
        let held = self.holders.entry(consumer.id()).or_default();
        held.spills = consumer.can_spill();
        held.bytes = change(held.bytes);
        let charged = charge(consumer, held.bytes);
        *total = (*total + charged).saturating_sub(held.charged);
        held.charged = charged;
    }
}

impl FairPool {
    /// A pool of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let limit = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { limit, small: SMALL_BYTES.min(limit / SMALL_PART), state: Mutex::default() }
    }

    /// The most that a reservation of a consumer which can spill may have now.
    fn share(&self, state: &State, consumer: &MemoryConsumer) -> usize {
        let others = state.holders.iter().filter(|(id, held)| **id != consumer.id() && held.spills && held.charged > self.small).count();
        let left = self.limit.saturating_sub(state.fixed).min(self.limit - self.limit / RESERVE_PART);
        (left / (others + 1)).max(self.small)
    }
}

impl MemoryPool for FairPool {
    fn name(&self) -> &str {
        "fair"
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        // Its reservations have ended before it.
        let mut state = self.state.lock();
        if state.holders.contains_key(&consumer.id()) {
            state.change(consumer, |_| 0);
            state.holders.remove(&consumer.id());
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.state.lock().change(reservation.consumer(), |held| held + additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.state.lock().change(reservation.consumer(), |held| held.saturating_sub(shrink));
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut state = self.state.lock();
        let consumer = reservation.consumer();
        let held = state.fixed + state.spillable_bytes;
        let free = self.limit.saturating_sub(held);
        let then = charge(consumer, reservation.size() + additional);
        let more = then - charge(consumer, reservation.size());
        let allowed = if consumer.can_spill() {
            then <= self.small || (then <= self.share(&state, consumer) && held + more <= self.limit.saturating_mul(EXCESS_TIMES))
        } else {
            more <= free
        };
        if !allowed {
            let share = if consumer.can_spill() { self.share(&state, consumer) } else { self.limit };
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{} asks for {} beyond the {} that it has; {} of {} are free, and its part is {}",
                consumer.name(),
                human_readable_size(additional),
                human_readable_size(reservation.size()),
                human_readable_size(free),
                human_readable_size(self.limit),
                human_readable_size(share),
            )));
        }
        state.change(consumer, |held| held + additional);
        Ok(())
    }

    fn reserved(&self) -> usize {
        let state = self.state.lock();
        state.fixed + state.spillable_bytes
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for FairPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fair({})", human_readable_size(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    const MIB: usize = 1 << 20;

    fn pool(mebibytes: u64) -> Arc<dyn MemoryPool> {
        Arc::new(FairPool::new(mebibytes << 20))
    }

    fn consumer(pool: &Arc<dyn MemoryPool>, can_spill: bool) -> MemoryReservation {
        MemoryConsumer::new(if can_spill { "a sort" } else { "a join" }).with_can_spill(can_spill).register(pool)
    }

    #[test]
    fn who_holds_nothing_takes_no_share() {
        let pool = pool(100);
        let idle: Vec<_> = (0..100).map(|_| consumer(&pool, true)).collect();
        idle.iter().for_each(|one| one.try_grow(100 << 10).unwrap());
        let sort = consumer(&pool, true);
        sort.try_grow(70 * MIB).unwrap();
        assert!(sort.try_grow(20 * MIB).is_err(), "a fifth stays for those that cannot spill");
        let join = consumer(&pool, false);
        join.try_grow(20 * MIB).unwrap();
        let refused = join.try_grow(MIB).unwrap_err().to_string();
        assert!(refused.contains("a join asks for 1024.0 KB beyond the 20.0 MB"), "{refused}");
        drop((sort, join, idle));
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn holders_share_and_newcomers_get_their_first_bytes() {
        let pool = pool(100);
        let (first, second, third) = (consumer(&pool, true), consumer(&pool, true), consumer(&pool, true));
        first.try_grow(60 * MIB).unwrap();
        second.try_grow(20 * MIB).unwrap();
        let join = consumer(&pool, false);
        join.try_grow(20 * MIB).unwrap();
        // Nothing is free, and yet it starts: with nothing to spill it would fail.
        third.try_grow(20 * MIB).unwrap();
        assert!(third.try_grow(7 * MIB).is_err(), "a third of four fifths");
        assert!(first.try_grow(MIB).is_err());
        first.free();
        third.try_grow(20 * MIB).unwrap();
        assert!(second.try_grow(21 * MIB).is_err(), "half of four fifths");
    }

    #[test]
    fn many_who_come_one_after_another_are_bounded() {
        let pool = pool(100);
        let holders: Vec<_> = (0..20).map(|_| consumer(&pool, true)).collect();
        for holder in &holders {
            // Each takes all that it gets, and none gives back.
            while holder.try_grow(MIB).is_ok() {}
        }
        assert!(holders.iter().all(|holder| holder.size() >= 2 * MIB));
        let first_bytes = 2 * MIB * holders.len();
        assert!((100 * MIB..=200 * MIB + first_bytes).contains(&pool.reserved()), "{}", pool.reserved());
        drop(holders);
        assert_eq!(pool.reserved(), 0);
    }

    #[test]
    fn who_aggregates_has_room_for_its_output() {
        let pool = pool(90);
        for can_spill in [true, false] {
            let groups = MemoryConsumer::new("FinalHashAggregateStream[3]").with_can_spill(can_spill).register(&pool);
            groups.try_grow(30 * MIB).unwrap();
            assert_eq!(pool.reserved(), 45 * MIB);
            assert!(groups.try_grow(31 * MIB).is_err());
            groups.try_grow(10 * MIB).unwrap();
            groups.shrink(39 * MIB);
            groups.grow(1);
            assert_eq!(pool.reserved(), (MIB + 1) * 3 / 2);
            drop(groups);
            assert_eq!(pool.reserved(), 0);
        }
    }

    #[test]
    fn what_is_split_off_takes_no_share_of_its_own() {
        let pool = pool(100);
        let sort = consumer(&pool, true);
        sort.try_grow(30 * MIB).unwrap();
        let part = sort.split(20 * MIB);
        assert!(part.try_grow(61 * MIB).is_err());
        part.try_grow(60 * MIB).unwrap();
        drop(part);
        assert_eq!(pool.reserved(), 10 * MIB);
    }
}
