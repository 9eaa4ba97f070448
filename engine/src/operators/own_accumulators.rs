//! Aggregates of DataFusion's of which one accumulator is ours: `min` and `max` by group, `bool_and` and `bool_or` over window frames. Those of
//! `string_agg` and `array_agg` count what they were given twice. Two `string_agg` may have two orders: each sorts what it has collected.

use super::float_extremes::float_groups;
use super::sliding::InFrame;
use super::twofold::{Twofold, TwofoldGroups};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::array_agg::array_agg_udaf;
use datafusion::functions_aggregate::bool_and_or::{bool_and_udaf, bool_or_udaf};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::string_agg::string_agg_udaf;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
};
use std::sync::{Arc, LazyLock};

/// The aggregates, in the place of DataFusion's.
pub fn own_accumulators() -> impl Iterator<Item = Arc<AggregateUDF>> {
    [(min_udaf(), Own::Least), (max_udaf(), Own::Greatest), (string_agg_udaf(), Own::Twofold), (array_agg_udaf(), Own::TwofoldList)]
        .map(|(builtin, own)| Arc::new(AggregateUDF::new_from_impl(WithOwn { builtin, own })))
        .into_iter()
        .chain([boolean(true), boolean(false)])
}

/// `bool_and` where all are to be true, else `bool_or`.
pub fn boolean(all: bool) -> Arc<AggregateUDF> {
    static FUNCTIONS: LazyLock<[Arc<AggregateUDF>; 2]> = LazyLock::new(|| {
        [(bool_or_udaf(), Own::AnyInFrame), (bool_and_udaf(), Own::AllInFrame)]
            .map(|(builtin, own)| Arc::new(AggregateUDF::new_from_impl(WithOwn { builtin, own })))
    });
    FUNCTIONS[usize::from(all)].clone()
}

/// The accumulator that is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Own {
    Least,
    Greatest,
    AllInFrame,
    AnyInFrame,
    Twofold,
    TwofoldList,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WithOwn {
    builtin: Arc<AggregateUDF>,
    own: Own,
}

impl WithOwn {
    fn is_twofold(&self) -> bool {
        matches!(self.own, Own::Twofold | Own::TwofoldList)
    }
}

impl AggregateUDFImpl for WithOwn {
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
        let accumulator = self.builtin.accumulator(args)?;
        Ok(if self.is_twofold() { Box::new(Twofold::new(accumulator)) } else { accumulator })
    }
    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.builtin.state_fields(args)
    }
    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.builtin.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        if self.is_twofold() {
            return Ok(Box::new(TwofoldGroups::new(self.builtin.create_groups_accumulator(args)?)));
        }
        let own = match self.own {
            Own::Least | Own::Greatest => float_groups(args.return_field.data_type(), self.own == Own::Greatest),
            Own::AllInFrame | Own::AnyInFrame | Own::Twofold | Own::TwofoldList => None,
        };
        own.map_or_else(|| self.builtin.create_groups_accumulator(args), Ok)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match self.own {
            Own::AllInFrame | Own::AnyInFrame => Ok(Box::new(InFrame::new(self.own == Own::AllInFrame))),
            _ => self.builtin.create_sliding_accumulator(args),
        }
    }

    fn is_descending(&self) -> Option<bool> {
        self.builtin.is_descending()
    }
    fn reverse_expr(&self) -> ReversedUDAF {
        match self.own {
            Own::Twofold => ReversedUDAF::NotSupported,
            _ => self.builtin.reverse_udf(),
        }
    }
    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        match self.own {
            Own::Twofold => AggregateOrderSensitivity::SoftRequirement,
            _ => self.builtin.order_sensitivity(),
        }
    }
    fn with_beneficial_ordering(self: Arc<Self>, beneficial: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        match self.own {
            // Rows that are in order are sorted once more.
            Own::Twofold => Ok(Some(self)),
            _ => {
                let ordered = self.builtin.inner().clone().with_beneficial_ordering(beneficial)?;
                let own = |builtin| WithOwn { builtin: Arc::new(AggregateUDF::new_from_shared_impl(builtin)), own: self.own };
                Ok(ordered.map(|builtin| Arc::new(own(builtin)) as Arc<dyn AggregateUDFImpl>))
            }
        }
    }
    fn supports_null_handling_clause(&self) -> bool {
        self.builtin.supports_null_handling_clause()
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
