//! The chunk cache: budget, pins, eviction, files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Int64Array, StringArray};
use bowshot_kernels::*;

const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };

fn key(file: &str, row_group: u32) -> ChunkKey {
    ChunkKey { file: file.into(), row_group, column: ChunkColumn::Stored(0) }
}

/// 64 KiB of lanes.
fn bulky() -> Chunk {
    let mut encoder = ChunkEncoder::new(INT);
    encoder.push(&Int64Array::from_iter_values((0..65_536).map(|row| row % 251))).unwrap();
    encoder.finish().unwrap()
}

/// Kernels whose cache holds about `chunks` of [`bulky`].
fn kernels(chunks: u64) -> Kernels {
    let host_cache_bytes = chunks * ((64 << 10) + 1_024);
    Kernels::open(KernelsConfig { host_cache_bytes, device: DevicePolicy::Off, ..KernelsConfig::default() })
}

/// Asks for a chunk as a reader does. Returns whether it was there.
fn touch(cache: &ChunkCache, key: ChunkKey) -> bool {
    let found = cache.get(&key).is_some();
    if !found {
        cache.insert(key, bulky());
    }
    found
}

#[test]
fn the_cache_stays_within_its_budget_and_forgets_files() {
    let kernels = kernels(4);
    let cache = kernels.cache();
    for row_group in 0..20 {
        let chunk = cache.insert(key("a@1", row_group), bulky());
        assert_eq!(chunk.row_count(), 65_536);
        assert!(cache.bytes() <= cache.budget_bytes(), "{} bytes", cache.bytes());
    }
    assert_eq!(cache.entries().len(), 4);
    assert!(cache.get(&cache.entries()[0].key).is_some());
    let (chunks, bytes) = cache.remove("a@1", None);
    assert_eq!((chunks, bytes > 4 << 16), (4, true));
    assert_eq!((cache.bytes(), cache.entries().len()), (0, 0));

    let tiny = Kernels::open(KernelsConfig { host_cache_bytes: 1 << 10, device: DevicePolicy::Off, ..KernelsConfig::default() });
    let chunk = tiny.cache().insert(key("a@1", 0), bulky());
    assert_eq!((chunk.row_count(), tiny.cache().bytes()), (65_536, 0), "larger than the budget: returned, not kept");
}

#[test]
fn a_scan_does_not_drive_out_what_is_used_again_and_again() {
    let kernels = kernels(20);
    let cache = kernels.cache();
    let use_hot = || (0..10).filter(|row_group| touch(cache, key("hot@1", *row_group))).count();
    for _ in 0..3 {
        use_hot();
    }
    for row_group in 0..500 {
        touch(cache, key("scanned@1", row_group));
        if row_group % 20 == 0 {
            use_hot();
        }
    }
    assert_eq!(use_hot(), 10, "a scan of 500 chunks took the place of chunks in use");
}

#[test]
fn a_working_set_beyond_the_budget_is_served_in_part() {
    let kernels = kernels(20);
    let cache = kernels.cache();
    let mut hits = 0;
    for round in 0..20 {
        let found = (0..30).filter(|row_group| touch(cache, key("a@1", *row_group))).count();
        hits += if round >= 10 { found } else { 0 };
    }
    // A queue that only knows the last use would have none of them: each leaves just before it is asked for.
    assert!(hits >= 100, "{hits} of 300");
}

