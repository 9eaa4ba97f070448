//! DuckDB and Polars over the same rows, handed over as an Arrow file and loaded into their own memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use arrow::ipc::writer::FileWriter;
use serde::Deserialize;

use crate::report::{Report, Row};
use crate::suite::Answers;
use crate::{Arguments, Outcome, child, lineitem};

const SCRIPT: &str = include_str!("../peers/table_peer.py");
const ENGINES: [&str; 2] = ["duckdb", "polars"];

/// What `table_peer.py` prints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Printed {
    Missing { missing: String },
    Error { error: String },
    Ran { version: String, load_seconds: f64, queries: BTreeMap<String, QueryRun> },
}

#[derive(Deserialize)]
struct QueryRun {
    seconds: f64,
    rows: Vec<Vec<String>>,
}

/// Runs the peers that `--python` has. What is missing is a remark, a wrong answer a failure.
pub fn run(arguments: &Arguments, report: &mut Report, answers: &Answers) {
    let Some(python) = &arguments.python else {
        report.remark("peers: not asked for (--python)".into());
        return;
    };
    if let Err(problem) = run_all(python, arguments.runs, report, answers) {
        report.remark(format!("peers: {problem}"));
    }
}

fn run_all(python: &Path, runs: usize, report: &mut Report, answers: &Answers) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let (script, data) = (folder.path().join("table_peer.py"), folder.path().join("lineitem.arrow"));
    std::fs::write(&script, SCRIPT)?;
    write(&data, &answers.sizes)?;
    for engine in ENGINES {
        let mut command = Command::new(python);
        command.arg(&script).arg(engine).arg(&data).arg(runs.to_string());
        match ask(&mut command) {
            Ok(Printed::Missing { missing }) => report.remark(format!("{engine}: not importable here ({missing})")),
            Ok(Printed::Error { error }) => report.remark(format!("{engine}: {error}")),
            Ok(Printed::Ran { version, load_seconds, queries }) => {
                let rows: usize = answers.sizes.iter().sum();
                report.remark(format!("{engine} {version}: {rows} rows loaded in {load_seconds:.1} s, all cores"));
                add_rows(engine, &queries, report, answers);
            }
            Err(problem) => report.remark(format!("{engine}: {problem}")),
        }
    }
    Ok(())
}

fn ask(command: &mut Command) -> Outcome<Printed> {
    Ok(serde_json::from_str(&child::output(command)?)?)
}

fn add_rows(engine: &str, queries: &BTreeMap<String, QueryRun>, report: &mut Report, answers: &Answers) {
    let rows = answers.sizes.iter().map(|size| *size as u64).sum();
    for (query, answer) in &answers.answers {
        let Some(run) = queries.get(query) else {
            continue;
        };
        // How many bytes a peer reads is its own matter.
        let row = Row::new(query, engine, rows, 0).timed(run.seconds, None, None);
        let expected: Vec<Vec<String>> = answer.rows().into_iter().map(|row| without_sum_of_discounts(query, row)).collect();
        report.add(if run.rows == expected { row } else { row.failed(difference(&run.rows, &expected)) });
    }
}

/// Q1's kernel gives the sum of discounts, from which the average is made; peers give that average.
fn without_sum_of_discounts(query: &str, mut row: Vec<String>) -> Vec<String> {
    if query == "q1" && row.len() > 2 {
        row.remove(row.len() - 2);
    }
    row
}

fn difference(given: &[Vec<String>], expected: &[Vec<String>]) -> String {
    let differs = given.iter().zip(expected).find(|(given, expected)| given != expected);
    match differs {
        Some((given, expected)) => format!("answers {}, not {}", given.join(" "), expected.join(" ")),
        None => format!("answers {} groups, not {}", given.len(), expected.len()),
    }
}

/// The table's first row groups as an Arrow file, decoded.
fn write(path: &Path, sizes: &[usize]) -> Outcome<()> {
    let began = Instant::now();
    let mut writer = FileWriter::try_new(BufWriter::new(File::create(path)?), &lineitem::schema())?;
    for (group, rows) in sizes.iter().enumerate() {
        writer.write(&lineitem::batch(group, *rows)?)?;
    }
    writer.finish()?;
    eprintln!("rows written for peers in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}
