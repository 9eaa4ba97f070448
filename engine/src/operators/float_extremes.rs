//! `min` and `max` of doubles by group: DataFusion's forget the least or greatest of them when a NaN comes. Here NaN is greater than everything.

use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::logical_expr::GroupsAccumulator;
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// The greatest or least value of each group; `None` of other types.
pub(super) fn float_groups(data_type: &DataType, greatest: bool) -> Option<Box<dyn GroupsAccumulator>> {
    // The total order, in which the one NaN stands last.
    macro_rules! of {
        ($arrow:ty, $native:ty) => {
            if greatest {
                let greater = |most: &mut $native, value: $native| {
                    if value.total_cmp(most).is_gt() {
                        *most = value;
                    }
                };
                let none = <$native>::NEG_INFINITY;
                Box::new(PrimitiveGroupsAccumulator::<$arrow, _>::new(data_type, greater).with_starting_value(none))
            } else {
                let less = |least: &mut $native, value: $native| {
                    if value.total_cmp(least).is_lt() {
                        *least = value;
                    }
                };
                let none = <$native>::NAN;
                Box::new(PrimitiveGroupsAccumulator::<$arrow, _>::new(data_type, less).with_starting_value(none))
            }
        };
    }
    Some(match data_type {
        DataType::Float64 => of!(Float64Type, f64),
        DataType::Float32 => of!(Float32Type, f32),
        _ => return None,
    })
}
