//! Peers through their Python packages, each in a process of its own that answers one line of JSON with another.

use super::{Engine, Run};
use crate::{Outcome, cpu};
use serde::Deserialize;
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The process and its pipes. It ends when its input closes.
pub struct PeerEngine {
    name: String,
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

impl PeerEngine {
    /// Starts a peer and lets it load what it loads. Names are those of `peers/peer.py`.
    pub fn start(name: &str, python: &Path, data: &Path, tables: &[&str]) -> Outcome<Self> {
        let mut child = Command::new(python)
            .arg("benches/peers/peer.py")
            .arg(name)
            .arg(data)
            .args(tables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let environment =
                    "make it with: python3 -m venv .venv-peers && .venv-peers/bin/pip install -r benches/peers/requirements.txt";
                format!("{} cannot start: {error}; {environment}", python.display())
            })?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("the peer's process has no output")?);
        let mut engine = Self { name: name.to_string(), child, input, output };
        // The first line says that the tables are there.
        engine.answer().map_err(|error| format!("{name} cannot start: {error}"))?;
        Ok(engine)
    }

    fn answer(&mut self) -> Outcome<Answer> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: Answer = serde_json::from_str(&line).map_err(|error| format!("{} said '{}': {error}", self.name, line.trim()))?;
        match answer.error {
            Some(error) => Err(error.into()),
            None => Ok(answer),
        }
    }
}

impl Drop for PeerEngine {
    fn drop(&mut self) {
        drop(self.input.take());
        // Its input is closed: it ends by itself; there is nothing to do about a failing wait.
        let _ = self.child.wait();
    }
}

impl Engine for PeerEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn has_cold(&self) -> bool {
        self.name == "duckdb"
    }

    fn cpu_seconds(&self) -> Option<f64> {
        cpu::of_tree(self.child.id())
    }

    fn run<'a>(&'a mut self, sql: &'a str, answer: &'a Path) -> Pin<Box<dyn Future<Output = Outcome<Run>> + 'a>> {
        Box::pin(async move {
            let request = serde_json::json!({ "sql": sql, "answer": answer });
            let input = self.input.as_mut().ok_or("the peer's process has ended")?;
            writeln!(input, "{request}")?;
            input.flush()?;
            let answer = self.answer()?;
            Ok(Run { seconds: answer.seconds.unwrap_or(f64::NAN), rows: answer.rows.unwrap_or(0), cpu_seconds: None })
        })
    }
}
