//! Nodes that the control port has refused: a line in the log for each address, once a minute, and a counter by reason.
//!
//! Only the refused node's own log would say it otherwise, and whoever looks for a node that is missing looks at the coordinator.

use crate::limits;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// Why a node was refused; the label of the counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFor {
    /// The cluster token is missing or wrong.
    Token,
    /// It speaks another version of the protocol.
    Version,
    /// Its name is another live node's.
    Name,
    /// Its certificate is not that of the node that it says it is.
    Certificate,
}

impl RefusedFor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Token, Self::Version, Self::Name, Self::Certificate];

    /// The word in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Version => "version",
            Self::Name => "name",
            Self::Certificate => "certificate",
        }
    }
}

/// Remembers of which addresses the log has told.
#[derive(Default)]
pub struct RefusedNodes {
    told: Mutex<HashMap<IpAddr, Told>>,
}

struct Told {
    at: Instant,
    /// Refusals since, which the log has not told of.
    more: u64,
}

impl RefusedNodes {
    /// Counts a refusal, and logs it unless the address had a line within the last minute. `node` is what the caller calls itself, which nothing
    /// proves.
    pub fn note(&self, why: RefusedFor, peer: SocketAddr, node: Option<&str>, text: &str) {
        metrics::counter!("bowshot_nodes_refused_total", "reason" => why.word()).increment(1);
        if let Some(more) = self.to_tell(peer.ip(), Instant::now()) {
            let node = node.map_or_else(|| "(it said none)".to_string(), shown);
            tracing::warn!(peer = %peer, node, more_since_the_last_line = more, "a node was refused: {}", shown(text));
        }
    }

    /// How many refusals of the address the log has not told of, if it is to tell of this one.
    fn to_tell(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let mut told = self.told.lock();
        if let Some(before) = told.get_mut(&address)
            && now.saturating_duration_since(before.at) < limits::REFUSED_NODE_LINE_INTERVAL
        {
            before.more += 1;
            return None;
        }
        if told.len() >= limits::REFUSED_NODES_REMEMBERED {
            told.retain(|_, before| now.saturating_duration_since(before.at) < limits::REFUSED_NODE_LINE_INTERVAL);
        }
        if told.len() >= limits::REFUSED_NODES_REMEMBERED && !told.contains_key(&address) {
            // Strangers of as many addresses within a minute: the counter has them all.
            return None;
        }
        let before = told.insert(address, Told { at: now, more: 0 });
        Some(before.map_or(0, |before| before.more))
    }
}

/// A stranger's text in a line of the log: no control characters, and not long.
fn shown(text: &str) -> String {
    let letters = text.chars().take(limits::REFUSED_NODE_TEXT_LETTERS);
    letters.map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_line_a_minute() {
        let (refused, start) = (RefusedNodes::default(), Instant::now());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!(refused.to_tell(one, start), Some(0));
        assert_eq!(refused.to_tell(one, start + limits::REFUSED_NODE_LINE_INTERVAL / 2), None);
        assert_eq!(refused.to_tell(other, start), Some(0));
        assert_eq!(refused.to_tell(one, start + limits::REFUSED_NODE_LINE_INTERVAL), Some(1));
        assert_eq!(refused.to_tell(one, start + limits::REFUSED_NODE_LINE_INTERVAL * 3), Some(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (refused, start) = (RefusedNodes::default(), Instant::now());
        let address = |number: usize| IpAddr::from((number as u32).to_be_bytes());
        for number in 0..limits::REFUSED_NODES_REMEMBERED {
            assert_eq!(refused.to_tell(address(number), start), Some(0));
        }
        assert_eq!(refused.to_tell(address(usize::MAX), start), None);
        assert_eq!(refused.to_tell(address(usize::MAX), start + limits::REFUSED_NODE_LINE_INTERVAL), Some(0));
        assert_eq!(refused.told.lock().len(), 1);
    }

    #[test]
    fn a_strangers_name_breaks_no_line() {
        assert_eq!(shown("node\n1"), "node 1");
        assert!(shown(&"x".repeat(10_000)).len() <= limits::REFUSED_NODE_TEXT_LETTERS);
    }
}
