//! Q6 and Q1 by hand in the card's own toolkit, over columns of the same widths: `native/q6_q1.cu`, by nvcc or through Python's cupy.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::bandwidth::CardRates;
use crate::report::{Report, Row};
use crate::{Arguments, Outcome, child};

const SOURCE: &str = include_str!("../native/q6_q1.cu");
const CUPY_SCRIPT: &str = include_str!("../native/drive_cupy.py");

/// Where the toolkit puts its compiler when it is not on the path.
const NVCC_FOLDER: &str = "/usr/local/cuda/bin";

/// What cupy's driver prints.
#[derive(Deserialize)]
#[serde(untagged)]
enum Printed {
    Missing { missing: String },
    Ran(Vec<NativeRun>),
}

#[derive(Deserialize)]
struct NativeRun {
    query: String,
    /// From launch to the answer in host memory.
    seconds: f64,
    /// Of the kernel alone, by the card's clock.
    device_seconds: f64,
    rows: u64,
    bytes: u64,
    ok: bool,
}

/// Runs the program if it can be compiled, else its kernels through cupy; neither is a remark.
pub fn run(arguments: &Arguments, report: &mut Report, card: &CardRates) {
    match nvcc() {
        Some(nvcc) => match compiled(&nvcc, arguments) {
            Ok(runs) => return runs.iter().for_each(|run| report.add(row("cuda, nvcc", run, card))),
            Err(problem) => report.remark(format!("cuda, nvcc: {problem}")),
        },
        None => report.remark("cuda: no nvcc here".into()),
    }
    let Some(python) = &arguments.python else {
        return report.remark("cuda: no --python to ask for cupy".into());
    };
    match interpreted(python, arguments) {
        Ok(Printed::Ran(runs)) => runs.iter().for_each(|run| report.add(row("cuda, cupy", run, card))),
        Ok(Printed::Missing { missing }) => report.remark(format!("cuda: cupy is not importable here ({missing})")),
        Err(problem) => report.remark(format!("cuda, cupy: {problem}")),
    }
}

fn row(engine: &str, run: &NativeRun, card: &CardRates) -> Row {
    let row = Row::new(&run.query, engine, run.rows, run.bytes).timed(run.seconds, Some(card.read), Some(card.copy));
    match run.ok {
        true => row.noted(format!("{:.3} ms on the card", run.device_seconds * 1e3)),
        false => row.failed("differs from its own plain kernel"),
    }
}

/// The compiler, if this machine has it.
fn nvcc() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from(NVCC_FOLDER)]);
    folders.map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file())
}

fn compiled(nvcc: &Path, arguments: &Arguments) -> Outcome<Vec<NativeRun>> {
    let folder = tempfile::tempdir()?;
    let (source, program) = (folder.path().join("q6_q1.cu"), folder.path().join("q6_q1"));
    std::fs::write(&source, SOURCE)?;
    // Older compilers do not know the machine's own architecture by that name; their default runs everywhere.
    let compile = |options: &[&str]| child::output(Command::new(nvcc).args(["-O3", "-o"]).arg(&program).args(options).arg(&source));
    compile(&["-arch=native"]).or_else(|_| compile(&[]))?;
    let printed = child::output(Command::new(&program).args([arguments.rows.to_string(), arguments.runs.to_string()]))?;
    Ok(serde_json::from_str(&printed)?)
}

fn interpreted(python: &Path, arguments: &Arguments) -> Outcome<Printed> {
    let folder = tempfile::tempdir()?;
    let (source, script) = (folder.path().join("q6_q1.cu"), folder.path().join("drive_cupy.py"));
    std::fs::write(&source, SOURCE)?;
    std::fs::write(&script, CUPY_SCRIPT)?;
    let sizes = [arguments.rows.to_string(), arguments.runs.to_string()];
    let printed = child::output(Command::new(python).arg(&script).arg(&source).args(sizes))?;
    Ok(serde_json::from_str(&printed)?)
}
