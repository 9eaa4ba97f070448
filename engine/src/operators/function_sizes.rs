//! How many bytes a function will make of its arguments, for functions that make more than they are given. No less than it makes; where that can be
//! far more, [`Growth::may_make_less`] says so.

use arrow::array::{Array, ArrayRef, AsArray, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// How a function's result grows with its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Growth {
    /// All of the arguments, one after the other.
    Sum,
    /// So many bytes for each of the arguments.
    Times(usize),
    /// The first argument, as often as the second says.
    Repeat,
    /// The first argument, filled up to as many characters as the second says.
    Pad,
    /// The first argument, in which the third one stands for each of the second.
    Replace,
    /// The same by a regular expression: for each place, with parts of what stood there.
    ReplacePattern,
    /// A time by a pattern.
    Format,
    /// A list of as many as the second argument says.
    RepeatElement,
    /// A list from a start to an end, by steps.
    Series,
    /// The list in the first argument, with as many elements as the second says.
    Resize,
    /// The list in the first argument, in which the third one stands for elements like the second.
    ReplaceElements,
    /// The elements of a list, with a text between each two.
    Join,
}

/// Functions that make more than they are given, by DataFusion's names.
const GROWING: [(&str, Growth); 28] = [
    ("array_append", Growth::Sum),
    ("array_concat", Growth::Sum),
    ("array_prepend", Growth::Sum),
    ("array_repeat", Growth::RepeatElement),
    ("array_replace", Growth::ReplaceElements),
    ("array_replace_all", Growth::ReplaceElements),
    ("array_replace_n", Growth::ReplaceElements),
    ("array_resize", Growth::Resize),
    ("array_to_string", Growth::Join),
    ("arrays_zip", Growth::Sum),
    ("concat", Growth::Sum),
    ("concat_ws", Growth::Join),
    ("decode", Growth::Sum),
    ("encode", Growth::Times(2)),
    ("generate_series", Growth::Series),
    ("lpad", Growth::Pad),
    ("make_array", Growth::Sum),
    ("map", Growth::Sum),
    ("overlay", Growth::Sum),
    ("range", Growth::Series),
    ("regexp_replace", Growth::ReplacePattern),
    ("repeat", Growth::Repeat),
    ("replace", Growth::Replace),
    ("rpad", Growth::Pad),
    ("string_concat", Growth::Sum),
    ("string_to_array", Growth::Times(8)),
    ("to_char", Growth::Format),
    ("translate", Growth::Times(4)),
];

/// How a function grows; `None` for those that make no more than they are given.
pub fn growth_of(function: &str) -> Option<Growth> {
    GROWING.iter().find(|(name, _)| *name == function).map(|(_, growth)| *growth)
}

/// Bytes that one specifier of a time's pattern may become, for each of its characters.
const FORMATTED_TIMES: usize = 20;
/// Bytes of the longest character.
const CHARACTER_BYTES: usize = 4;
/// Bytes beside each value: an offset, or a view.
const VALUE_BYTES: usize = 8;

impl Growth {
    /// Whether the result may be far smaller than foreseen: it depends on what is found in the arguments.
    pub fn may_make_less(self) -> bool {
        matches!(self, Self::Pad | Self::Replace | Self::ReplacePattern | Self::Format | Self::ReplaceElements | Self::Times(_))
    }

