//! Physical operators of our own. Each replaces a node in place: same topology, same schema, same partitioning. And aggregates of our
//! own, under DataFusion's names.

mod apart;
pub mod bounded_functions;
pub mod cache_columns;
pub mod conditions_in_order;
pub mod decimal_digits;
pub mod exact_aggregates;
pub mod exact_arithmetic;
mod exact_integers;
pub mod exact_variance;
pub mod filters_by_name;
pub mod float_bounds;
mod float_extremes;
pub mod float_values;
pub mod function_memory;
mod function_sizes;
pub mod hot_aggregate;
mod hot_columns;
mod hot_partition;
pub mod hot_plan;
mod hot_state;
pub mod in_parts;
pub mod in_place;
pub mod join_sides;
pub mod null_aware_limit;
pub mod null_equal_joins;
pub mod own_accumulators;
pub mod panic_guard;
pub mod partial_keys;
pub mod publish;
pub mod read_column;
pub mod replay;
pub mod row_group_reader;
mod sliding;
pub mod stand_ins;
pub mod string_concat;
pub mod subquery_value;
pub mod time_bins;
pub mod time_values;
pub mod timestamps;
pub mod total_of_none;
pub mod translate;
mod twofold;
pub mod window_keys;
pub mod window_options;

pub mod zoned_times;
