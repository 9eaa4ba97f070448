//! Rows of a run, and how they are printed: what the machine can do, then queries, then the sweep.

use std::path::Path;

use serde::Serialize;

use crate::Outcome;
use crate::bandwidth::Rate;

/// How warm the data were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Mode {
    /// A rate of the machine, not of a query.
    #[serde(rename = "bandwidth")]
    Bandwidth,
    /// The chunks were in host memory alone.
    #[serde(rename = "first touch")]
    FirstTouch,
    /// The data were where the engine reads them; the best of several runs.
    #[serde(rename = "hot")]
    Hot,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Row {
    pub suite: &'static str,
    pub query: String,
    pub engine: String,
    pub mode: Mode,
    /// Absent where there is no answer.
    pub seconds: Option<f64>,
    /// Rows of the table.
    pub rows: u64,
    /// Bytes of the columns that are read, in the engine's form where it is known.
    pub bytes: u64,
    /// Seconds, as a multiple of reading `bytes` at the measured rate of the memory that holds them.
    pub floor_multiple: Option<f64>,
    /// The same at the rate of a copy, which counts bytes read and written.
    pub copy_floor_multiple: Option<f64>,
    /// Whether the answer is right and was given where the row says.
    pub ok: bool,
    /// Seconds a pass in which the device ran kernels, by its own clock; row groups that overlap count each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_seconds: Option<f64>,
    /// Why there is no answer, or what is remarkable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Row {
    /// A hot row without figures.
    pub fn new(query: &str, engine: &str, rows: u64, bytes: u64) -> Self {
        let (query, engine) = (query.to_string(), engine.to_string());
        Self {
            suite: "gpu",
            query,
            engine,
            mode: Mode::Hot,
            seconds: None,
            rows,
            bytes,
            floor_multiple: None,
            copy_floor_multiple: None,
            ok: true,
            device_seconds: None,
            note: None,
        }
    }

    /// The row of a time, beside the floors of the memory that was read, if they are known.
    pub fn timed(self, seconds: f64, read: Option<Rate>, copy: Option<Rate>) -> Self {
        let bytes = self.bytes as f64;
        let multiple = |rate: Option<Rate>| rate.map(|rate| seconds * rate.bytes_per_second() / bytes.max(1.0));
        Self { seconds: Some(seconds), floor_multiple: multiple(read), copy_floor_multiple: multiple(copy), ..self }
    }

    /// The row with what the device's own clock says of a pass.
    pub fn clocked(self, device_seconds: Option<f64>) -> Self {
        let note = device_seconds.map(|seconds| format!("{:.3} ms in kernels", 1e3 * seconds));
        Self { device_seconds, note: note.or(self.note), ..self }
    }

    /// The row with a remark.
    pub fn noted(self, note: impl Into<String>) -> Self {
        Self { note: Some(note.into()), ..self }
    }

    /// The row as a failure of the whole run.
    pub fn failed(self, problem: impl Into<String>) -> Self {
        Self { ok: false, note: Some(problem.into()), ..self }
    }
}

/// All rows of a run.
pub struct Report {
    title: String,
    environment: Vec<(String, String)>,
    rates: Vec<(&'static str, Rate)>,
    rows: Vec<Row>,
    remarks: Vec<String>,
}

impl Report {
    pub fn new(title: String, environment: Vec<(String, String)>) -> Self {
        Self { title, environment, rates: vec![], rows: vec![], remarks: vec![] }
    }

    /// Adds a rate of the machine.
    pub fn add_rate(&mut self, name: &'static str, rate: Rate) {
        eprintln!("{name}: {}", gigabytes(rate.bytes_per_second()));
        self.rates.push((name, rate));
        let row = Row::new(name, "machine", 0, rate.bytes);
        self.rows.push(Row { mode: Mode::Bandwidth, seconds: Some(rate.seconds), ..row });
    }

    /// Adds a row and shows it.
    pub fn add(&mut self, row: Row) {
        let time = row.seconds.map(|seconds| format!("{:.3} ms ", seconds * 1e3)).unwrap_or_default();
        eprintln!("{} {}: {time}{}", row.query, row.engine, row.note.as_deref().unwrap_or_default());
        self.rows.push(row);
    }

    /// Adds a line below the tables.
    pub fn remark(&mut self, remark: String) {
        eprintln!("{remark}");
        self.remarks.push(remark);
    }

    /// Whether every row is right, and those of the device ran there.
    pub fn all_ok(&self) -> bool {
        self.rows.iter().all(|row| row.ok)
    }

    pub fn print(&self) {
        println!("## {}\n", self.title);
        self.environment.iter().for_each(|(name, value)| println!("- {name}: {value}"));
        println!("\n### what the machine can do\n");
        let rates = self.rates.iter().map(|(name, rate)| [name.to_string(), gigabytes(rate.bytes_per_second())]);
        print_table(["rate", "GB/s"], rates.collect());
        println!("\n### queries\n\n{LEGEND}\n");
        let queries = self.rows.iter().filter(|row| row.mode != Mode::Bandwidth && !is_step(&row.query));
        print_table(QUERY_HEAD, queries.map(|row| self.query_cells(row)).collect());
        println!("\n### groups: sum and count by a key of so many values\n\n{STEP_LEGEND}\n");
        print_table(STEP_HEAD, self.steps());
        if !self.remarks.is_empty() {
            println!();
        }
        self.remarks.iter().for_each(|remark| println!("- {remark}"));
        self.print_verdict();
    }

