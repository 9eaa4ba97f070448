//! The connections of a port: how many there are at once, how long each may be silent, and which one makes room for another.
//!
//! ```text
//!   accepted ──a call──► heard ──credentials are good──► admitted ──no call for long──► ended
//!      │ no call in time     │ no other call in time, or one that lasts
//!      └──► ended            └──► ended                        a full door ends those first that are not admitted, the oldest before others
//! ```

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// What a door allows.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// Connections at once.
    pub connections: usize,
    /// Those of one address.
    pub per_address: usize,
    /// Those that are not admitted.
    pub strangers: usize,
    /// Time until the first call.
    pub first_call: Duration,
    /// Time of a call without good credentials.
    pub admission: Duration,
    /// Time without a call, later.
    pub idle: Duration,
}

/// The door of a port.
#[derive(Debug)]
pub struct Door {
    limits: DoorLimits,
    visits: Mutex<Visits>,
}

#[derive(Debug, Default)]
struct Visits {
    last: u64,
    open: BTreeMap<u64, Arc<Visit>>,
}

/// A connection as its port sees it.
#[derive(Debug)]
pub struct Visit {
    address: IpAddr,
    accepted: Instant,
    limits: DoorLimits,
    talk: Mutex<Talk>,
    /// It has made room for another one.
    sent_away: AtomicBool,
    reader: AtomicWaker,
}

#[derive(Debug)]
struct Talk {
    heard: bool,
    admitted: bool,
    calls: usize,
    calls_since: Instant,
    silent_since: Instant,
}

/// A connection's place, held by the connection.
pub struct Visitor {
    door: Arc<Door>,
    number: u64,
    visit: Arc<Visit>,
    timer: Pin<Box<Sleep>>,
}

/// A call that goes on.
pub struct OpenCall(Arc<Visit>);

impl Door {
    /// A door that nobody came through yet.
    pub fn new(limits: DoorLimits) -> Self {
        Self { limits, visits: Mutex::default() }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.visits.lock().staying().count()
    }

    /// A connection comes.
    ///
    /// # Errors
    /// Why there is no place for it, in words for the caller.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Visitor, String> {
        let limits = self.limits;
        let mut visits = self.visits.lock();
        if visits.strangers(None).count() >= limits.strangers {
            visits.make_room(None);
        }
        if visits.staying().filter(|visit| visit.address == address).count() >= limits.per_address && !visits.make_room(Some(address)) {
            return Err(format!(
                "{address} has {} connections to this server, as many as one address may have: close some, or try again later",
                limits.per_address
            ));
        }
        if visits.staying().count() >= limits.connections && !visits.make_room(None) {
            return Err(format!("all {} connections that this server takes are in use: try again later", limits.connections));
        }
        let now = Instant::now();
        let talk = Talk { heard: false, admitted: false, calls: 0, calls_since: now, silent_since: now };
        let visit =
            Visit { address, accepted: now, limits, talk: Mutex::new(talk), sent_away: AtomicBool::new(false), reader: AtomicWaker::new() };
        let visit = Arc::new(visit);
        visits.last += 1;
        let number = visits.last;
        visits.open.insert(number, visit.clone());
        Ok(Visitor { door: self.clone(), number, visit, timer: Box::pin(tokio::time::sleep(limits.first_call)) })
    }
}

impl Visits {
    fn staying(&self) -> impl Iterator<Item = &Arc<Visit>> {
        self.open.values().filter(|visit| !visit.sent_away.load(Ordering::Acquire))
    }

    /// Those that are not admitted, the oldest first.
    fn strangers(&self, address: Option<IpAddr>) -> impl Iterator<Item = &Arc<Visit>> {
        self.staying().filter(move |visit| address.is_none_or(|address| visit.address == address) && !visit.talk.lock().admitted)
    }

    /// Sends the oldest stranger away, of the address that has most of them unless one is named. Says whether there was one.
    fn make_room(&mut self, address: Option<IpAddr>) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        self.strangers(address).for_each(|visit| *counts.entry(visit.address).or_default() += 1);
        let Some((busiest, _)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return false };
        let Some(oldest) = self.strangers(Some(busiest)).next() else { return false };
        oldest.sent_away.store(true, Ordering::Release);
        oldest.reader.wake();
        true
    }
}

impl Visit {
    /// A call begins.
    pub fn call(self: &Arc<Self>) -> OpenCall {
        let mut talk = self.talk.lock();
        talk.heard = true;
        if talk.calls == 0 {
            talk.calls_since = Instant::now();
        }
        talk.calls += 1;
        OpenCall(self.clone())
    }

    /// A call had good credentials.
    pub fn admit(&self) {
        self.talk.lock().admitted = true;
    }

