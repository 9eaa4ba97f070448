//! One fused shader for a program. Literals, bases and strides are parameters: the source, which is the key of the
//! pipeline cache, depends on the shape of the plan and the widths of the lanes alone.

use std::collections::HashSet;
use std::fmt::Write;

use super::layout::{Entry, Layout};
use crate::bind::{Mask, MaskId, Order, Program, ValueId, ValueOp, Width};
use crate::chunk::LaneWidth;
use crate::error::KernelError;
use crate::limits::WORKGROUP_SIZE;

const LIMBS: &str = include_str!("../../shaders/limbs.wgsl");
const TOTALS: &str = include_str!("../../shaders/totals.wgsl");
const LOCAL_TOTALS: &str = include_str!("../../shaders/local_totals.wgsl");
const DOUBLES: &str = include_str!("../../shaders/doubles.wgsl");

/// The entry point that every row group runs.
pub(super) const MAIN: &str = "main";
/// The entry point that finds the lower words of wide extremes once their upper words are known.
pub(super) const LOWER_WORDS: &str = "lower_words";

/// A shader and what to bind to it.
///
/// Bindings: 0 parameters, 1 totals, 2 tables, from 3 on the columns in `columns`.
pub(super) struct Shader {
    pub source: String,
    pub parameters: Vec<u32>,
    pub tables: Vec<u32>,
    /// The program's columns that are read, each once.
    pub columns: Vec<usize>,
    /// Whether [`LOWER_WORDS`] follows [`MAIN`].
    pub two_passes: bool,
}

/// Generates the shader of a program.
pub(super) fn generate(program: &Program<'_>, layout: &Layout) -> Result<Shader, KernelError> {
    let mut writer = Writer {
        program,
        parameters: vec![program.row_count as u32],
        tables: vec![0; 4],
        columns: Vec::new(),
        body: String::new(),
        emitted: HashSet::new(),
        uses_doubles: !layout.float_sums.is_empty(),
    };
    // What invocations hold goes through their workgroup.
    let private = layout.slots == 1 && layout.is_local();
    writer.open(layout, private)?;
    for (entry, mask) in layout.counts.iter().zip(&program.counts) {
        let mask = writer.mask(*mask)?;
        writer.add(*entry, &mask, "vec4<u32>(1u, 0u, 0u, 0u)", private, layout);
    }
    for (entry, measure) in layout.measures.iter().zip(&program.measures) {
        let mask = writer.mask(measure.mask)?;
        let value = writer.biased(measure.value)?;
        writer.add(*entry, &mask, &value, private, layout);
    }
    for ((entry, fixed), sum) in layout.float_sums.iter().zip(&program.float_sums) {
        let (mask, place, unit) = (writer.mask(sum.mask)?, writer.value(sum.value)?, writer.parameter(fixed.unit() as u32));
        writer.add(*entry, &mask, &format!("fixed_point({place}, {unit})"), private, layout);
    }
    let first_pass = writer.close();
    let wide = layout.measures.iter().zip(&program.measures).filter_map(|(entry, measure)| match entry {
        Entry::Wide { at, is_min } => Some((*at, *is_min, measure)),
        _ => None,
    });
    let wide: Vec<_> = wide.collect();
    let mut second_pass = String::new();
    if !wide.is_empty() {
        writer.open(layout, false)?;
        for (at, is_min, measure) in wide {
            let (mask, value) = (writer.mask(measure.mask)?, writer.biased(measure.value)?);
            writer.lower_word(at, is_min, &mask, &value);
        }
        second_pass = writer.close();
    }
    let source = writer.source(layout, private, &first_pass, &second_pass);
    let Writer { parameters, tables, columns, .. } = writer;
    Ok(Shader { source, parameters, tables, columns, two_passes: !second_pass.is_empty() })
}

#[derive(PartialEq, Eq, Hash)]
enum Emitted {
    Lane(usize),
    Value(usize),
    Mask(usize),
}

struct Writer<'p> {
    program: &'p Program<'p>,
    parameters: Vec<u32>,
    tables: Vec<u32>,
    columns: Vec<usize>,
    body: String,
    emitted: HashSet<Emitted>,
    uses_doubles: bool,
}

