//! What needs the inside of the device: every shader through naga without a device, and the loss of one.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};

use super::layout::Layout;
use super::{DevicePolicy, Devices, wgsl};
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
    ];
    AggregatePlan { columns: vec![INT, INT, ColumnType::Utf8], filter: Some(filter), keys, aggregates }
}

fn rows(scale: i64) -> Vec<Arc<Chunk>> {
    let texts: ArrayRef = Arc::new(StringArray::from_iter((0..100).map(|row| (row % 5 > 0).then(|| ["ab", "b", "c", "bb"][row % 4]))));
    vec![integers(scale, false), integers(scale / 2 + 1, true), chunk(ColumnType::Utf8, texts)]
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
    let devices = Devices::new(DevicePolicy::AllowSoftware, 1 << 26, DeviceFaults::default());
    if !devices.report().available {
        println!("no adapter here: {:?}", devices.report());
        return;
    }
    let (plan, chunks) = (plan(vec![2]), rows(1));
    let program = bind::bind(&plan, &chunks, 100, Forced::default()).unwrap();
    devices.run(&program).unwrap();
    for _ in 0..2 {
        let gpu = devices.gpu().unwrap();
        gpu.destroy();
        // Where the loss is seen only in the run, the run fails as a device, never as an answer.
        if let Err(error) = gpu.run(&program) {
            assert!(matches!(error, KernelError::Device { .. }), "{error}");
        } else {
            panic!("a destroyed device answered");
        }
        let _ = devices.run(&program);
    }
    assert!(!devices.report().available);
    assert!(devices.report().reason.unwrap().starts_with("lost 2 times"));
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
        assert_eq!(kernels.counters(), Counters::default(), "what was measured is nobody's work");
    }
    // Software is never worth measuring: a query that wants it asks for it.
    assert_eq!(kernels.measure().unwrap().device, None);
}
