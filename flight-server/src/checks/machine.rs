//! What the machine has: memory, and files that a process may open.

use super::{Finding, Subject, problem};
use crate::config::Role;
use crate::figures::bytes;
use crate::limits;
use bowshot_engine::config::machine_memory_bytes;
use bowshot_engine::port::door::open_files_max;

/// Memory that this process may use: the machine's, or less where its container has a limit.
pub fn usable_memory_bytes() -> u64 {
    container_memory_bytes().unwrap_or(u64::MAX).min(machine_memory_bytes())
}

/// The limit of the control group, if there is one.
fn container_memory_bytes() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_end_matches('/').to_string();
    // Each group above it counts too.
    let mut least: Option<u64> = None;
    let mut group = own.as_str();
    loop {
        let said = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.max")).ok();
        if let Some(limit) = said.and_then(|said| said.trim().parse::<u64>().ok()) {
            least = Some(least.map_or(limit, |known| known.min(limit)));
        }
        match group.rfind('/') {
            Some(end) => group = &group[..end],
            None => return least,
        }
    }
}

/// Memory beyond the machine's.
pub fn memory(subject: &Subject) -> Vec<Finding> {
    let there = usable_memory_bytes();
    let mut set = vec![];
    let mut all = 0_u64;
    if subject.role == Role::Server {
        set.push(("coordinator.memory_bytes", subject.config.coordinator.memory_bytes));
        all = all.saturating_add(subject.config.coordinator.operator_bytes());
    }
    let mut found = vec![];
    if let Some(worker) = subject.worker() {
        set.push(("worker.memory_bytes", worker.memory_bytes));
        set.push(("worker.cache_bytes", worker.cache_bytes));
        all = all.saturating_add(worker.operator_bytes()).saturating_add(worker.column_cache_bytes());
        if worker.query_memory_bytes > worker.operator_bytes() {
            found.push(Finding::Note(format!(
                "worker.query_memory_bytes is {}, more than the {} of worker.memory_bytes: no query gets that much",
                bytes(worker.query_memory_bytes),
                bytes(worker.operator_bytes())
            )));
        }
    }
    let beyond = |(setting, wanted): &(&str, u64)| {
        (*wanted > there).then(|| {
            problem(format!(
                "{setting} is {} ({wanted} bytes), but this process may use {}: the system would end it; set less, or 0 for a share of the machine's memory",
                bytes(*wanted),
                bytes(there)
            ))
        })
    };
    let too_large: Vec<Finding> = set.iter().filter_map(beyond).collect();
    if too_large.is_empty() && all > there {
        let names: Vec<&str> = set.iter().map(|(setting, _)| *setting).collect();
        found.push(Finding::Note(format!(
            "{} come to {}, but this process may use {}: a full cache beside large queries would have the system end it; set less",
            names.join(" and "),
            bytes(all),
            bytes(there)
        )));
    }
    found.extend(too_large);
    found
}

/// Files that a process should be allowed to open: those of its connections, of the tasks that it runs, and some for everything else.
pub fn open_files_advised(subject: &Subject) -> usize {
    let tasks = subject.worker().map_or(0, |worker| worker.tasks_at_once() as usize);
    let connections = if subject.role == Role::Server { limits::CONNECTIONS_ADVISED } else { 0 };
    limits::OPEN_FILES_BESIDE + connections + tasks * limits::OPEN_FILES_A_TASK
}

/// Too few files.
pub fn open_files(subject: &Subject) -> Vec<Finding> {
    let (may, advised) = (open_files_max(), open_files_advised(subject));
    if may >= advised {
        return vec![];
    }
    vec![Finding::Note(format!(
        "this process may open {may} files, and these settings can want {advised}: raise LimitNOFILE of its systemd unit, or 'ulimit -n', or fewer connections and tasks find room"
    ))]
}