impl Writer<'_> {
    /// Begins the body of a pass: what follows is for rows that pass the filter.
    fn open(&mut self, layout: &Layout, private: bool) -> Result<(), KernelError> {
        let filter = self.mask(self.program.filter)?;
        let _ = writeln!(self.body, "    if ({filter}) {{");
        if !private {
            self.slot(layout);
        }
        Ok(())
    }

    /// Ends the body of a pass and gives it.
    fn close(&mut self) -> String {
        self.body.push_str("    }\n");
        self.emitted.clear();
        std::mem::take(&mut self.body)
    }

    fn parameter(&mut self, word: u32) -> String {
        self.parameters.push(word);
        format!("parameters[{}u]", self.parameters.len() - 1)
    }

    /// A parameter of a width, modulo that width.
    fn wide_parameter(&mut self, value: i128, width: Width) -> String {
        let limbs: Vec<String> = match width {
            Width::U32 => return self.parameter(value as u32),
            Width::I64 => (0..2).map(|limb| self.parameter((value >> (32 * limb)) as u32)).collect(),
            Width::I128 => (0..4).map(|limb| self.parameter((value >> (32 * limb)) as u32)).collect(),
        };
        format!("vec{}<u32>({})", limbs.len(), limbs.join(", "))
    }

    fn line(&mut self, name: &str, expression: &str) {
        let _ = writeln!(self.body, "    let {name} = {expression};");
    }

    /// The buffer of a column.
    fn buffer(&mut self, column: usize) -> String {
        if !self.columns.contains(&column) {
            self.columns.push(column);
        }
        format!("column{column}")
    }

    fn is_wide(&self, column: usize) -> bool {
        self.program.chunks[column].lane_width() == LaneWidth::U64
    }

    /// The raw lane: `u32`, or `vec2<u32>` for lanes of 64 bits.
    fn lane(&mut self, column: usize) -> String {
        let name = format!("lane{column}");
        if self.emitted.insert(Emitted::Lane(column)) {
            let buffer = self.buffer(column);
            let expression = match self.program.chunks[column].lane_width() {
                LaneWidth::U8 => format!("({buffer}[row >> 2u] >> ((row & 3u) * 8u)) & 0xFFu"),
                LaneWidth::U16 => format!("({buffer}[row >> 1u] >> ((row & 1u) * 16u)) & 0xFFFFu"),
                LaneWidth::U32 => format!("{buffer}[row]"),
                LaneWidth::U64 => format!("vec2<u32>({buffer}[row * 2u], {buffer}[row * 2u + 1u])"),
            };
            self.line(&name, &expression);
        }
        name
    }

    /// Whether the column is not NULL at this row: validity words follow the lanes.
    fn valid(&mut self, column: usize) -> String {
        let chunk = &self.program.chunks[column];
        if chunk.validity_words().is_none() {
            return "true".into();
        }
        let offset = chunk.lane_words().len() as u32;
        let buffer = self.buffer(column);
        let offset = self.parameter(offset);
        format!("((({buffer}[{offset} + (row >> 5u)] >> (row & 31u)) & 1u) == 1u)")
    }

    fn value(&mut self, id: ValueId) -> Result<String, KernelError> {
        let name = format!("value{}", id.0);
        if !self.emitted.insert(Emitted::Value(id.0)) {
            return Ok(name);
        }
        let value = self.program.values[id.0];
        let bits = match value.width {
            Width::U32 => "",
            Width::I64 => "64",
            Width::I128 => "128",
        };
        let expression = match value.op {
            ValueOp::Constant(constant) => self.wide_parameter(constant, value.width),
            ValueOp::Affine { column, base, factor } => {
                let lane = self.lane(column);
                let lane = match (value.width, self.is_wide(column)) {
                    (Width::U32, false) | (Width::I64, true) => lane,
                    (Width::U32, true) => format!("{lane}.x"),
                    (Width::I64, false) => format!("vec2<u32>({lane}, 0u)"),
                    (Width::I128, true) => format!("vec4<u32>({lane}, 0u, 0u)"),
                    (Width::I128, false) => format!("vec4<u32>({lane}, 0u, 0u, 0u)"),
                };
                let scaled = if factor == 1 {
                    lane
                } else {
                    let factor = self.wide_parameter(factor, value.width);
                    if value.width == Width::U32 { format!("{lane} * {factor}") } else { format!("multiply{bits}({lane}, {factor})") }
                };
                if base == 0 {
                    scaled
                } else {
                    let base = self.wide_parameter(base, value.width);
                    if value.width == Width::U32 { format!("{scaled} + {base}") } else { format!("add{bits}({scaled}, {base})") }
                }
            }
            ValueOp::Add(left, right) | ValueOp::Sub(left, right) | ValueOp::Mul(left, right) => {
                let (symbol, function) = match value.op {
                    ValueOp::Add(..) => ("+", "add"),
                    ValueOp::Sub(..) => ("-", "subtract"),
                    _ => ("*", "multiply"),
                };
                let narrow = self.program.values[left.0].width == Width::U32;
                let (left, right) = (self.value(left)?, self.value(right)?);
                match (value.width, narrow) {
                    (Width::U32, _) => format!("{left} {symbol} {right}"),
                    (_, true) => format!("multiply_words({left}, {right})"),
                    _ => format!("{function}{bits}({left}, {right})"),
                }
            }
            ValueOp::Widen(input) => {
                let from = self.program.values[input.0].width;
                let input = self.value(input)?;
                match (from, value.width) {
                    (Width::U32, Width::I64) => format!("vec2<u32>({input}, 0u)"),
                    (Width::U32, Width::I128) => format!("vec4<u32>({input}, 0u, 0u, 0u)"),
                    (Width::I64, Width::I128) => format!("widen64({input})"),
                    _ => return Err(KernelError::internal("widening that does not widen")),
                }
            }
            ValueOp::Select(taken, yes, no) => {
                let (taken, yes, no) = (self.mask(taken)?, self.value(yes)?, self.value(no)?);
                format!("select({no}, {yes}, {taken})")
            }
        };
        self.line(&name, &expression);
        Ok(name)
    }

    /// `value - low` as four words: never negative.
    fn biased(&mut self, id: ValueId) -> Result<String, KernelError> {
        let value = self.program.values[id.0];
        let name = self.value(id)?;
        let low = (value.low != 0).then(|| self.wide_parameter(value.low, value.width));
        Ok(match (value.width, low) {
            (Width::U32, None) => format!("vec4<u32>({name}, 0u, 0u, 0u)"),
            (Width::U32, Some(low)) => format!("vec4<u32>({name} - {low}, 0u, 0u, 0u)"),
            (Width::I64, None) => format!("vec4<u32>({name}, 0u, 0u)"),
            (Width::I64, Some(low)) => format!("vec4<u32>(subtract64({name}, {low}), 0u, 0u)"),
            (Width::I128, None) => name,
            (Width::I128, Some(low)) => format!("subtract128({name}, {low})"),
        })
    }

    fn mask(&mut self, id: MaskId) -> Result<String, KernelError> {
        let name = format!("mask{}", id.0);
        if let Mask::Constant(answer) = self.program.masks[id.0] {
            return Ok(answer.to_string());
        }
        if !self.emitted.insert(Emitted::Mask(id.0)) {
            return Ok(name);
        }
        let program = self.program;
        let expression = match &program.masks[id.0] {
            Mask::Constant(answer) => answer.to_string(),
            Mask::Range { column, low, high } => {
                let lane = self.lane(*column);
                let span = i128::from(high - low);
                if self.is_wide(*column) {
                    let (low, span) = (self.wide_parameter(i128::from(*low), Width::I64), self.wide_parameter(span, Width::I64));
                    format!("!unsigned_less64({span}, subtract64({lane}, {low}))")
                } else {
                    let (low, span) = (self.parameter(*low as u32), self.parameter(span as u32));
                    format!("({lane} - {low}) <= {span}")
                }
            }
            Mask::Table { column, table } => {
                let lane = self.lane(*column);
                let offset = self.tables.len() as u32;
                for part in table.chunks(32) {
                    self.tables.push(part.iter().enumerate().fold(0, |word, (bit, answer)| word | u32::from(*answer) << bit));
                }
                let offset = self.parameter(offset);
                let lane = if self.is_wide(*column) { format!("{lane}.x") } else { lane };
                format!("((tables[{offset} + ({lane} >> 5u)] >> ({lane} & 31u)) & 1u) == 1u")
            }
            Mask::Member { .. } => {
                return Err(KernelError::declined("device: a long IN list over a wide column"));
            }
            Mask::Valid { column } => self.valid(*column),
            Mask::Compare { order, left, right } => {
                let width = program.values[left.0].width;
                let (left, right) = (self.value(*left)?, self.value(*right)?);
                match (order, width) {
                    (Order::Equal, Width::U32) => format!("{left} == {right}"),
                    (Order::Equal, _) => format!("all({left} == {right})"),
                    (Order::Less, Width::U32) => format!("{left} < {right}"),
                    (Order::Less, Width::I64) => format!("less64({left}, {right})"),
                    (Order::Less, Width::I128) => format!("less128({left}, {right})"),
                }
            }
            Mask::And(inputs) | Mask::Or(inputs) => {
                let symbol = if matches!(program.masks[id.0], Mask::And(_)) { " && " } else { " || " };
                inputs.iter().map(|input| self.mask(*input)).collect::<Result<Vec<_>, _>>()?.join(symbol)
            }
            Mask::Not(input) => format!("!{}", self.mask(*input)?),
        };
        self.line(&name, &expression);
        Ok(name)
    }

    /// `slot` as the first word of the row's group.
    fn slot(&mut self, layout: &Layout) {
        let mut terms = Vec::new();
        for key in &self.program.keys.columns {
            let lane = self.lane(key.column);
            let lane = if self.is_wide(key.column) { format!("{lane}.x") } else { lane };
            let code = match key.null_code {
                None => lane,
                Some(null_code) => {
                    let (valid, null_code) = (self.valid(key.column), self.parameter(null_code as u32));
                    format!("select({null_code}, {lane}, {valid})")
                }
            };
            let stride = self.parameter(key.stride as u32 * layout.slot_words);
            terms.push(format!("{code} * {stride}"));
        }
        let slot = if terms.is_empty() { "0u".into() } else { terms.join(" + ") };
        self.line("slot", &slot);
    }

    /// One row's contribution to one entry.
    fn add(&mut self, entry: Entry, mask: &str, value: &str, private: bool, layout: &Layout) {
        let at = entry.at();
        let target = if layout.is_local() { "local_totals" } else { "totals" };
        let statement = match (entry, private) {
            (Entry::Count { .. }, true) => format!("private{at} += 1u;"),
            (Entry::Sum { .. }, true) => format!("private{at} = add128(private{at}, {value});"),
            (Entry::Max { .. }, true) => format!("private{at} = max(private{at}, ({value}).x);"),
            (Entry::Min { .. }, true) => format!("private{at} = max(private{at}, ~({value}).x);"),
            (Entry::Wide { is_min, .. }, true) => format!("private{at} = max(private{at}, {}({value}).y);", complement(is_min)),
            (Entry::Count { .. }, false) => format!("atomicAdd(&{target}[slot + {at}u], 1u);"),
            (Entry::Sum { limbs, .. }, false) => {
                format!("add_to_{target}(slot + {at}u, {limbs}u, {value});")
            }
            (Entry::Max { .. }, false) => {
                format!("atomicMax(&{target}[slot + {at}u], ({value}).x);")
            }
            (Entry::Min { .. }, false) => {
                format!("atomicMax(&{target}[slot + {at}u], ~({value}).x);")
            }
            (Entry::Wide { is_min, .. }, false) => {
                format!("atomicMax(&{target}[slot + {at}u], {}({value}).y);", complement(is_min))
            }
        };
        let _ = writeln!(self.body, "    if ({mask}) {{ {statement} }}");
    }

    /// One row's contribution to the lower word of a wide extreme.
    fn lower_word(&mut self, at: u32, is_min: bool, mask: &str, value: &str) {
        let not = complement(is_min);
        let _ = writeln!(
            self.body,
            "    if (({mask}) && {not}({value}).y == atomicLoad(&totals[slot + {at}u])) {{ atomicMax(&totals[slot + {}u], {not}({value}).x); }}",
            at + 1
        );
    }

    fn source(&self, layout: &Layout, private: bool, first_pass: &str, second_pass: &str) -> String {
        let mut source = String::new();
        let _ = writeln!(source, "@group(0) @binding(0) var<storage, read> parameters: array<u32>;");
        let _ = writeln!(source, "@group(0) @binding(1) var<storage, read_write> totals: array<atomic<u32>>;");
        let _ = writeln!(source, "@group(0) @binding(2) var<storage, read> tables: array<u32>;");
        for (position, column) in self.columns.iter().enumerate() {
            let _ = writeln!(source, "@group(0) @binding({}) var<storage, read> column{column}: array<u32>;", position + 3);
        }
        source.push_str(LIMBS);
        source.push_str(TOTALS);
        if self.uses_doubles {
            source.push_str(DOUBLES);
        }
        let local = layout.is_local();
        if local {
            let _ = writeln!(source, "const LOCAL_WORDS: u32 = {}u;", layout.words());
            source.push_str(LOCAL_TOTALS);
            source.push_str(&TOTALS.replace("totals", "local_totals"));
        }
        let entries: Vec<Entry> = layout.entries().collect();
        let head = |name| {
            format!(
                "@compute @workgroup_size({WORKGROUP_SIZE})\nfn {name}(@builtin(global_invocation_id) invocation: vec3<u32>, \
                 @builtin(local_invocation_index) local_index: u32, @builtin(num_workgroups) workgroups: vec3<u32>) {{\n"
            )
        };
        let rows = format!("  for (var row = invocation.x; row < parameters[0u]; row += workgroups.x * {WORKGROUP_SIZE}u) {{\n");
        source.push_str(&head(MAIN));
        if private {
            for entry in &entries {
                let kind = if matches!(entry, Entry::Sum { .. }) { "vec4<u32>" } else { "u32" };
                let _ = writeln!(source, "  var private{}: {kind};", entry.at());
            }
        }
        source.push_str(&rows);
        source.push_str(first_pass);
        source.push_str("  }\n");
        if private {
            for entry in &entries {
                let at = entry.at();
                let _ = match entry {
                    Entry::Count { .. } => {
                        writeln!(source, "  atomicAdd(&local_totals[{at}u], private{at});")
                    }
                    Entry::Sum { limbs, .. } => writeln!(source, "  add_to_local_totals({at}u, {limbs}u, private{at});"),
                    Entry::Max { .. } | Entry::Min { .. } | Entry::Wide { .. } => {
                        writeln!(source, "  atomicMax(&local_totals[{at}u], private{at});")
                    }
                };
            }
        }
        if local {
            source.push_str("  workgroupBarrier();\n");
            let (slots, words) = (layout.slots, layout.slot_words);
            let _ = writeln!(source, "  for (var slot = local_index; slot < {slots}u; slot += {WORKGROUP_SIZE}u) {{");
            for entry in &entries {
                let at = format!("slot * {words}u + {}u", entry.at());
                let _ = match entry {
                    Entry::Count { .. } => writeln!(source, "    atomicAdd(&totals[{at}], atomicLoad(&local_totals[{at}]));"),
                    Entry::Sum { limbs, .. } => writeln!(source, "    add_to_totals({at}, {limbs}u, local_total({at}, {limbs}u));"),
                    Entry::Max { .. } | Entry::Min { .. } | Entry::Wide { .. } => {
                        writeln!(source, "    atomicMax(&totals[{at}], atomicLoad(&local_totals[{at}]));")
                    }
                };
            }
            source.push_str("  }\n");
        }
        source.push_str("}\n");
        if !second_pass.is_empty() {
            let _ = write!(source, "{}{rows}{second_pass}  }}\n}}\n", head(LOWER_WORDS));
        }
        source
    }
}

/// Minima are kept as the greatest complement.
fn complement(is_min: bool) -> &'static str {
    if is_min { "~" } else { "" }
}
