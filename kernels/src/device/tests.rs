//! What needs the inside of the device: every shader through naga without a device, and the loss of one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};

use super::gpu::Prepared;
use super::layout::Layout;
use super::{DevicePolicy, Devices, DevicesConfig, wgsl};
use crate::bind;
use crate::error::KernelError;
use crate::*;

const INT: ColumnType = ColumnType::Int { bits: 64, signed: true };
const WIDE: ColumnType = ColumnType::Decimal128 { precision: 38, scale: 0 };

fn chunk(column_type: ColumnType, array: ArrayRef) -> Arc<Chunk> {
    let mut encoder = ChunkEncoder::new(column_type);
    encoder.push(&array).unwrap();
    Arc::new(encoder.finish().unwrap())
}

fn integers(scale: i64, nulls: bool) -> Arc<Chunk> {
    let values = (0..100).map(|row| (!nulls || row % 7 > 0).then_some((row - 3) * scale));
    chunk(INT, Arc::new(values.collect::<Int64Array>()))
}

/// A plan that touches every kind of node, over lanes as wide as `scale` makes them.
fn plan(keys: Vec<usize>) -> AggregatePlan {
    let column = |column| Box::new(Expr::Column(column));
    let product = Expr::Arithmetic { op: ArithmeticOp::Mul, left: column(0), right: column(1), result: WIDE };
    let difference = Expr::Arithmetic { op: ArithmeticOp::Sub, left: Box::new(product.clone()), right: column(0), result: WIDE };
    let list = [0, 2, 9, 30, 31, 55].map(Literal::Int).to_vec();
    let filter = Expr::Or(vec![
        Expr::Compare { op: CompareOp::Lt, left: column(0), right: column(1) },
        Expr::Compare { op: CompareOp::Eq, left: Box::new(product.clone()), right: column(1) },
        Expr::InList { input: column(0), list, negated: false },
        Expr::Like { input: column(2), pattern: "%b".into(), negated: true, case_insensitive: false },
        Expr::IsNull(column(1)),
    ]);
    let aggregates = vec![
        Aggregate { function: AggregateFunction::Sum, argument: Some(product), filter: None },
        Aggregate { function: AggregateFunction::Sum, argument: Some(difference), filter: Some(filter.clone()) },
        Aggregate { function: AggregateFunction::Count, argument: Some(Expr::Column(1)), filter: None },
        Aggregate { function: AggregateFunction::CountStar, argument: None, filter: None },
        Aggregate { function: AggregateFunction::Sum, argument: Some(Expr::Column(3)), filter: None },
        Aggregate { function: AggregateFunction::Min, argument: Some(Expr::Column(3)), filter: None },
        Aggregate { function: AggregateFunction::Max, argument: Some(Expr::Column(0)), filter: Some(Expr::IsNotNull(column(1))) },
    ];
    AggregatePlan { columns: vec![INT, INT, ColumnType::Utf8, ColumnType::Float64], filter: Some(filter), keys, aggregates }
}

fn rows(scale: i64) -> Vec<Arc<Chunk>> {
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..100).map(|row| (row % 5 > 0).then(|| ["ab", "b", "c", "bb"][row % 4]))));
    let doubles = Float64Array::from_iter_values((0..100).map(|row| f64::from(row - 50) / 7.0));
    vec![
        integers(scale, false),
        integers(scale / 2 + 1, true),
        chunk(ColumnType::Utf8, texts),
        chunk(ColumnType::Float64, Arc::new(doubles)),
    ]
}

#[test]
fn every_shader_is_valid_without_a_device() {
    for scale in [1, 1_000, 100_003, 100_000_000_003, 90_000_000_000_000_003] {
        for keys in [vec![], vec![2], vec![2, 2]] {
            let (plan, chunks) = (plan(keys), rows(scale));
            let program = bind::bind(&plan, &chunks, 100, Forced::default()).unwrap();
            let layout = Layout::new(&program).unwrap();
            let shader = wgsl::generate(&program, &layout).unwrap();
            let module = naga::front::wgsl::parse_str(&shader.source).unwrap_or_else(|error| panic!("{error}\n{}", shader.source));
            let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::empty());
            validator.validate(&module).unwrap_or_else(|error| panic!("{error:?}\n{}", shader.source));
        }
    }
}

#[test]
fn literals_do_not_change_the_shader() {
    let source = |value: i128| {
        let mut plan = plan(vec![]);
        plan.filter =
            Some(Expr::Compare { op: CompareOp::Gt, left: Box::new(Expr::Column(0)), right: Box::new(Expr::Literal(Literal::Int(value))) });
        let chunks = rows(1);
        let program = bind::bind(&plan, &chunks, 100, Forced::default()).unwrap();
        wgsl::generate(&program, &Layout::new(&program).unwrap()).unwrap().source
    };
    assert_eq!(source(10), source(20));
}

#[test]
fn a_lost_device_is_opened_once_more_and_then_given_up() {
    let devices = devices(1, None);
    if !devices.reports()[0].available {
        println!("no adapter here: {:?}", devices.reports());
        return;
    }
    let (plan, chunks) = (plan(vec![2]), rows(1));
    let program = bind::bind(&plan, &chunks, 100, Forced::default()).unwrap();
    devices.run(&program).unwrap();
    for _ in 0..2 {
        let gpu = devices.card_for(&program).unwrap();
        gpu.destroy();
        // Where the loss is seen only in the run, the run fails as a device, never as an answer.
        if let Err(error) = gpu.run(&program, &Prepared::new(&program).unwrap()) {
            assert!(matches!(error, KernelError::Device { .. }), "{error}");
        } else {
            panic!("a destroyed device answered");
        }
        let _ = devices.run(&program);
    }
    assert!(!devices.reports()[0].available);
    assert!(devices.reports()[0].reason.as_ref().unwrap().starts_with("lost 2 times"));
}