    fn print_verdict(&self) {
        let queries = self.rows.iter().filter(|row| row.mode != Mode::Bandwidth);
        let (answered, other): (Vec<&Row>, Vec<&Row>) = queries.partition(|row| row.seconds.is_some());
        let wrong = self.rows.iter().filter(|row| !row.ok).count();
        println!("\n{} answers, {} without one, {wrong} not ok", answered.len(), other.len());
        for row in self.rows.iter().filter(|row| !row.ok) {
            println!("\nNOT OK {} {}: {}", row.query, row.engine, row.note.as_deref().unwrap_or_default());
        }
    }

    fn of(&self, query: &str, engine: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.query == query && row.engine == engine)
    }

    fn query_cells(&self, row: &Row) -> [String; 9] {
        let a_row = |row: &Row| Some(row.seconds? / row.rows.max(1) as f64);
        let times_device = self.of(&row.query, DEVICE).and_then(|device| Some(a_row(row)? / a_row(device)?));
        [
            row.query.clone(),
            row.engine.clone(),
            milliseconds(row),
            rate(row, row.rows, 1e6),
            rate(row, row.bytes, 1e9),
            multiple(row.floor_multiple),
            multiple(row.copy_floor_multiple),
            multiple(times_device),
            note(row),
        ]
    }

    /// A line a step: the device's figures beside the host's times.
    fn steps(&self) -> Vec<[String; 8]> {
        let mut before: Option<f64> = None;
        let steps = self.rows.iter().filter(|row| is_step(&row.query) && row.engine == DEVICE);
        steps
            .map(|row| {
                let step = row.seconds.zip(before).map(|(seconds, before)| seconds / before);
                before = row.seconds;
                let mut hosts = self.rows.iter().filter(|host| host.query == row.query && host.engine != DEVICE).map(milliseconds);
                [
                    row.query.trim_start_matches(STEP).to_string(),
                    milliseconds(row),
                    rate(row, row.rows, 1e6),
                    multiple(row.floor_multiple),
                    multiple(step),
                    hosts.next().unwrap_or_default(),
                    hosts.next().unwrap_or_default(),
                    note(row),
                ]
            })
            .collect()
    }

    /// The rows as a JSON array.
    pub fn write_json(&self, path: &Path) -> Outcome<()> {
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&self.rows)?)?)
    }
}

const LEGEND: &str = "`x read`, `x copy`: seconds, as a multiple of the bytes at the measured rate of the memory that holds them.\n\
                      `x device`: seconds a row, as a multiple of the device's: above 1 the device is faster.";
const QUERY_HEAD: [&str; 9] = ["query", "engine", "ms", "M rows/s", "GB/s", "x read", "x copy", "x device", "note"];
const STEP_LEGEND: &str = "Milliseconds on the device, on the host by all cores and by one; `x step`: times the device's step before.";
const STEP_HEAD: [&str; 8] = ["groups", "device", "M rows/s", "x read", "x step", "host, all", "host, one", "note"];

/// The engine that is measured.
pub const DEVICE: &str = "device";
/// How the names of the sweep's queries begin; the number of groups follows.
pub const STEP: &str = "groups_";

/// Whether a query is a step of the sweep.
pub fn is_step(query: &str) -> bool {
    query.starts_with(STEP)
}

fn milliseconds(row: &Row) -> String {
    row.seconds.map(|seconds| format!("{:.3}", seconds * 1e3)).unwrap_or_default()
}

fn rate(row: &Row, amount: u64, unit: f64) -> String {
    match row.seconds {
        Some(seconds) if amount > 0 => format!("{:.1}", amount as f64 / seconds / unit),
        _ => String::new(),
    }
}

fn multiple(multiple: Option<f64>) -> String {
    multiple.map(|multiple| format!("{multiple:.2}")).unwrap_or_default()
}

fn note(row: &Row) -> String {
    let note = row.note.clone().unwrap_or_default();
    if row.ok { note } else { format!("NOT OK: {note}") }
}

/// A markdown table whose columns line up, words to the left and numbers to the right.
fn print_table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) {
    let is_words = |column: usize| column == 0 && head[0] != "groups" || head[column] == "engine" || head[column] == "note";
    let widest = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    // Notes are not padded: one long one would widen every line.
    let width = |column: usize| if head[column] == "note" { 4 } else { widest(column).max(head[column].len()) };
    let line = |cells: Vec<&str>| {
        let padded = cells.into_iter().enumerate().map(|(column, cell)| match is_words(column) {
            true => format!("{cell:<0$}", width(column)),
            false => format!("{cell:>0$}", width(column)),
        });
        println!("| {} |", padded.collect::<Vec<_>>().join(" | "));
    };
    line(head.to_vec());
    let rules = (0..N).map(|column| match is_words(column) {
        true => "-".repeat(width(column) + 2),
        false => format!("{}:", "-".repeat(width(column) + 1)),
    });
    println!("|{}|", rules.collect::<Vec<_>>().join("|"));
    rows.iter().for_each(|row| line(row.iter().map(String::as_str).collect()));
}

fn gigabytes(bytes_per_second: f64) -> String {
    format!("{:.1}", bytes_per_second / 1e9)
}
