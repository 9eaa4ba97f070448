//! Places for tasks on workers: a query gets those of all its tasks at once, or waits for them with none.
//!
//! Tasks of one query need each other: were they admitted one by one, two queries could each hold what the other waits for. A query that
//! waits here holds nothing on any worker, and one that runs never waits for more, so every wait ends with queries that run. The line is
//! first come, first served, so that a query with many tasks is not passed over for ever; who comes first is decided before, by
//! [admission](super::admission). A query with more tasks than a worker has places gets that worker to itself.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::oneshot;

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
    last: u64,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    number: u64,
    needs: Arc<BTreeMap<String, Need>>,
    wake: oneshot::Sender<()>,
}

/// The places of a query's tasks, or its wait for them; given back when it is dropped.
pub struct Taken {
    places: TaskPlaces,
    number: u64,
    needs: Arc<BTreeMap<String, Need>>,
}

impl TaskPlaces {
    /// Waits until all of a query's tasks have places.
    pub async fn take(&self, needs: BTreeMap<String, Need>) -> Taken {
        let (wake, given) = oneshot::channel();
        let needs = Arc::new(needs);
        let taken = {
            let mut line = self.line.lock();
            line.last += 1;
            let number = line.last;
            line.waiting.push_back(Waiting { number, needs: needs.clone(), wake });
            line.give();
            Taken { places: self.clone(), number, needs }
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

    fn give(&mut self) {
        while self.waiting.front().is_some_and(|first| self.fits(&first.needs)) {
            let Some(first) = self.waiting.pop_front() else { return };
            for (node, need) in first.needs.iter() {
                *self.taken.entry(node.clone()).or_default() += need.tasks;
            }
            // Whoever does not wait any more gives the places back by dropping them.
            let _ = first.wake.send(());
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
                }
                line.taken.retain(|_, taken| *taken > 0);
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
        let first = places.take(needs(&[("a", 3)], 4)).await;
        let mut second = Box::pin(places.take(needs(&[("a", 2), ("b", 2)], 4)));
        assert!(second.as_mut().now_or_never().is_none());
        // Node b is free, but whoever came first goes first.
        let mut third = Box::pin(places.take(needs(&[("b", 1)], 4)));
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
        let small = places.take(needs(&[("a", 1)], 2)).await;
        let mut large = Box::pin(places.take(needs(&[("a", 9), ("b", 9)], 2)));
        assert!(large.as_mut().now_or_never().is_none());
        drop(small);
        let large = large.await;
        let mut next = Box::pin(places.take(needs(&[("b", 1)], 2)));
        assert!(next.as_mut().now_or_never().is_none());
        drop(large);
        next.await;
    }

    #[tokio::test]
    async fn whoever_stops_waiting_lets_the_next_through() {
        let places = TaskPlaces::default();
        let first = places.take(needs(&[("a", 2)], 2)).await;
        let mut gone = Box::pin(places.take(needs(&[("a", 1)], 2)));
        assert!(gone.as_mut().now_or_never().is_none());
        let mut other = Box::pin(places.take(needs(&[("b", 1)], 2)));
        assert!(other.as_mut().now_or_never().is_none());
        drop(gone);
        other.await;
        drop(first);
        assert!(places.line.lock().taken.is_empty());
    }
}
