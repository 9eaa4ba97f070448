//! Who is let in next: places shared fairly by user and priority, as a data structure without clock, tasks or locks.
//!
//! ```text
//!   ana   high   ▢            account  400 ◄── lowest account first: its line of least turns, the oldest ticket there
//!         normal ▢ ▢ ▢
//!   bob   normal ▢ ▢          account 1200     (2 running)
//!         low    ▢
//! ```
//!
//! Each user has an account of the place-time that their queries took, dearer the lower the priority; the one who had least is next. What
//! waits ages by itself: its account stands still while those of others grow, so nothing starves. Whoever comes anew starts at the lowest
//! account there is: neither does absence save up credit, nor does it help to leave and come back.

use crate::config::Priority;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Least place-time that a query costs, in milliseconds: bursts that arrive in one instant are let in by turns too.
const TURN_MS: u64 = 100;
/// What a query of low priority costs as a multiple of one of high priority; lines of one user differ by at most this when one starts anew.
const LOW_COST: u64 = 4;
const PRIORITIES: [Priority; 3] = [Priority::Low, Priority::Normal, Priority::High];

/// A query in the queue, later in its place. In order of arrival.
pub type Ticket = u64;

/// Cost of a turn, or of a millisecond of a place.
fn cost(priority: Priority) -> u64 {
    match priority {
        Priority::Low => LOW_COST,
        Priority::Normal => 2,
        Priority::High => 1,
    }
}

#[derive(Default)]
struct Line {
    tickets: VecDeque<Ticket>,
    turns: u64,
}

#[derive(Default)]
struct User {
    account: u64,
    running: usize,
    /// By priority; within one first come, first served.
    lines: [Line; PRIORITIES.len()],
}

impl User {
    fn waiting(&self) -> usize {
        self.lines.iter().map(|line| line.tickets.len()).sum()
    }

    /// The line whose turn it is; the dearest of those with equal turns.
    fn next_line(&self) -> Option<usize> {
        let lines = self.lines.iter().enumerate().filter(|(_, line)| !line.tickets.is_empty());
        lines.min_by_key(|(number, line)| (line.turns, Reverse(*number))).map(|(number, _)| number)
    }

    fn least_turns(&self) -> Option<u64> {
        self.lines.iter().filter(|line| !line.tickets.is_empty()).map(|line| line.turns).min()
    }
}

struct Ticketed {
    user: String,
    priority: Priority,
    /// When it got its place; nothing while it waits.
    running_since_ms: Option<u64>,
}

/// Places, and who waits for one. Times are milliseconds of any one clock that does not go back.
pub struct FairQueue {
    running_max: usize,
    running_max_per_user: usize,
    waiting_max: usize,
    running: usize,
    last: Ticket,
    tickets: HashMap<Ticket, Ticketed>,
    /// Those with a query here.
    users: BTreeMap<String, User>,
}

impl FairQueue {
    /// `running_max` places, of which a user has at most `running_max_per_user` (0 for all), and `waiting_max` that may wait.
    pub fn new(running_max: usize, running_max_per_user: usize, waiting_max: usize) -> Self {
        let running_max_per_user = if running_max_per_user == 0 { usize::MAX } else { running_max_per_user };
        Self { running_max, running_max_per_user, waiting_max, running: 0, last: 0, tickets: HashMap::new(), users: BTreeMap::new() }
    }

    /// Queries in their places.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Queries that wait.
    pub fn waiting(&self) -> usize {
        self.tickets.len() - self.running
    }

    /// A query comes, and waits.
    pub fn arrive(&mut self, user: &str, priority: Priority, now_ms: u64) -> Ticket {
        self.last += 1;
        let lowest = self.accounts(now_ms).into_values().min().unwrap_or(0);
        let entry = self.users.entry(user.to_string()).or_insert_with(|| User { account: lowest, ..Default::default() });
        let least = entry.least_turns();
        let line = &mut entry.lines[priority as usize];
        if line.tickets.is_empty() {
            // Turns that were taken while the other lines were empty count no more than one of the dearest kind.
            line.turns = least.map_or(0, |least| line.turns.clamp(least, least + LOW_COST));
        }
        line.tickets.push_back(self.last);
        self.tickets.insert(self.last, Ticketed { user: user.to_string(), priority, running_since_ms: None });
        self.last
    }

    /// Gives the next free place away, if there is one and somebody may have it.
    pub fn next(&mut self, now_ms: u64) -> Option<Ticket> {
        if self.running >= self.running_max {
            return None;
        }
        let accounts = self.accounts(now_ms);
        let candidates = self.users.iter().filter(|(_, user)| user.running < self.running_max_per_user).filter_map(|(name, user)| {
            let line = user.next_line()?;
            let ticket = *user.lines[line].tickets.front()?;
            let account = accounts.get(name.as_str()).copied().unwrap_or(user.account);
            Some(((account, user.running, ticket), name.clone(), line))
        });
        let ((_, _, ticket), name, line) = candidates.min()?;
        let user = self.users.get_mut(&name)?;
        user.running += 1;
        user.lines[line].turns += cost(PRIORITIES[line]);
        user.lines[line].tickets.pop_front();
        self.tickets.get_mut(&ticket)?.running_since_ms = Some(now_ms);
        self.running += 1;
        Some(ticket)
    }

