//! The chunk cache: budget, files, one encoder for all who wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::Int64Array;
use bowshot_kernels::*;

const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };

fn kernels() -> Kernels {
    Kernels::open(KernelsConfig { device: DevicePolicy::Off, ..KernelsConfig::default() })
}

fn key(file: &str, row_group: u32) -> ChunkKey {
    ChunkKey { file: file.into(), row_group, column: 0 }
}

/// 64 KiB of lanes.
fn bulky() -> Result<Chunk, KernelError> {
    let mut encoder = ChunkEncoder::new(INT);
    encoder.push(&Int64Array::from_iter_values((0..65_536).map(|row| row % 251)))?;
    encoder.finish()
}

#[test]
fn the_cache_stays_within_its_budget_and_forgets_files() {
    let kernels = Kernels::open(KernelsConfig { host_cache_bytes: 300 << 10, device: DevicePolicy::Off, ..KernelsConfig::default() });
    let cache = kernels.cache();
    for row_group in 0..20 {
        let (chunk, _) = cache.get_or_encode(key("a@1", row_group), bulky).unwrap();
        assert_eq!(chunk.row_count(), 65_536);
        assert!(cache.bytes() <= 300 << 10, "{} bytes", cache.bytes());
    }
    assert!(!cache.entries().is_empty());
    let (_, cached) = cache.get_or_encode(cache.entries()[0].0.clone(), bulky).unwrap();
    assert!(cached);
    cache.invalidate_file("a@1");
    assert_eq!((cache.bytes(), cache.entries().len()), (0, 0));

    let tiny = Kernels::open(KernelsConfig { host_cache_bytes: 1 << 10, device: DevicePolicy::Off, ..KernelsConfig::default() });
    let (chunk, cached) = tiny.cache().get_or_encode(key("a@1", 0), bulky).unwrap();
    assert_eq!((chunk.row_count(), cached, tiny.cache().bytes()), (65_536, false, 0), "larger than the budget: returned, not kept");
}

#[test]
fn one_encoder_serves_all_who_wait() {
    let kernels = kernels();
    let encoded = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let encode = || {
                    encoded.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(50));
                    bulky()
                };
                kernels.cache().get_or_encode(key("b@1", 0), encode).unwrap();
            });
        }
    });
    assert_eq!(encoded.load(Ordering::SeqCst), 1);
    let failed = kernels.cache().get_or_encode(key("c@1", 0), || Err::<Chunk, _>("unreadable"));
    assert_eq!(*failed.unwrap_err(), "unreadable");
    assert!(kernels.cache().get(&key("c@1", 0)).is_none());
}