#[test]
fn cards_share_row_groups_and_stand_in_for_each_other() {
    let devices = devices(2, None);
    if !devices.reports()[0].available {
        println!("no adapter here: {:?}", devices.reports());
        return;
    }
    assert_eq!(devices.reports().len(), 2);
    let plan = plan(vec![2]);
    let row_groups: Vec<Vec<Arc<Chunk>>> = (0..4).map(|_| rows(1)).collect();
    let program = |chunks| bind::bind(&plan, chunks, 100, Forced::default()).unwrap();
    let loads = || devices.opened().iter().map(|gpu| gpu.load()).collect::<Vec<_>>();
    for chunks in &row_groups {
        devices.run(&program(chunks)).unwrap();
    }
    let after_one_round = loads();
    assert_eq!(after_one_round[0], after_one_round[1], "row groups spread over the cards");
    for chunks in &row_groups {
        devices.run(&program(chunks)).unwrap();
    }
    assert_eq!(loads(), after_one_round, "each went where its columns are");
    let lost = devices.card_for(&program(&row_groups[0])).unwrap();
    for _ in 0..2 {
        let card = devices.opened().into_iter().find(|card| card.lost().is_some() || Arc::ptr_eq(card, &lost));
        card.unwrap_or_else(|| devices.opened()[0].clone()).destroy();
        for chunks in &row_groups {
            // The first on a lost card may fail; never is there a wrong answer, and the next has a card.
            if let Err(error) = devices.run(&program(chunks)) {
                assert!(matches!(error, KernelError::Device { .. }), "{error}");
            }
        }
    }
    for chunks in &row_groups {
        devices.run(&program(chunks)).unwrap();
    }
}

#[test]
fn kernels_are_compiled_beside_queries_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let devices = devices(1, Some(folder.path().to_path_buf()));
    if !devices.reports()[0].available {
        println!("no adapter here: {:?}", devices.reports());
        return;
    }
    let (plan, chunks) = (plan(vec![2]), rows(1));
    let program = bind::bind(&plan, &chunks, 100, Forced::default()).unwrap();
    assert!(!devices.is_ready(&program).unwrap(), "nothing is compiled before it is asked for");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !devices.is_ready(&program).unwrap() {
        assert!(Instant::now() < deadline, "the kernel is not compiled");
        std::thread::sleep(Duration::from_millis(5));
    }
    devices.run(&program).unwrap();
    let files = || std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    if devices.opened()[0].stores_pipelines() {
        while files().is_empty() {
            assert!(Instant::now() < deadline, "nothing is written");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Another process starts with the file, damaged or not.
        for damage in [false, true] {
            if damage {
                std::fs::write(&files()[0], b"no kernels at all").unwrap();
            }
            super::tests::devices(1, Some(folder.path().to_path_buf())).run(&program).unwrap();
        }
    }
}

#[test]
fn a_kernel_that_does_not_compile_is_declined_from_then_on() {
    let faults = DeviceFaults { shader: Some(1), ..DeviceFaults::default() };
    let policy = DevicePolicy::AllowSoftware;
    let devices = Devices::new(DevicesConfig { policy, cache_bytes: 1 << 26, faults, pipelines: None, repeated: 1 });
    if !devices.reports()[0].available {
        println!("no adapter here: {:?}", devices.reports());
        return;
    }
    let (plan, chunks) = (plan(vec![2]), rows(1));
    let program = bind::bind(&plan, &chunks, 100, Forced::default()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let error = loop {
        match devices.is_ready(&program) {
            Ok(is_ready) => assert!(!is_ready && Instant::now() < deadline),
            Err(error) => break error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(error.contains("device: the kernel does not compile: "), "{error}");
    // Who asks for the device whatever it costs has the next try.
    devices.run(&program).unwrap();
    assert!(devices.is_ready(&program).unwrap());
}

fn devices(repeated: usize, pipelines: Option<PathBuf>) -> Devices {
    let policy = DevicePolicy::AllowSoftware;
    Devices::new(DevicesConfig { policy, cache_bytes: 1 << 26, faults: DeviceFaults::default(), pipelines, repeated })
}

#[test]
fn a_device_is_measured() {
    let kernels = Kernels::open(KernelsConfig { device: DevicePolicy::AllowSoftware, ..KernelsConfig::default() });
    if kernels.device_report().available {
        let model = crate::cost::measure(|plan| kernels.plan(plan).unwrap(), true).unwrap();
        let rates = model.device.unwrap();
        for rate in [rates.upload_bytes_per_second, rates.read_bytes_per_second, rates.steps_per_second, model.host.steps_per_second] {
            assert!(rate.is_finite() && rate > 0.0, "{model:?}");
        }
        let counted = Counters { device_nanoseconds: 0, ..kernels.counters() };
        assert_eq!(counted, Counters::default(), "what was measured is nobody's work");
    }
    // Software is never worth measuring: a query that wants it asks for it.
    assert_eq!(kernels.measure().unwrap().device, None);
}