    /// A query leaves, from its place or from the queue.
    pub fn leave(&mut self, ticket: Ticket, now_ms: u64) {
        let Some(gone) = self.tickets.remove(&ticket) else { return };
        let Some(user) = self.users.get_mut(&gone.user) else { return };
        match gone.running_since_ms {
            Some(since_ms) => {
                user.running -= 1;
                user.account += charge(gone.priority, since_ms, now_ms);
                self.running -= 1;
            }
            None => user.lines[gone.priority as usize].tickets.retain(|waiting| *waiting != ticket),
        }
        if user.running == 0 && user.waiting() == 0 {
            self.users.remove(&gone.user);
        }
    }

    /// Why a waiting query may not wait, if so. A user has at most three quarters of the queue: the rest is for others.
    pub fn too_many(&self, ticket: Ticket) -> Option<TooMany> {
        let ticketed = self.tickets.get(&ticket).filter(|ticketed| ticketed.running_since_ms.is_none())?;
        if self.waiting() > self.waiting_max {
            return Some(TooMany::InAll);
        }
        let own_max = self.waiting_max - self.waiting_max / 4;
        let own = self.users.get(&ticketed.user).map_or(0, User::waiting);
        (own > own_max).then_some(TooMany::OfOneUser(own_max))
    }

    /// Every user's account now: what was settled, and what their running queries have taken so far.
    fn accounts(&self, now_ms: u64) -> HashMap<&str, u64> {
        let mut accounts: HashMap<&str, u64> = self.users.iter().map(|(name, user)| (name.as_str(), user.account)).collect();
        for ticketed in self.tickets.values() {
            if let (Some(since_ms), Some(account)) = (ticketed.running_since_ms, accounts.get_mut(ticketed.user.as_str())) {
                *account += charge(ticketed.priority, since_ms, now_ms);
            }
        }
        accounts
    }
}

fn charge(priority: Priority, since_ms: u64, now_ms: u64) -> u64 {
    cost(priority) * now_ms.saturating_sub(since_ms).max(TURN_MS)
}