#[test]
fn pins_stay_within_their_share_and_until_they_are_taken_off() {
    let kernels = kernels(20);
    let cache = kernels.cache();
    for row_group in 0..15 {
        let chunk = cache.insert(key("pinned@1", row_group), bulky());
        cache.pin(key("pinned@1", row_group), &chunk).unwrap();
        cache.pin(key("pinned@1", row_group), &chunk).unwrap();
    }
    let refused = cache.pin(key("pinned@1", 15), &Arc::new(bulky())).unwrap_err();
    assert!(refused.to_string().contains("exceed 3/4 of the column cache"), "{refused}");
    for row_group in 0..200 {
        touch(cache, key("scanned@1", row_group));
    }
    assert!((0..15).all(|row_group| cache.get(&key("pinned@1", row_group)).is_some()));
    assert_eq!(cache.entries().iter().filter(|chunk| chunk.pinned).count(), 15);
    assert!(cache.bytes() <= cache.budget_bytes());
    assert_eq!(cache.remove("pinned@1", Some(ChunkColumn::Stored(1))), (0, 0), "another column");
    assert_eq!(cache.remove("pinned@1", Some(ChunkColumn::Stored(0))).0, 15);
    // What is left makes room for all that comes.
    for row_group in 0..20 {
        touch(cache, key("new@1", row_group));
    }
    assert!((0..20).all(|row_group| cache.get(&key("new@1", row_group)).is_some()));
}

#[test]
fn an_emptied_cache_has_nothing_more_to_give() {
    let kernels = kernels(4);
    let cache = kernels.cache();
    // The second time around those that had left come to stay, in the other queue.
    for _ in 0..2 {
        (0..20).for_each(|row_group| assert!(!touch(cache, key("a@1", row_group))));
    }
    assert_eq!(cache.remove("a@1", None).0, 4);
    assert_eq!(cache.shrink(1), 0);
    assert!(!touch(cache, key("a@1", 0)) && touch(cache, key("a@1", 0)), "it fills again");
}

/// Memory of which there is only so much.
struct Purse(AtomicU64);

impl MemoryAccount for Purse {
    fn try_grow(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
    fn shrink(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[test]
fn memory_is_accounted_and_given_back() {
    let purse = Arc::new(Purse(AtomicU64::new(5 * 66_000)));
    let host_memory = purse.clone();
    let kernels = Kernels::open(KernelsConfig { host_memory, device: DevicePolicy::Off, ..KernelsConfig::default() });
    let cache = kernels.cache();
    for row_group in 0..30 {
        touch(cache, key("a@1", row_group));
    }
    assert_eq!(cache.entries().len(), 5, "less than the budget, because there is no more memory");
    let last = cache.insert(key("a@1", 99), bulky());
    cache.pin(key("a@1", 99), &last).unwrap();
    let freed = cache.shrink(u64::MAX);
    assert_eq!(cache.entries().len(), 1, "all but what is pinned");
    assert!(freed > 3 << 16);
    assert_eq!(purse.0.load(Ordering::Relaxed) + cache.bytes(), 5 * 66_000);
}

#[test]
fn what_is_encoded_takes_the_place_of_chunks_but_not_of_pins() {
    const ALL: u64 = 4 << 20;
    let purse = Arc::new(Purse(AtomicU64::new(ALL)));
    let host_memory = purse.clone();
    let kernels = Kernels::open(KernelsConfig { host_memory, device: DevicePolicy::Off, ..KernelsConfig::default() });
    let cache = kernels.cache();
    for row_group in 0..50 {
        touch(cache, key("a@1", row_group));
    }
    let pinned = cache.insert(key("a@1", 99), bulky());
    cache.pin(key("a@1", 99), &pinned).unwrap();
    let mut encoder = ChunkEncoder::new(ColumnType::Utf8);
    let mut lent = cache.lend();
    lent.grow_to(encoder.memory_bytes()).unwrap();
    let texts = StringArray::from_iter_values((0..1000).map(|row| format!("{row:>1000}")));
    encoder.push(&texts).unwrap();
    // The texts, and room to put them in order.
    assert!((2_000_000..5_000_000).contains(&encoder.memory_bytes()), "{}", encoder.memory_bytes());
    lent.grow_to(2 << 20).unwrap();
    assert!(cache.get(&key("a@1", 99)).is_some() && cache.entries().len() < 40);
    let declined = lent.grow_to(ALL).unwrap_err().to_string();
    assert!(declined.contains("no memory for the 4194304 bytes"), "{declined}");
    drop(lent);
    assert_eq!(purse.0.load(Ordering::Relaxed) + cache.bytes(), ALL);
}
