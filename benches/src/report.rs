//! Rows of a run, their comparison with the reference answers, and how they are printed.

use crate::Outcome;
use crate::engines::EMBEDDED;
use crate::engines::Run;
use crate::steps::Steps;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// How warm an engine was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// First run of the query in a fresh engine; files in the page cache.
    Cold,
    /// Best of several further runs.
    Hot,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Hot => "hot",
        }
    }
}

/// What a figure measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    /// From sending the SQL text to holding the last row.
    Elapsed,
    /// Of all processes of an engine, on all cores.
    Cpu,
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Elapsed => "seconds",
            Self::Cpu => "CPU seconds",
        }
    }
}

/// One run of one query in one engine.
#[derive(Debug, Serialize)]
pub struct Row {
    suite: String,
    query: String,
    engine: String,
    mode: Mode,
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_seconds: Option<f64>,
    rows: usize,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Row {
    /// A row from a run or its error.
    pub fn new(query: &str, engine: &str, mode: Mode, run: Outcome<Run>) -> Self {
        let (run, problem) = match run {
            Ok(run) => (Some(run), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (seconds, cpu_seconds) = (run.as_ref().map(|run| run.seconds), run.as_ref().and_then(|run| run.cpu_seconds));
        let (rows, ok) = (run.map_or(0, |run| run.rows), problem.is_none());
        Self { suite: String::new(), query: query.into(), engine: engine.into(), mode, seconds, cpu_seconds, rows, ok, problem }
    }
}

/// All rows of a run.
pub struct Report {
    suite: String,
    size: String,
    reference: &'static str,
    environment: Vec<(String, String)>,
    rows: Vec<Row>,
}

/// Bowshot, in the order in which it is what others are compared with.
const OURS: [&str; 2] = [EMBEDDED, "bowshot"];

impl Report {
    /// An empty report; `size` is that of the data, `reference` the engine whose answers are right.
    pub fn new(suite: &str, size: String, reference: &'static str, environment: Vec<(String, String)>) -> Self {
        Self { suite: suite.into(), size, reference, environment, rows: vec![] }
    }

    /// Adds a row and shows it.
    pub fn add(&mut self, mut row: Row) {
        row.suite.clone_from(&self.suite);
        eprintln!(
            "{} {} {}: {}",
            row.query,
            row.mode.name(),
            row.engine,
            row.seconds.map_or_else(|| row.problem.clone().unwrap_or_default(), |s| format!("{s:.3} s"))
        );
        self.rows.push(row);
    }

    /// Compares the written answers with DuckDB's. Without DuckDB in the run nothing was checked, and the rows say so.
    pub fn compare_answers(&mut self, python: &Path, answers: &Path) -> Outcome<()> {
        if !self.rows.iter().any(|row| row.engine == self.reference) {
            for row in &mut self.rows {
                row.problem.get_or_insert_with(|| format!("not compared: {} is not among the engines", self.reference));
            }
            return Ok(());
        }
        let output = Command::new(python).arg("benches/peers/compare_answers.py").arg(answers).arg(self.reference).output()?;
        if !output.status.success() {
            return Err(format!("the answers could not be compared: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let differences: BTreeMap<String, String> = serde_json::from_slice(&output.stdout)?;
        for row in &mut self.rows {
            let name = format!("{}-{}-{}", row.query, row.engine, row.mode.name());
            if let Some(difference) = differences.get(&name) {
                row.ok = false;
                row.problem = Some(difference.clone());
            }
        }
        Ok(())
    }

    /// Whether every answer is right, and Bowshot gave all of them.
    pub fn all_ok(&self) -> bool {
        self.rows.iter().all(|row| row.ok || row.seconds.is_none() && !OURS.contains(&row.engine.as_str()))
    }

    fn figure(&self, query: &str, engine: &str, mode: Mode, measure: Measure) -> Option<f64> {
        let row = self.rows.iter().find(|row| (row.query.as_str(), row.engine.as_str(), row.mode) == (query, engine, mode))?;
        match measure {
            Measure::Elapsed => row.seconds,
            Measure::Cpu => row.cpu_seconds,
        }
    }

    /// A table a mode, with ratios against Bowshot, embedded as its peers are where it ran so: above 1 Bowshot is faster. Then, if the suite has them, its steps.
    pub fn print(&self, steps: Option<&Steps>) {
        println!("## {} {}\n", self.suite, self.size);
        for (name, value) in &self.environment {
            println!("- {name}: {value}");
        }
        self.print_mode(Mode::Cold, Measure::Elapsed);
        if self.rows.iter().any(|row| row.cpu_seconds.is_some()) {
            self.print_mode(Mode::Cold, Measure::Cpu);
        }
        self.print_mode(Mode::Hot, Measure::Elapsed);
        if let Some(steps) = steps {
            let engines = self.distinct(Mode::Hot, |row| &row.engine);
            println!("\n{}", steps.table(&engines, |query, engine| self.figure(query, engine, Mode::Hot, Measure::Elapsed)));
        }
        let (answered, failed): (Vec<&Row>, Vec<&Row>) = self.rows.iter().partition(|row| row.seconds.is_some());
        let wrong = answered.iter().filter(|row| !row.ok).count();
        println!("\n{} answers, {wrong} wrong; {} without an answer", answered.len(), failed.len());
        for row in self.rows.iter().filter(|row| !row.ok) {
            println!("\nNOT OK {} {} {}: {}", row.query, row.mode.name(), row.engine, row.problem.as_deref().unwrap_or_default());
        }
    }

    /// What the rows of a mode name, in their order, each once.
    fn distinct(&self, mode: Mode, name: fn(&Row) -> &str) -> Vec<&str> {
        let mut names: Vec<&str> = vec![];
        for row in self.rows.iter().filter(|row| row.mode == mode) {
            if !names.contains(&name(row)) {
                names.push(name(row));
            }
        }
        names
    }

    fn print_mode(&self, mode: Mode, measure: Measure) {
        let (engines, queries) = (self.distinct(mode, |row| &row.engine), self.distinct(mode, |row| &row.query));
        if queries.is_empty() {
            return;
        }
        let figure = |query: &str, engine: &str| self.figure(query, engine, mode, measure);
        let base = OURS.iter().copied().find(|ours| engines.contains(ours)).unwrap_or_default();
        println!("\n### {} ({}; in brackets: times those of {base})\n", mode.name(), measure.name());
        println!("| query | {} |", engines.join(" | "));
        println!("|---|{}", "---|".repeat(engines.len()));
        for query in &queries {
            let ours = figure(query, base);
            let cells: Vec<String> = engines.iter().map(|engine| cell(figure(query, engine), ours)).collect();
            println!("| {query} | {} |", cells.join(" | "));
        }
        // Totals only over queries that every engine answered.
        let common: BTreeSet<&str> =
            queries.iter().copied().filter(|query| engines.iter().all(|engine| figure(query, engine).is_some())).collect();
        let total = |engine: &str| common.iter().filter_map(|query| figure(query, engine)).sum::<f64>();
        let ours = engines.contains(&base).then(|| total(base));
        let cells: Vec<String> = engines.iter().map(|engine| cell(Some(total(engine)), ours)).collect();
        println!("| total of {} | {} |", common.len(), cells.join(" | "));
        // Each beside Bowshot, over what both answered.
        for base in OURS.iter().filter(|ours| engines.contains(ours)) {
            let mean = |engine: &str| {
                let ratio = |query: &&str| Some(figure(query, engine)? / figure(query, base)?);
                let logarithms: Vec<f64> = queries.iter().filter_map(ratio).map(f64::ln).collect();
                match logarithms.len() {
                    0 => String::new(),
                    count => format!("({:.2}) of {count}", (logarithms.iter().sum::<f64>() / count as f64).exp()),
                }
            };
            let cells: Vec<String> = engines.iter().map(|engine| mean(engine)).collect();
            println!("| geometric mean, times {base} | {} |", cells.join(" | "));
        }
    }

    /// The rows as a JSON array.
    pub fn write_json(&self, path: &Path) -> Outcome<()> {
        Ok(std::fs::write(path, serde_json::to_vec_pretty(&self.rows)?)?)
    }
}

fn cell(seconds: Option<f64>, ours: Option<f64>) -> String {
    match (seconds, ours) {
        (Some(seconds), Some(ours)) if ours > 0.0 => format!("{seconds:.3} ({:.2})", seconds / ours),
        (Some(seconds), _) => format!("{seconds:.3}"),
        (None, _) => "failed".into(),
    }
}