/// Why a query may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooMany {
    /// The queue is full.
    InAll,
    /// This many of the user's wait already.
    OfOneUser(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{High, Low, Normal};

    /// Lets in as many as there are places and names whose they are.
    fn let_in(queue: &mut FairQueue, whose: &HashMap<Ticket, &'static str>, now_ms: u64) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.next(now_ms)).map(|ticket| whose[&ticket]).collect()
    }

    #[test]
    fn users_are_let_in_by_turns_and_each_in_order() {
        let mut queue = FairQueue::new(1, 0, 100);
        let mut whose = HashMap::new();
        for _ in 0..6 {
            whose.insert(queue.arrive("ana", Normal, 0), "ana");
        }
        for _ in 0..2 {
            whose.insert(queue.arrive("bob", Normal, 0), "bob");
        }
        let mut order = vec![];
        let mut tickets = vec![];
        for now_ms in (0..8_000).step_by(1_000) {
            let ticket = queue.next(now_ms).unwrap();
            assert_eq!(queue.next(now_ms), None, "one place");
            order.push(whose[&ticket]);
            tickets.push(ticket);
            queue.leave(ticket, now_ms + 1_000);
        }
        assert_eq!(order, ["ana", "bob", "ana", "bob", "ana", "ana", "ana", "ana"]);
        let ana: Vec<Ticket> = tickets.into_iter().filter(|ticket| whose[ticket] == "ana").collect();
        assert!(ana.is_sorted(), "first come, first served within a user: {ana:?}");
        assert_eq!((queue.running(), queue.waiting(), queue.users.len()), (0, 0, 0), "nothing is kept of who left");
    }

    #[test]
    fn a_burst_shares_the_places_and_a_newcomer_gets_the_next() {
        let mut queue = FairQueue::new(4, 0, 100);
        let mut whose = HashMap::new();
        for user in ["ana", "ana", "ana", "ana", "bob", "bob", "bob"] {
            whose.insert(queue.arrive(user, Normal, 0), user);
        }
        assert_eq!(let_in(&mut queue, &whose, 0), ["ana", "bob", "ana", "bob"]);
        whose.insert(queue.arrive("eve", Normal, 60_000), "eve");
        let done = *whose.iter().find(|(ticket, user)| **user == "bob" && queue.tickets[ticket].running_since_ms.is_some()).unwrap().0;
        queue.leave(done, 60_000);
        assert_eq!(let_in(&mut queue, &whose, 60_000), ["eve"], "who holds no place comes before those who do");
    }

    #[test]
    fn place_time_counts_and_not_the_number_of_queries() {
        let mut queue = FairQueue::new(1, 0, 1_000);
        for _ in 0..100 {
            queue.arrive("short", Normal, 0);
            queue.arrive("long", Normal, 0);
        }
        let (mut now_ms, mut taken) = (0, BTreeMap::new());
        for _ in 0..66 {
            let ticket = queue.next(now_ms).unwrap();
            let user = queue.tickets[&ticket].user.clone();
            let lasts = if user == "long" { 10_000 } else { 1_000 };
            now_ms += lasts;
            queue.leave(ticket, now_ms);
            *taken.entry(user).or_insert(0) += lasts;
        }
        assert!(taken["long"].abs_diff(taken["short"]) <= 10_000, "{taken:?}");
    }

    #[test]
    fn priorities_are_shares_and_low_does_not_starve() {
        // Of one user, and of two; the high ones never run out.
        for users in [["ana", "ana"], ["ana", "bob"]] {
            let mut queue = FairQueue::new(2, 0, 10_000);
            let mut low = vec![];
            for _ in 0..100 {
                queue.arrive(users[0], High, 0);
                queue.arrive(users[0], High, 0);
                low.push(queue.arrive(users[1], Low, 0));
            }
            let (mut now_ms, mut high_in, mut low_in) = (0, 0, 0);
            let mut running = VecDeque::new();
            while high_in + low_in < 100 {
                while let Some(ticket) = queue.next(now_ms) {
                    running.push_back(ticket);
                    *(if low.contains(&ticket) { &mut low_in } else { &mut high_in }) += 1;
                }
                now_ms += 500;
                queue.leave(running.pop_front().unwrap(), now_ms);
            }
            assert!((15..=25).contains(&low_in), "{users:?}: {low_in} low beside {high_in} high");
        }
    }

    #[test]
    fn a_steady_stream_of_high_lets_low_through() {
        // Two clients that send the next high query as soon as one ended: their line is empty again and again.
        let mut queue = FairQueue::new(1, 0, 100);
        let low = queue.arrive("ana", Low, 0);
        let mut high: VecDeque<Ticket> = [queue.arrive("ana", High, 0), queue.arrive("ana", High, 0)].into();
        for turn in 1..20 {
            let now_ms = turn * 1_000;
            let ticket = queue.next(now_ms).unwrap();
            if ticket == low {
                return;
            }
            assert_eq!(Some(ticket), high.pop_front());
            high.push_back(queue.arrive("ana", High, now_ms));
            queue.leave(ticket, now_ms);
        }
        panic!("the query of low priority was never let in");
    }

    #[test]
    fn high_comes_first_even_after_many_turns_of_its_own() {
        let mut queue = FairQueue::new(1, 0, 100);
        for now_ms in 0..50 {
            queue.arrive("ana", High, now_ms);
            let ticket = queue.next(now_ms).unwrap();
            queue.leave(ticket, now_ms);
        }
        let busy = queue.arrive("ana", Normal, 100);
        assert_eq!(queue.next(100), Some(busy));
        for _ in 0..4 {
            queue.arrive("ana", Low, 101);
        }
        let high = queue.arrive("ana", High, 102);
        queue.leave(busy, 200);
        assert_eq!(queue.next(200), Some(high));
    }

    #[test]
    fn a_user_holds_no_more_places_than_allowed() {
        let mut queue = FairQueue::new(4, 2, 100);
        let mut whose = HashMap::new();
        for _ in 0..4 {
            whose.insert(queue.arrive("ana", High, 0), "ana");
        }
        assert_eq!(let_in(&mut queue, &whose, 0).len(), 2);
        whose.insert(queue.arrive("bob", Low, 1), "bob");
        assert_eq!(let_in(&mut queue, &whose, 1), ["bob"], "free places are for others");
    }

    #[test]
    fn the_queue_is_bounded_and_one_user_cannot_fill_it() {
        let mut queue = FairQueue::new(1, 0, 8);
        queue.arrive("ana", Normal, 0);
        queue.next(0);
        let waiting: Vec<Ticket> = (0..6).map(|_| queue.arrive("ana", Normal, 0)).collect();
        assert_eq!(queue.too_many(waiting[5]), None);
        let more = queue.arrive("ana", Normal, 0);
        assert_eq!(queue.too_many(more), Some(TooMany::OfOneUser(6)));
        queue.leave(more, 0);
        let others: Vec<Ticket> = (0..3).map(|_| queue.arrive("bob", Normal, 0)).collect();
        assert_eq!(queue.too_many(others[2]), Some(TooMany::InAll));
        queue.leave(others[2], 0);
        assert_eq!((queue.too_many(others[1]), queue.waiting()), (None, 8));
    }

    #[test]
    fn leaving_the_queue_frees_its_place_in_it() {
        let mut queue = FairQueue::new(1, 0, 8);
        let first = queue.arrive("ana", Normal, 0);
        let second = queue.arrive("ana", Normal, 0);
        let third = queue.arrive("ana", Normal, 0);
        assert_eq!(queue.next(0), Some(first));
        queue.leave(second, 0);
        queue.leave(first, 1);
        queue.leave(first, 1);
        assert_eq!((queue.next(1), queue.waiting()), (Some(third), 0));
    }
}
