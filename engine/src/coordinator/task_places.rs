//! Places for tasks on workers: a query gets those of all its tasks at once, or waits for them with none.
//!
//! Tasks of one query need each other: were they admitted one by one, two queries could each hold what the other waits for. A query that
//! waits here holds nothing on any worker, and one that runs never waits for more, so every wait ends with queries that run. One user gets at
//! most three quarters of a worker's places, so that others find some however long that user's queries take. The line is
//! first come, first served, so that a query with many tasks is not passed over for ever; who comes first is decided before, by
//! [admission](super::admission). A query with more tasks than a worker has places gets that worker to itself.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What a worker's places are divided by for the part that one user leaves to others.
const OTHERS_PART: u64 = 4;

/// What a query asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Tasks it will run there.
    pub tasks: u64,
    /// Tasks that the node runs at once (`worker.max_tasks`); 0 when it does not say.
    pub max: u64,
}

/// The places of all workers. Clones share them.
#[derive(Clone, Default)]
pub struct TaskPlaces {
    line: Arc<Mutex<Line>>,
}

#[derive(Default)]
struct Line {
    taken: HashMap<String, u64>,
    /// The same of each user, by node and user.
    taken_by: HashMap<(String, String), u64>,
    last: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    number: u64,
    user: Arc<str>,
    needs: Arc<BTreeMap<String, Need>>,
    wake: oneshot::Sender<()>,
}

/// The places of a query's tasks, or its wait for them; given back when it is dropped.
pub struct Taken {
    places: TaskPlaces,
    number: u64,
    user: Arc<str>,
    needs: Arc<BTreeMap<String, Need>>,
}

impl TaskPlaces {
    /// Whether a query waits for places.
    pub fn are_wanted(&self) -> bool {
        !self.line.lock().waiting.is_empty()
    }

    /// Waits until all tasks of a query of `user` have places.
    pub async fn take(&self, user: &str, needs: BTreeMap<String, Need>) -> Taken {
        let user: Arc<str> = user.into();
        let (wake, given) = oneshot::channel();
        let needs = Arc::new(needs);
        let taken = {
            let mut line = self.line.lock();
            line.last += 1;
            let number = line.last;
            line.waiting.push_back(Waiting { number, user: user.clone(), needs: needs.clone(), wake });
            line.give();
            Taken { places: self.clone(), number, user, needs }
        };
        // The sender stands in the line for as long as `taken` lives.
        let _ = given.await;
        taken
    }
}

impl Line {
    fn fits(&self, needs: &BTreeMap<String, Need>) -> bool {
        needs.iter().all(|(node, need)| match self.taken.get(node).copied().unwrap_or(0) {
            0 => true,
            taken => need.max == 0 || taken + need.tasks <= need.max,
        })
    }

    /// Whether a user's part of the places is enough.
    fn fits_user(&self, user: &str, needs: &BTreeMap<String, Need>) -> bool {
        needs.iter().all(|(node, need)| match self.taken_by.get(&(node.clone(), user.to_string())).copied().unwrap_or(0) {
            0 => true,
            taken => need.max == 0 || taken + need.tasks <= need.max - need.max / OTHERS_PART,
        })
    }

    fn give(&mut self) {
        // Who has enough waits for queries of their own, and holds up nobody else.
        let mut enough: HashSet<Arc<str>> = HashSet::new();
        let mut at = 0;
        while let Some(next) = self.waiting.get(at) {
            if enough.contains(&next.user) || !self.fits_user(&next.user, &next.needs) {
                enough.insert(next.user.clone());
                at += 1;
                continue;
            }
            if !self.fits(&next.needs) {
                return;
            }
            let Some(next) = self.waiting.remove(at) else { return };
            for (node, need) in next.needs.iter() {
                *self.taken.entry(node.clone()).or_default() += need.tasks;
                *self.taken_by.entry((node.clone(), next.user.to_string())).or_default() += need.tasks;
            }
            // Whoever does not wait any more gives the places back by dropping them.
            let _ = next.wake.send(());
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut line = self.places.line.lock();
        match line.waiting.iter().position(|waiting| waiting.number == self.number) {
            Some(at) => drop(line.waiting.remove(at)),
            None => {
                for (node, need) in self.needs.iter() {
                    if let Some(taken) = line.taken.get_mut(node) {
                        *taken = taken.saturating_sub(need.tasks);
                    }
                    if let Some(taken) = line.taken_by.get_mut(&(node.clone(), self.user.to_string())) {
                        *taken = taken.saturating_sub(need.tasks);
                    }
                }
                line.taken.retain(|_, taken| *taken > 0);
                line.taken_by.retain(|_, taken| *taken > 0);
            }
        }
        line.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn needs(tasks: &[(&str, u64)], max: u64) -> BTreeMap<String, Need> {
        tasks.iter().map(|(node, tasks)| (node.to_string(), Need { tasks: *tasks, max })).collect()
    }

    #[tokio::test]
    async fn a_query_waits_for_all_of_its_places_and_holds_none_meanwhile() {
        let places = TaskPlaces::default();
        let first = places.take("ana", needs(&[("a", 3)], 4)).await;
        let mut second = Box::pin(places.take("ana", needs(&[("a", 2), ("b", 2)], 4)));
        assert!(second.as_mut().now_or_never().is_none());
        // Node b is free, but whoever came first goes first.
        let mut third = Box::pin(places.take("ana", needs(&[("b", 1)], 4)));
        assert!(third.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.await;
        let third = third.await;
        drop((second, third));
        assert!(places.line.lock().taken.is_empty());
    }

    #[tokio::test]
    async fn a_query_larger_than_a_worker_gets_it_alone() {
        let places = TaskPlaces::default();
        let small = places.take("ana", needs(&[("a", 1)], 2)).await;
        let mut large = Box::pin(places.take("ana", needs(&[("a", 9), ("b", 9)], 2)));
        assert!(large.as_mut().now_or_never().is_none());
        drop(small);
        let large = large.await;
        let mut next = Box::pin(places.take("ana", needs(&[("b", 1)], 2)));
        assert!(next.as_mut().now_or_never().is_none());
        drop(large);
        next.await;
    }

    #[tokio::test]
    async fn a_user_leaves_places_to_others() {
        let places = TaskPlaces::default();
        let first = places.take("ana", needs(&[("a", 3)], 8)).await;
        let second = places.take("ana", needs(&[("a", 3)], 8)).await;
        let mut third = Box::pin(places.take("ana", needs(&[("a", 1)], 8)));
        assert!(third.as_mut().now_or_never().is_none());
        let other = places.take("bob", needs(&[("a", 2)], 8)).await;
        assert!(places.are_wanted());
        drop(first);
        let third = third.await;
        drop((second, third, other));
        assert!(places.line.lock().taken.is_empty() && places.line.lock().taken_by.is_empty());
    }

    #[tokio::test]
    async fn whoever_stops_waiting_lets_the_next_through() {
        let places = TaskPlaces::default();
        let first = places.take("ana", needs(&[("a", 2)], 2)).await;
        let mut gone = Box::pin(places.take("ana", needs(&[("a", 1)], 2)));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut other = Box::pin(places.take("ana", needs(&[("b", 1)], 2)));
        assert!(other.as_mut().now_or_never().is_none());
        drop(gone);
        other.await;
        drop(first);
        assert!(places.line.lock().taken.is_empty());
    }
}
