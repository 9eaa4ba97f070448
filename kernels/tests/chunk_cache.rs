//! The chunk cache: budget and files.

use arrow::array::Int64Array;
use bowshot_kernels::*;

const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };

fn key(file: &str, row_group: u32) -> ChunkKey {
    ChunkKey { file: file.into(), row_group, column: ChunkColumn::Stored(0) }
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
        let chunk = cache.insert(key("a@1", row_group), bulky().unwrap());
        assert_eq!(chunk.row_count(), 65_536);
        assert!(cache.bytes() <= 300 << 10, "{} bytes", cache.bytes());
    }
    assert!(!cache.entries().is_empty());
    assert!(cache.get(&cache.entries()[0].0).is_some());
    cache.invalidate_file("a@1");
    assert_eq!((cache.bytes(), cache.entries().len()), (0, 0));

    let tiny = Kernels::open(KernelsConfig { host_cache_bytes: 1 << 10, device: DevicePolicy::Off, ..KernelsConfig::default() });
    let chunk = tiny.cache().insert(key("a@1", 0), bulky().unwrap());
    assert_eq!((chunk.row_count(), tiny.cache().bytes()), (65_536, 0), "larger than the budget: returned, not kept");
}
