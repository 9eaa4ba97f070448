//! All functions of our own. Coordinators and workers register the same: what one plans, the other runs.

use super::as_given::as_given_functions;
use super::bounded_functions::register_bounded_functions;
use super::decimal_digits::decimal_digits;
use super::double_decimals::double_decimals;
use super::exact_aggregates::exact_aggregates;
use super::exact_arithmetic::exact_arithmetic;
use super::float_values::float_values;
use super::signed_counts::register_signed_counts;
use super::time_bins::time_bins;
use super::time_values::time_values;
use super::window_options::register_window_options;
use super::zoned_times::zoned_times;
use datafusion::common::Result;
use datafusion::execution::{FunctionRegistry, SessionState};

/// Registers them, in the place of DataFusion's where they have the same name.
pub fn register_own_functions(state: &mut SessionState) -> Result<()> {
    for aggregate in exact_aggregates() {
        state.register_udaf(aggregate)?;
    }
    let functions = exact_arithmetic()
        .chain(float_values())
        .chain(zoned_times())
        .chain(time_values())
        .chain(time_bins())
        .chain(decimal_digits())
        .chain(as_given_functions())
        .chain(double_decimals());
    for function in functions {
        state.register_udf(function)?;
    }
    // These are made over all that there are.
    register_signed_counts(state)?;
    register_window_options(state)?;
    register_bounded_functions(state)
}
