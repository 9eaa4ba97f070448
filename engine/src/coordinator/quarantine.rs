//! Statements that workers do not survive: after two lost workers in a row a statement is refused for a while, before it takes the others too.
//!
//! What is counted are processes that are gone. A node that is heard again as the same process was cut off, and no statement is to blame for that.
//! A statement that ran beside the one that is to blame may be counted with it; the first run that ends well clears it.

use super::clock::Clock;
use super::membership::NodeInfo;
use crate::error::{Error, ErrorClass, Result};
use crate::limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What is held against statements, by their text.
#[derive(Default)]
pub struct Quarantine {
    clock: Clock,
    suspects: Mutex<HashMap<String, Suspect>>,
}

#[derive(Clone)]
struct Suspect {
    lost: Vec<Life>,
    last: Instant,
    /// How long the next quarantine is.
    wait: Duration,
    until: Option<Instant>,
}

/// A worker's process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    node: String,
    incarnation: String,
    /// When a statement lost it.
    lost: Instant,
}

impl Life {
    /// Whether the process was heard after it was lost. What it sent before may arrive a moment later.
    fn goes_on(&self, nodes: &[NodeInfo], now: Instant) -> bool {
        let heard = |node: &NodeInfo| now.checked_sub(Duration::from_millis(node.heartbeat_age_ms));
        let same = |node: &&NodeInfo| node.node_id == self.node && node.incarnation == self.incarnation;
        nodes.iter().find(same).and_then(heard).is_some_and(|heard| heard > self.lost + limits::HEARTBEAT_INTERVAL / 2)
    }
}

impl Quarantine {
    /// Nothing against any statement yet, by this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, ..Self::default() }
    }

    /// Whether a statement may run; `nodes` tells which nodes there are, and is asked of few.
    ///
    /// # Errors
    /// [`ErrorClass::Resource`] with the workers that it cost and how long it has to wait.
    pub fn check(&self, sql: &str, nodes: impl FnOnce() -> Vec<NodeInfo>) -> Result<()> {
        let mut suspects = self.suspects.lock();
        let Some(suspect) = suspects.get_mut(sql) else { return Ok(()) };
        let Some(until) = suspect.until else { return Ok(()) };
        let (now, nodes) = (self.clock.now(), nodes());
        suspect.lost.retain(|life| !life.goes_on(&nodes, now));
        if suspect.lost.len() < limits::QUARANTINE_LOSSES {
            suspect.until = None;
            return Ok(());
        }
        if now >= until {
            // One more try; the next worker that it costs is enough.
            return Ok(());
        }
        Err(Error::new(ErrorClass::Resource, suspect.text(now)))
    }

    /// A worker was lost while it ran a statement. Gives the error of a statement that is not to be tried again.
    pub fn lost(&self, sql: &str, node: &str, nodes: &[NodeInfo]) -> Option<Error> {
        let now = self.clock.now();
        let mut suspects = self.suspects.lock();
        suspects.retain(|_, suspect| now.duration_since(suspect.last) < limits::QUARANTINE_FORGETS_AFTER);
        if suspects.len() >= limits::QUARANTINE_STATEMENTS_MAX
            && !suspects.contains_key(sql)
            && let Some(oldest) = suspects.iter().min_by_key(|(_, suspect)| suspect.last).map(|(sql, _)| sql.clone())
        {
            suspects.remove(&oldest);
        }
        let suspect = suspects.entry(sql.to_string()).or_insert_with(|| Suspect {
            lost: vec![],
            last: now,
            wait: limits::QUARANTINE_WAIT,
            until: None,
        });
        suspect.last = now;
        suspect.lost.retain(|life| !life.goes_on(nodes, now));
        let incarnation = nodes.iter().find(|known| known.node_id == node).map(|known| known.incarnation.clone());
        let life = Life { node: node.to_string(), incarnation: incarnation.unwrap_or_default(), lost: now };
        if !suspect.lost.iter().any(|known| (&known.node, &known.incarnation) == (&life.node, &life.incarnation)) {
            suspect.lost.push(life);
        }
        if suspect.lost.len() < limits::QUARANTINE_LOSSES {
            return None;
        }
        suspect.until = Some(now + suspect.wait);
        let error = Error::new(ErrorClass::Resource, suspect.text(now));
        suspect.wait = (suspect.wait * 2).min(limits::QUARANTINE_WAIT_MAX);
        Some(error)
    }

    /// A statement has ended well.
    pub fn ended_well(&self, sql: &str) {
        self.suspects.lock().remove(sql);
    }
}

