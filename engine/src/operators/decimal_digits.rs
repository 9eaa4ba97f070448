//! `floor`, `ceil` and `trunc` of decimals, without the digits that they take away: `floor(2.50)` is 2, `trunc(25.55, 1)` is 25.5, as in Postgres.
//! DataFusion's leave zeros in their place, which text shows and which later products and quotients count.

use arrow::array::new_empty_array;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions::math;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};
use std::sync::Arc;

/// The functions, in the place of DataFusion's on coordinators and workers.
pub fn decimal_digits() -> impl Iterator<Item = Arc<ScalarUDF>> {
    [math::floor(), math::ceil(), math::trunc()].into_iter().map(|builtin| Arc::new(ScalarUDF::from(FewerDigits { builtin })))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct FewerDigits {
    builtin: Arc<ScalarUDF>,
}

/// A decimal type's digits, and those of them after the point.
fn digits_of(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => Some((*digits, *scale)),
        _ => None,
    }
}

/// The type of a decimal whose digits after the point are cut to `kept`; one more before it where the rest may carry.
fn cut(of: &DataType, kept: i8, carries: bool) -> Option<DataType> {
    let (digits, scale) = digits_of(of)?;
    if kept >= scale {
        return None;
    }
    let before = i16::from(digits) - i16::from(scale) + i16::from(carries);
    let digits = u8::try_from((before + i16::from(kept)).max(1)).ok()?;
    Some(match of {
        DataType::Decimal32(..) => DataType::Decimal32(digits, kept),
        DataType::Decimal64(..) => DataType::Decimal64(digits, kept),
        DataType::Decimal128(..) => DataType::Decimal128(digits, kept),
        _ => DataType::Decimal256(digits, kept),
    })
}

impl ScalarUDFImpl for FewerDigits {
    fn name(&self) -> &str {
        self.builtin.name()
    }
    fn aliases(&self) -> &[String] {
        self.builtin.aliases()
    }
    fn signature(&self) -> &Signature {
        self.builtin.signature()
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.builtin.return_type(types)
    }
    fn is_strict(&self) -> bool {
        self.builtin.inner().is_strict()
    }
    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.builtin.inner().output_ordering(input)
    }
    fn documentation(&self) -> Option<&Documentation> {
        self.builtin.documentation()
    }

    fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        // A decimal is compared with a constant of the type that it has here, which is not its argument's.
        match literal {
            Expr::Literal(value, _) if value.data_type().is_floating() => self.builtin.inner().preimage(args, literal, info),
            _ => Ok(PreimageResult::None),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let is_trunc = self.name() == "trunc";
        let kept = match args.scalar_arguments.get(1) {
            Some(Some(ScalarValue::Int64(Some(kept)))) => i8::try_from((*kept).clamp(0, i64::from(i8::MAX))).ok(),
            Some(_) => None,
            None => Some(0),
        };
        let of = args.arg_fields.first().map(|field| field.data_type().clone());
        let Some(cut) = of.zip(kept).and_then(|(of, kept)| cut(&of, kept, !is_trunc)) else {
            return self.builtin.return_field_from_args(args);
        };
        Ok(Arc::new(Field::new(self.name(), cut, args.arg_fields.iter().any(|field| field.is_nullable()))))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let result = args.return_field.data_type().clone();
        let Some(of) = args.args.first().map(ColumnarValue::data_type).filter(|of| digits_of(of).is_some() && *of != result) else {
            return self.builtin.invoke_with_args(args);
        };
        if args.number_rows == 0 {
            // DataFusion's look for the value of a scalar in an array of as many rows.
            return Ok(ColumnarValue::Array(new_empty_array(&result)));
        }
        let within = match digits_of(&of) {
            // 0.5 becomes 1, for which its own type has no digit.
            Some((digits, scale)) if i16::from(digits) == i16::from(scale) => DataType::Decimal256(digits + 1, scale),
            _ => of,
        };
        args.args[0] = args.args[0].cast_to(&within, None)?;
        args.arg_fields[0] = Arc::new(args.arg_fields[0].as_ref().clone().with_data_type(within.clone()));
        args.return_field = Arc::new(args.return_field.as_ref().clone().with_data_type(within));
        self.builtin.invoke_with_args(args)?.cast_to(&result, None)
    }
}
