//! Whatever fails on the device: an error that says so, never an answer, and the next row group runs again.

use std::sync::Arc;

use arrow::array::Int64Array;
use bowshot_kernels::*;

const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };
const ROW_GROUPS: i64 = 4;
const ROWS: i64 = 5_000;

fn open(device_faults: DeviceFaults) -> Kernels {
    Kernels::open(KernelsConfig { device: DevicePolicy::AllowSoftware, device_faults, ..KernelsConfig::default() })
}

fn row_group(number: i64) -> RowGroup {
    let mut encoder = ChunkEncoder::new(INT);
    encoder.push(&Int64Array::from_iter_values((0..ROWS).map(|row| row * 7 + number))).unwrap();
    RowGroup { row_count: ROWS as usize, chunks: vec![Arc::new(encoder.finish().unwrap())] }
}

fn sum_of(result: GroupedResult) -> i128 {
    match &result.aggregates[0] {
        AggregateColumn::Value { values, .. } => values[0],
        other => panic!("{other:?}"),
    }
}

/// Runs row group by row group as the engine does: what the device fails on, the host answers. Returns the failures.
fn run(kernels: &Kernels) -> Vec<String> {
    let sum = Aggregate { function: AggregateFunction::Sum, argument: Some(Expr::Column(0)), filter: None };
    let kernel = kernels.plan(AggregatePlan { columns: vec![INT], filter: None, keys: vec![], aggregates: vec![sum] }).unwrap();
    let (mut failures, mut total) = (vec![], 0);
    for number in 0..ROW_GROUPS {
        let rows = row_group(number);
        let mut state = kernel.new_state();
        if let Err(error) = kernel.accumulate(Executor::Device, &rows, &mut state) {
            assert!(matches!(error, KernelError::Device { .. } | KernelError::Declined(_)), "{error}");
            failures.push(error.to_string());
            state = kernel.new_state();
            kernel.accumulate(Executor::Host, &rows, &mut state).unwrap();
        }
        total += sum_of(state.finish().unwrap());
    }
    let expected: i64 = (0..ROW_GROUPS).map(|number| (0..ROWS).map(|row| row * 7 + number).sum::<i64>()).sum();
    assert_eq!(total, i128::from(expected));
    failures
}

#[test]
fn every_failed_allocation_is_one_row_group_on_the_host() {
    if !open(DeviceFaults::default()).device_report().available {
        println!("no adapter here");
        return;
    }
    let mut allocation = 0;
    loop {
        allocation += 1;
        let kernels = open(DeviceFaults { allocation: Some(allocation), ..DeviceFaults::default() });
        let failures = run(&kernels);
        if failures.is_empty() {
            break;
        }
        assert_eq!(failures.len(), 1, "allocation {allocation}: {failures:?}");
        assert_eq!(kernels.counters().device_errors, 1, "allocation {allocation}");
        assert!(kernels.device_report().available, "one failure is no reason to give the device up");
    }
    assert!(allocation > 5 * ROW_GROUPS as u64, "{allocation} allocations for {ROW_GROUPS} row groups");
}

#[test]
fn a_shader_that_does_not_compile_is_compiled_anew_for_the_next_row_group() {
    let kernels = open(DeviceFaults { shader: Some(1), ..DeviceFaults::default() });
    if kernels.device_report().available {
        let failures = run(&kernels);
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert!(kernels.device_report().available);
        assert_eq!(run(&kernels), Vec::<String>::new());
    }
}

#[test]
fn a_device_that_is_lost_in_a_dispatch_is_opened_again() {
    for dispatch in 1..=ROW_GROUPS as u64 {
        let kernels = open(DeviceFaults { loss: Some(dispatch), ..DeviceFaults::default() });
        if kernels.device_report().available {
            let failures = run(&kernels);
            assert_eq!(failures.len(), 1, "dispatch {dispatch}: {failures:?}");
            assert!(kernels.device_report().available);
            assert_eq!(run(&kernels), Vec::<String>::new());
        }
    }
}
