//! The parameters of a statement as clients are told of them.

use crate::error::{Error, Result, from_datafusion};
use crate::result_types::plain_type;
use crate::statement::change_table::ParameterRow;
use crate::statement::coercion;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use std::collections::BTreeMap;

/// `$1…$n` in ordinal order; a gap or a parameter without a type in sight is text.
pub fn parameter_schema(plan: &LogicalPlan) -> Result<Schema> {
    let types = plan.get_parameter_types().map_err(|error| from_datafusion(&error))?;
    let mut ordered: BTreeMap<usize, Option<DataType>> = BTreeMap::new();
    for (name, data_type) in types {
        let number: usize = name
            .trim_start_matches('$')
            .parse()
            .map_err(|_| Error::user(format!("parameter {name} has no number: write $1, $2, … or ?")))?;
        ordered.insert(number, data_type);
    }
    let count = ordered.keys().last().copied().unwrap_or(0);
    if count != ordered.len() {
        return Err(Error::user(format!("the parameters go up to ${count} but only {} are used: number them without gaps", ordered.len())));
    }
    let fields: Vec<Field> = ordered
        .into_iter()
        .map(|(number, data_type)| Field::new(format!("${number}"), parameter_type(&data_type.unwrap_or(DataType::Utf8)), true))
        .collect();
    Ok(Schema::new(fields))
}

/// The type that clients are told to send. Times are in milliseconds: the JDBC driver knows no others, and puts the number of milliseconds into
/// whatever unit it is asked for. Who sends another unit says so with the value.
fn parameter_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
        other => plain_type(other),
    }
}

/// The plan with the values of its parameters, in its final types.
pub fn bind(plan: LogicalPlan, parameters: &Schema, values: ParameterRow) -> Result<LogicalPlan> {
    let values = values.into_iter().zip(parameters.fields()).map(|(value, field)| number_as(value, field.data_type()));
    let bound = plan.with_param_values(ParamValues::from(values.collect::<Vec<_>>()));
    bound.and_then(coercion::coerced).map_err(|error| from_datafusion(&error))
}

/// A number as the type that clients were told to send, if that has its equal. What has none is compared as it is.
fn number_as(value: ScalarValue, wanted: &DataType) -> ScalarValue {
    let is = value.data_type();
    if is == *wanted || !is.is_numeric() || !wanted.is_numeric() {
        return value;
    }
    match value.cast_to(wanted) {
        Ok(number) if number.cast_to(&is).is_ok_and(|back| back == value) => number,
        _ => value,
    }
}
