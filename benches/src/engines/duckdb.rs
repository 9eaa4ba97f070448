//! DuckDB through its Python package, in a process of its own that answers one line of JSON with another.

use super::{Engine, Run};
use crate::Outcome;
use serde::Deserialize;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The process and its pipes. It ends when its input closes.
pub struct DuckDbEngine {
    name: &'static str,
    in_memory: bool,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    seconds: Option<f64>,
    rows: Option<usize>,
    error: Option<String>,
}

impl DuckDbEngine {
    /// Starts DuckDB over `data`; `in_memory` loads all tables into its own format first.
    pub fn start(name: &'static str, python: &Path, data: &Path, in_memory: bool) -> Outcome<Self> {
        let mut child = Command::new(python)
            .arg("benches/peers/duckdb_peer.py")
            .arg(data)
            .arg(if in_memory { "memory" } else { "parquet" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{} cannot start: {error}; ./check makes the environment", python.display()))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("DuckDB's process has no output")?);
        let mut engine = Self { name, in_memory, child, input, output };
        // The first line says that the tables are there.
        engine.answer()?;
        Ok(engine)
    }

    fn answer(&mut self) -> Outcome<Answer> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: Answer = serde_json::from_str(&line).map_err(|error| format!("DuckDB's process said '{}': {error}", line.trim()))?;
        match answer.error {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        }
    }
}

impl Drop for DuckDbEngine {
    fn drop(&mut self) {
        drop(self.input.take());
        // Its input is closed: it ends by itself; there is nothing to do about a failing wait.
        let _ = self.child.wait();
    }
}

impl Engine for DuckDbEngine {
    fn name(&self) -> &str {
        self.name
    }

    fn has_cold(&self) -> bool {
        !self.in_memory
    }

    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>> {
        Box::pin(async move {
            let request = serde_json::json!({ "sql": sql, "answer": answer });
            let input = self.input.as_mut().ok_or("DuckDB's process has ended")?;
            writeln!(input, "{request}")?;
            input.flush()?;
            let answer = self.answer()?;
            Ok(Run { seconds: answer.seconds.unwrap_or(f64::NAN), rows: answer.rows.unwrap_or(0) })
        })
    }
}
