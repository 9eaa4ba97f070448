//! `min` and `max` of doubles by group: DataFusion's forget the least or greatest of them when a NaN comes. Here NaN is greater than everything.

use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;
use std::sync::Arc;

/// The aggregates, in the place of DataFusion's.
pub fn float_extremes() -> [Arc<AggregateUDF>; 2] {
    [(min_udaf(), false), (max_udaf(), true)]
        .map(|(builtin, greatest)| Arc::new(AggregateUDF::new_from_impl(Extreme { builtin, greatest })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    builtin: Arc<AggregateUDF>,
    greatest: bool,
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.builtin.name()
    }
    fn aliases(&self) -> &[String] {
        self.builtin.aliases()
    }
    fn signature(&self) -> &Signature {
        self.builtin.signature()
    }
    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.builtin.return_type(arguments)
    }
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.builtin.coerce_types(types)
    }
    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.builtin.accumulator(args)
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.builtin.state_fields(args)
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.builtin.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        // The total order, in which the one NaN stands last.
        macro_rules! of {
            ($arrow:ty, $native:ty) => {{
                let data_type = args.return_field.data_type();
                if self.greatest {
                    let greater = |most: &mut $native, value: $native| {
                        if value.total_cmp(most).is_gt() {
                            *most = value;
                        }
                    };
                    let none = <$native>::NEG_INFINITY;
                    Ok(Box::new(PrimitiveGroupsAccumulator::<$arrow, _>::new(data_type, greater).with_starting_value(none)))
                } else {
                    let less = |least: &mut $native, value: $native| {
                        if value.total_cmp(least).is_lt() {
                            *least = value;
                        }
                    };
                    let none = <$native>::NAN;
                    Ok(Box::new(PrimitiveGroupsAccumulator::<$arrow, _>::new(data_type, less).with_starting_value(none)))
                }
            }};
        }
        match args.return_field.data_type() {
            DataType::Float64 => of!(Float64Type, f64),
            DataType::Float32 => of!(Float32Type, f32),
            _ => self.builtin.create_groups_accumulator(args),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.builtin.create_sliding_accumulator(args)
    }
    fn is_descending(&self) -> Option<bool> {
        self.builtin.is_descending()
    }
    fn reverse_expr(&self) -> ReversedUDAF {
        self.builtin.reverse_udf()
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.builtin.order_sensitivity()
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.builtin.documentation()
    }
    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.builtin.inner().set_monotonicity(data_type)
    }
    fn value_from_stats(&self, statistics: &StatisticsArgs) -> Option<ScalarValue> {
        self.builtin.inner().value_from_stats(statistics)
    }
}