    /// Bytes of the result, or more.
    pub fn bytes(self, args: &ScalarFunctionArgs) -> Result<usize> {
        let rows = args.number_rows;
        let given: Vec<Argument> = args.args.iter().map(Argument::new).collect::<Result<_>>()?;
        let row_bytes: Box<dyn Fn(usize) -> Result<usize> + '_> = match (self, given.as_slice()) {
            (Self::Sum, all) => return Ok(sum(all, rows)),
            (Self::Times(times), all) => return Ok(sum(all, rows).saturating_mul(times)),
            (Self::Repeat, [text, count, ..]) => {
                let counts = count.integers()?;
                Box::new(move |row| Ok(text.bytes(row).saturating_mul(counts.at(row))))
            }
            (Self::RepeatElement, [element, count, ..]) => {
                let counts = count.integers()?;
                Box::new(move |row| Ok((element.bytes(row).saturating_add(VALUE_BYTES)).saturating_mul(counts.at(row))))
            }
            (Self::Pad, [text, length, fill @ ..]) => {
                let lengths = length.integers()?;
                let width = if text.is_ascii() && fill.iter().all(Argument::is_ascii) { 1 } else { CHARACTER_BYTES };
                Box::new(move |row| Ok(lengths.at(row).saturating_mul(width)))
            }
            (Self::Replace, [text, from, to, ..]) => Box::new(move |row| {
                let (text, from, to) = (text.bytes(row), from.bytes(row), to.bytes(row));
                let places = text.checked_div(from).unwrap_or(text + 1);
                Ok(text.saturating_add(places.saturating_mul(to.saturating_sub(from))))
            }),
            (Self::ReplacePattern, [text, _, to, ..]) => Box::new(move |row| {
                let (text, to) = (text.bytes(row), to.bytes(row));
                Ok(text.saturating_add((text + 1).saturating_mul(to)))
            }),
            (Self::Format, [_, pattern, ..]) => Box::new(move |row| Ok(pattern.bytes(row).saturating_mul(FORMATTED_TIMES))),
            (Self::Series, [stop]) => {
                let stops = stop.integers()?;
                Box::new(move |row| Ok(stops.at(row).saturating_add(1).saturating_mul(VALUE_BYTES)))
            }
            (Self::Series, [start, stop, step @ ..]) => {
                let series = Series::new(start, stop, step.first())?;
                Box::new(move |row| Ok(series.elements(row).saturating_mul(VALUE_BYTES)))
            }
            (Self::Resize, [list, count, filled @ ..]) => {
                let counts = count.integers()?;
                Box::new(move |row| {
                    let each = filled.first().map_or(0, |value| value.bytes(row)).max(VALUE_BYTES);
                    Ok(list.bytes(row).saturating_add(counts.at(row).saturating_mul(each)))
                })
            }
            (Self::ReplaceElements, [list, _, to, ..]) => Box::new(move |row| {
                let replaced = list.elements(row).saturating_mul(to.bytes(row));
                Ok(list.bytes(row).saturating_add(replaced))
            }),
            (Self::Join, all) => {
                // Between lists or texts, the longest of the others stands between each two.
                let most = |row: usize| {
                    let between = all.iter().filter(|argument| !argument.is_list()).map(|argument| argument.bytes(row)).max().unwrap_or(0);
                    let elements = all.iter().map(|argument| argument.elements(row)).fold(all.len(), usize::saturating_add);
                    all.iter().map(|argument| argument.text_bytes(row)).fold(between.saturating_mul(elements), usize::saturating_add)
                };
                Box::new(move |row| Ok(most(row)))
            }
            // Too few arguments are the function's own error.
            _ => return Ok(0),
        };
        if given.iter().all(|argument| argument.scalar) {
            return Ok(row_bytes(0)?.saturating_add(VALUE_BYTES).saturating_mul(rows));
        }
        let mut bytes = rows.saturating_mul(VALUE_BYTES);
        for row in 0..rows {
            bytes = bytes.saturating_add(row_bytes(row)?);
        }
        Ok(bytes)
    }
}

/// All of the arguments, each as often as there are rows.
fn sum(all: &[Argument], rows: usize) -> usize {
    let of_each = all.iter().map(|argument| match argument.scalar {
        true => argument.bytes(0).saturating_mul(rows),
        false => content_bytes(&argument.values, 0, argument.values.len()),
    });
    of_each.fold(rows.saturating_mul(VALUE_BYTES), usize::saturating_add)
}

/// An argument, a constant as an array of one.
struct Argument {
    values: ArrayRef,
    scalar: bool,
    /// Bytes of a constant text, and whether they are ASCII: it may be long, and an array of it would be a copy.
    text: Option<(usize, bool)>,
}