impl Suspect {
    fn text(&self, now: Instant) -> String {
        let mut nodes: Vec<&str> = self.lost.iter().map(|life| life.node.as_str()).collect();
        nodes.dedup();
        let left = self.until.map_or(0, |until| until.saturating_duration_since(now).as_secs_f64().ceil() as u64);
        format!(
            "{} workers in a row were lost while they ran this statement ({}), so that it is not tried again for {left} s: give workers more memory or ask for less, and see their logs for why they ended; SET bowshot.ignore_quarantine = true runs it all the same",
            self.lost.len(),
            nodes.join(", "),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::membership::NodeState;
    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// A node that was heard so long ago.
    fn node(node_id: &str, life: u32, heard: Duration) -> NodeInfo {
        NodeInfo {
            budgets: Default::default(),
            node_id: node_id.into(),
            role: "worker".into(),
            region: "local".into(),
            volume_regions: BTreeMap::new(),
            address: String::new(),
            observed_address: None,
            // As in containers.
            pid: 1,
            incarnation: life.to_string(),
            state: NodeState::Live,
            version: String::new(),
            device: String::new(),
            cached_bytes: 0,
            cpu_threads: 1,
            heartbeat_age_ms: heard.as_millis() as u64,
            file_count: 0,
            replica_count: 0,
            running_tasks: 0,
            max_tasks: 0,
            memory_reserved_bytes: 0,
            spilled_bytes: 0,
            clock_ahead_ms: 0,
        }
    }

    /// A quarantine, and what lets time pass for it.
    fn quarantine() -> (Quarantine, impl Fn(Duration)) {
        let (start, passed) = (Instant::now(), Arc::new(Mutex::new(Duration::ZERO)));
        let by_hand = passed.clone();
        (Quarantine::new(Clock::new(move || start + *by_hand.lock())), move |by| *passed.lock() += by)
    }

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn two_deaths_in_a_row_are_enough_and_time_heals() {
        let (quarantine, pass) = quarantine();
        let second = Duration::from_secs(1);
        // The coordinator takes a node for live for a while after it has ended.
        let alive = [node("node-1", 1, NOW), node("node-2", 2, NOW)];
        assert!(quarantine.lost("q", "node-1", &alive).is_none());
        pass(second);
        let after = [node("node-1", 1, second), node("node-2", 2, NOW)];
        let error = quarantine.lost("q", "node-2", &after).unwrap().message();
        assert!(error.contains("2 workers") && error.contains("node-1, node-2") && error.contains("60 s"), "{error}");
        // Others have their ids now.
        let later = [node("node-1", 7, NOW), node("node-2", 8, NOW)];
        pass(second);
        assert_eq!(quarantine.check("q", || later.to_vec()).unwrap_err().class(), ErrorClass::Resource);
        assert!(quarantine.check("another", || later.to_vec()).is_ok());
        pass(limits::QUARANTINE_WAIT);
        assert!(quarantine.check("q", || later.to_vec()).is_ok());
        // The next one is enough, and the wait is longer.
        assert!(quarantine.lost("q", "node-1", &later).unwrap().message().contains("120 s"));
        quarantine.ended_well("q");
        assert!(quarantine.check("q", || later.to_vec()).is_ok());
    }

    #[test]
    fn nodes_that_were_cut_off_are_nobodys_fault() {
        let (quarantine, pass) = quarantine();
        let second = Duration::from_secs(1);
        assert!(quarantine.lost("q", "node-1", &[node("node-1", 1, NOW), node("node-2", 2, NOW)]).is_none());
        pass(second);
        // Its heartbeats arrive, although nothing else does.
        assert!(quarantine.lost("q", "node-2", &[node("node-1", 1, NOW), node("node-2", 2, NOW)]).is_none());
        pass(second);
        let silent = [node("node-1", 1, second), node("node-2", 2, second)];
        assert!(quarantine.lost("q", "node-1", &silent).is_some(), "lost again, and not heard since");
        pass(second);
        assert!(quarantine.check("q", || vec![node("node-1", 1, NOW), node("node-2", 2, second * 2)]).is_ok());
    }

    #[test]
    fn a_run_that_ends_well_clears() {
        let (quarantine, _) = quarantine();
        let gone = [node("node-1", 1, limits::NODE_DEAD_AFTER), node("node-2", 2, limits::NODE_DEAD_AFTER)];
        assert!(quarantine.lost("q", "node-1", &gone).is_none());
        quarantine.ended_well("q");
        assert!(quarantine.lost("q", "node-2", &gone).is_none());
    }
}