    /// When it has been silent for too long, as it looks now, and what it is told then.
    fn end(&self) -> (Instant, &'static str) {
        let talk = self.talk.lock();
        match (talk.admitted, talk.heard, talk.calls) {
            (false, false, _) => (self.accepted + self.limits.first_call, "no call came in time"),
            // Who mistyped may try again, however long the refusal was held back.
            (false, true, 0) => (talk.silent_since + self.limits.first_call, "no other call came in time"),
            (false, true, _) => (talk.calls_since + self.limits.admission, "no call had good credentials in time"),
            (true, _, 0) => (talk.silent_since + self.limits.idle, "no call came for long"),
            (true, ..) => (Instant::now() + self.limits.idle, "no call came for long"),
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut talk = self.0.talk.lock();
        talk.calls = talk.calls.saturating_sub(1);
        talk.silent_since = Instant::now();
    }
}

impl Visitor {
    /// What others see of it.
    pub fn visit(&self) -> &Arc<Visit> {
        &self.visit
    }

    /// Ready when the connection must end; to be asked whenever it is read from.
    pub fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        self.visit.reader.register(context.waker());
        loop {
            if self.visit.sent_away.load(Ordering::Acquire) {
                return Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection made room for others"));
            }
            let (end, why) = self.visit.end();
            if end <= Instant::now() {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            if self.timer.deadline() != end {
                self.timer.as_mut().reset(end);
            }
            ready!(self.timer.as_mut().poll(context));
        }
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.door.visits.lock().open.remove(&self.number);
    }
}

/// Files that this process may have open at once; what most systems allow where this one does not say.
pub fn open_files_max() -> usize {
    const USUAL: usize = 1024;
    let said = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = said.lines().find_map(|line| line.strip_prefix("Max open files"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => usize::MAX,
        Some(soft) => soft.parse().unwrap_or(USUAL),
        None => USUAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::net::Ipv4Addr;

    fn door(connections: usize, per_address: usize, strangers: usize) -> Arc<Door> {
        let unit = Duration::from_millis(50);
        let limits = DoorLimits { connections, per_address, strangers, first_call: unit, admission: 4 * unit, idle: 8 * unit };
        Arc::new(Door::new(limits))
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    async fn end(visitor: &mut Visitor) -> io::ErrorKind {
        poll_fn(|context| visitor.poll_end(context)).await.kind()
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_ended_and_whoever_calls_is_not() {
        let door = door(9, 9, 9);
        let start = Instant::now();
        let (mut silent, mut heard, mut admitted) =
            (door.enter(address(1)).unwrap(), door.enter(address(1)).unwrap(), door.enter(address(1)).unwrap());
        let _call = heard.visit().call();
        let call = admitted.visit().call();
        admitted.visit().admit();
        assert_eq!(end(&mut silent).await, io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(50));
        // A call that goes on without credentials does not keep its connection.
        assert_eq!(end(&mut heard).await, io::ErrorKind::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(200));
        assert!(tokio::time::timeout(Duration::from_millis(600), end(&mut admitted)).await.is_err());
        drop(call);
        let quiet = Instant::now();
        assert_eq!(end(&mut admitted).await, io::ErrorKind::TimedOut);
        assert!(quiet.elapsed() >= Duration::from_millis(400));
    }

    #[tokio::test]
    async fn strangers_make_room_and_friends_do_not() {
        let door = door(4, 3, 2);
        let friend = door.enter(address(1)).unwrap();
        friend.visit().admit();
        let mut first = door.enter(address(2)).unwrap();
        let second = door.enter(address(2)).unwrap();
        // A third stranger: the oldest of the address with most of them goes.
        let third = door.enter(address(3)).unwrap();
        assert_eq!(end(&mut first).await, io::ErrorKind::ConnectionAborted);
        drop(first);
        for visitor in [&second, &third] {
            visitor.visit().admit();
        }
        let last = door.enter(address(4)).unwrap();
        last.visit().admit();
        assert!(door.enter(address(5)).map(drop).unwrap_err().contains("all 4 connections"));
        drop(last);
        door.enter(address(5)).unwrap();
    }

    #[tokio::test]
    async fn one_address_does_not_get_all_places() {
        let door = door(9, 2, 9);
        let held: Vec<_> = (0..2).map(|_| door.enter(address(1)).unwrap()).collect();
        held.iter().for_each(|visitor| visitor.visit().admit());
        assert!(door.enter(address(1)).map(drop).unwrap_err().contains("10.0.0.1 has 2 connections"));
        door.enter(address(2)).unwrap();
    }

    #[test]
    fn the_system_says_how_many_files() {
        assert!(open_files_max() > 16);
    }
}