/// Counts, none of them negative.
struct Counts(ArrayRef, bool);

impl Counts {
    fn at(&self, row: usize) -> usize {
        let (values, row) = (self.0.as_primitive::<Int64Type>(), if self.1 { 0 } else { row });
        if values.is_null(row) { 0 } else { usize::try_from(values.value(row)).unwrap_or(0) }
    }
    fn value(&self, row: usize) -> Option<i128> {
        let (values, row) = (self.0.as_primitive::<Int64Type>(), if self.1 { 0 } else { row });
        values.is_valid(row).then(|| values.value(row).into())
    }
}

impl Argument {
    fn new(value: &ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Array(values) => Self { values: values.clone(), scalar: false, text: None },
            ColumnarValue::Scalar(value) => match value.try_as_str().flatten() {
                Some(text) => Self { values: new_null_array(&DataType::Null, 1), scalar: true, text: Some((text.len(), text.is_ascii())) },
                None => Self { values: value.to_array()?, scalar: true, text: None },
            },
        })
    }

    fn row(&self, row: usize) -> usize {
        if self.scalar { 0 } else { row }
    }

    fn bytes(&self, row: usize) -> usize {
        if let Some((bytes, _)) = self.text {
            return bytes;
        }
        let row = self.row(row);
        content_bytes(&self.values, row, row + 1)
    }

    /// Bytes as text, in which a number has up to some thirty characters.
    fn text_bytes(&self, row: usize) -> usize {
        let row = self.row(row);
        let numbers = elements_below(&self.values, row, row + 1).saturating_mul(32);
        self.bytes(row).saturating_add(numbers)
    }

    fn integers(&self) -> Result<Counts> {
        Ok(Counts(cast(&self.values, &DataType::Int64)?, self.scalar))
    }

    fn is_list(&self) -> bool {
        matches!(self.values.data_type(), DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..))
    }

    /// Elements of a list; none of anything else.
    fn elements(&self, row: usize) -> usize {
        let row = self.row(row);
        if self.is_list() { elements_below(&self.values, row, row + 1) } else { 0 }
    }

    fn is_ascii(&self) -> bool {
        if let Some((_, is_ascii)) = self.text {
            return is_ascii;
        }
        match self.values.data_type() {
            DataType::Utf8 => self.values.as_string::<i32>().is_ascii(),
            DataType::LargeUtf8 => self.values.as_string::<i64>().is_ascii(),
            DataType::Utf8View => self.values.as_string_view().is_ascii(),
            _ => false,
        }
    }
}

/// Elements of the lists, and of the lists within them; one for each value that is none.
fn elements_below(values: &ArrayRef, from: usize, to: usize) -> usize {
    match list_range(values, from, to) {
        Some((child, from, to)) => (to - from).saturating_add(elements_below(child, from, to)),
        None => to - from,
    }
}

/// The child of lists, and its rows that belong to some of theirs.
fn list_range(values: &ArrayRef, from: usize, to: usize) -> Option<(&ArrayRef, usize, usize)> {
    Some(match values.data_type() {
        DataType::List(_) => {
            let lists = values.as_list::<i32>();
            (lists.values(), lists.value_offsets()[from] as usize, lists.value_offsets()[to] as usize)
        }
        DataType::LargeList(_) => {
            let lists = values.as_list::<i64>();
            (lists.values(), lists.value_offsets()[from] as usize, lists.value_offsets()[to] as usize)
        }
        DataType::FixedSizeList(_, size) => {
            let (lists, size) = (values.as_fixed_size_list(), *size as usize);
            (lists.values(), lists.value_offset(from) as usize, lists.value_offset(from) as usize + (to - from) * size)
        }
        _ => return None,
    })
}

