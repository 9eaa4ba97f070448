//! How long freed memory stays with the process: for the next query while there is room, not at all where its settings or the machine leave none.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// mimalloc's option of how many milliseconds freed memory is kept; 15 in all versions of its header.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Groups by the million take gigabytes a query: given back at once, the system clears them anew for the next one, which costs up to half as
/// much as the query, and a virtual machine that gave them to its host gets them back at half a gigabyte a second. A minute is what who asks looks at
/// an answer before asking on.
const KEEP_MS: std::ffi::c_long = 60_000;
/// How often memory that was kept long enough is looked for.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);
/// How often the process is measured: with gigabytes a second, what may be freed and taken again in between is small beside any setting.
const MEASURE_EVERY: Duration = Duration::from_millis(25);
/// How often the machine is.
const LOOK_AROUND_EVERY: Duration = Duration::from_millis(250);
/// What a start frees is not for a query to come: it measures kernels and reads settings, and nothing is kept of that.
const START: Duration = Duration::from_secs(5);
/// Part of the machine's memory that is left to others: with less of it to be had, nothing is kept.
const LEFT_PART: u64 = 8;

/// Bytes that the process may take before it keeps nothing; 0 without a limit.
static BUDGET: AtomicU64 = AtomicU64::new(0);
/// The thread that gives memory back.
static WATCHER: OnceLock<Thread> = OnceLock::new();

/// Keeps freed memory from now on. Call it before anything runs. `MIMALLOC_PURGE_DELAY` overrides it.
pub fn keep() {
    // SAFETY: sets a number; nothing else runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEEP_MS) };
}

/// What the settings allow operators and caches of this process. Beyond it, freed memory goes back at once.
pub fn set_budget(bytes: u64) {
    BUDGET.store(bytes, Ordering::Relaxed);
    // Without a budget it looks every few seconds, and the first queries may be faster.
    if let Some(watcher) = WATCHER.get() {
        watcher.unpark();
    }
}

/// Starts the thread that gives memory back. mimalloc looks for what it kept long enough only when somebody allocates: a process without work would
/// keep it for ever.
pub fn watch() {
    let thread = std::thread::Builder::new().name("freed-memory".into());
    match thread.spawn(give_back_for_ever) {
        // It is started once.
        Ok(watcher) => _ = WATCHER.set(watcher.thread().clone()),
        Err(error) => eprintln!("freed memory stays with the process, no thread could be started: {error}"),
    }
}

fn give_back_for_ever() {
    // SAFETY: reads a number.
    let keep_ms = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
    let (mut keeps, mut looked, started) = (true, Instant::now(), Instant::now());
    let (mut spare, mut looked_around) = (machine_spares_some(), Instant::now());
    loop {
        let budget = BUDGET.load(Ordering::Relaxed);
        std::thread::park_timeout(if budget == 0 { GIVE_BACK_EVERY } else { MEASURE_EVERY });
        if looked.elapsed() >= GIVE_BACK_EVERY {
            looked = Instant::now();
            // SAFETY: may be called at any time by any thread; not forced, it gives back what is free and whose time is over.
            unsafe { libmimalloc_sys::mi_collect(false) };
        }
        if looked_around.elapsed() >= LOOK_AROUND_EVERY {
            (spare, looked_around) = (machine_spares_some(), Instant::now());
        }
        let keeps_now = started.elapsed() >= START && spare && keeps_within(resident_bytes(), budget, keeps);
        if keeps_now != keeps {
            keeps = keeps_now;
            // SAFETY: both may be called at any time by any thread. What was kept so far goes back while there still is a time to keep it.
            unsafe {
                if !keeps {
                    libmimalloc_sys::mi_collect(true);
                }
                libmimalloc_sys::mi_option_set(PURGE_DELAY, if keeps { keep_ms } else { 0 });
            }
        }
    }
}

/// Whether freed memory is kept in a process of this size. Keeping begins again well below the budget, or it would come and go with every batch.
fn keeps_within(resident: u64, budget: u64, keeps: bool) -> bool {
    budget == 0 || if keeps { resident <= budget } else { resident <= budget / 4 * 3 }
}

/// Whether the machine has memory that nobody needs.
fn machine_spares_some() -> bool {
    spares_some(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default())
}

/// The same by what the system says of its memory; so it is taken to be where it does not tell.
fn spares_some(text: &str) -> bool {
    let kib = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    match (kib("MemAvailable:"), kib("MemTotal:")) {
        (Some(available), Some(total)) => available >= total / LEFT_PART,
        _ => true,
    }
}

/// Bytes of memory that the process takes; 0 where the system does not tell.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_kept_within_the_budget_and_again_well_below_it() {
        assert!(keeps_within(u64::MAX, 0, true), "no budget, no limit");
        assert!(keeps_within(100, 100, true) && !keeps_within(101, 100, true));
        assert!(!keeps_within(90, 100, false) && keeps_within(75, 100, false));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_has_a_size() {
        assert!(resident_bytes() > 1 << 20);
    }

    #[test]
    fn a_machine_spares_some_while_an_eighth_is_available() {
        let text = |available| format!("MemTotal:       16000 kB\nMemFree:          10 kB\nMemAvailable:    {available} kB\n");
        assert!(spares_some(&text(2000)) && !spares_some(&text(1999)));
        assert!(spares_some(""), "the system does not tell");
    }
}
