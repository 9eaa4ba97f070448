//! CPU seconds and memory of processes, read from `/proc`. Absent on other systems.

use std::path::Path;
use std::time::Duration;

/// Steps of the kernel's accounting in a second: fixed on Linux, whatever its timer does.
const TICKS_PER_SECOND: f64 = 100.0;
/// Work that an answer leaves behind, such as buffers that are freed, is over by then; heartbeats cost nothing in so short a time.
pub const SETTLING: Duration = Duration::from_millis(200);

/// CPU seconds that `process` and all its descendants have used, in user and kernel mode, those that have ended and were waited for included.
pub fn of_tree(process: u32) -> Option<f64> {
    // A child may end between the two reads: then its parent has its seconds at the next reading.
    Some(of_process(process)? + children(process).into_iter().filter_map(of_tree).sum::<f64>())
}

/// Processes that `process` has started and that run.
pub fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    children.flat_map(|children| children.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Resident memory of a process, in bytes.
pub fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kibibytes| kibibytes << 10)
}

/// CPU seconds of this process alone.
pub fn of_this_process() -> Option<f64> {
    of_process(std::process::id())
}

fn of_process(process: u32) -> Option<f64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    parse(&text)
}

/// The name, in parentheses, may hold anything; after it follow the state and eleven fields, then the four times.
fn parse(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let times: Vec<f64> = fields.split_whitespace().skip(11).take(4).map_while(|field| field.parse().ok()).collect();
    (times.len() == 4).then(|| times.iter().sum::<f64>() / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "17 (a) b (c)) S 1 17 17 0 -1 4194560 500 0 0 0 250 50 30 20 20 0 1 0 100";
        assert_eq!(parse(stat), Some(3.5));
        assert_eq!(parse("17 (short) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_counts_in_this_process_and_in_its_tree() {
        let before = of_this_process().unwrap();
        let started = std::time::Instant::now();
        while started.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(0);
        }
        assert!(of_this_process().unwrap() > before, "100 ms of work do not show");
        assert!(of_tree(std::process::id()).unwrap() >= of_this_process().unwrap());
    }
}