/// Bytes of what stands in some rows.
pub fn content_bytes(values: &ArrayRef, from: usize, to: usize) -> usize {
    let (count, spread) = (to - from, |offsets: (i64, i64)| usize::try_from(offsets.1 - offsets.0).unwrap_or(usize::MAX));
    match values.data_type() {
        DataType::Utf8 => {
            let offsets = values.as_string::<i32>().value_offsets();
            spread((offsets[from].into(), offsets[to].into()))
        }
        DataType::Binary => {
            let offsets = values.as_binary::<i32>().value_offsets();
            spread((offsets[from].into(), offsets[to].into()))
        }
        DataType::LargeUtf8 => {
            let offsets = values.as_string::<i64>().value_offsets();
            spread((offsets[from], offsets[to]))
        }
        DataType::LargeBinary => {
            let offsets = values.as_binary::<i64>().value_offsets();
            spread((offsets[from], offsets[to]))
        }
        // The first four bytes of a view are the length of what it shows.
        DataType::Utf8View => values.as_string_view().views()[from..to].iter().map(|view| *view as u32 as usize).sum(),
        DataType::BinaryView => values.as_binary_view().views()[from..to].iter().map(|view| *view as u32 as usize).sum(),
        DataType::Struct(_) => values.as_struct().columns().iter().map(|column| content_bytes(column, from, to)).sum(),
        DataType::Map(..) => {
            let maps = values.as_map();
            let offsets = maps.value_offsets();
            let (from, to) = (offsets[from] as usize, offsets[to] as usize);
            maps.entries().columns().iter().map(|column| content_bytes(column, from, to)).sum()
        }
        of => match list_range(values, from, to) {
            Some((child, from, to)) => content_bytes(child, from, to).saturating_add(count * VALUE_BYTES),
            None => count.saturating_mul(of.primitive_width().unwrap_or(2 * VALUE_BYTES)),
        },
    }
}

/// A series of integers or times, counted in nanoseconds.
struct Series {
    start: Counts,
    stop: Counts,
    step: Step,
    /// Nanoseconds of a unit of start and stop; 0 of integers.
    unit: i128,
}

enum Step {
    One,
    Of(Counts),
    Interval(ArrayRef, bool),
}

impl Series {
    fn new(start: &Argument, stop: &Argument, step: Option<&Argument>) -> Result<Self> {
        let unit = match start.values.data_type() {
            DataType::Date32 => 86_400_000_000_000,
            DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
            DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
            DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => 1,
            _ => 0,
        };
        // Days are counted in 32 bits, which no cast takes to 64.
        let number = |argument: &Argument| -> Result<Counts> {
            let values = match argument.values.data_type() {
                DataType::Date32 => cast(&argument.values, &DataType::Int32)?,
                _ => argument.values.clone(),
            };
            Ok(Counts(cast(&values, &DataType::Int64)?, argument.scalar))
        };
        let step = match step {
            None => Step::One,
            Some(step) if matches!(step.values.data_type(), DataType::Interval(_)) => {
                let values = cast(&step.values, &DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano))?;
                Step::Interval(values, step.scalar)
            }
            Some(step) => Step::Of(step.integers()?),
        };
        Ok(Self { start: number(start)?, stop: number(stop)?, step, unit })
    }

    fn elements(&self, row: usize) -> usize {
        let (Some(start), Some(stop)) = (self.start.value(row), self.stop.value(row)) else { return 0 };
        let step = match &self.step {
            Step::One => Some(1),
            Step::Of(steps) => steps.value(row),
            Step::Interval(steps, scalar) => {
                let (steps, row) = (steps.as_primitive::<IntervalMonthDayNanoType>(), if *scalar { 0 } else { row });
                steps.is_valid(row).then(|| {
                    let step = steps.value(row);
                    let days = i128::from(step.months) * 28 + i128::from(step.days);
                    days * 86_400_000_000_000 + i128::from(step.nanoseconds)
                })
            }
        };
        // No step, or one away from the end, is the function's own matter.
        let Some(step) = step.filter(|step| *step != 0) else { return 0 };
        let span = (stop - start) * self.unit.max(1);
        if (span < 0) != (step < 0) {
            return 1;
        }
        usize::try_from(span / step).unwrap_or(usize::MAX).saturating_add(1)
    }
}
