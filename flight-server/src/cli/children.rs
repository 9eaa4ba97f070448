//! Processes that this one starts and that end with it, whatever happens to it.
//!
//! A child reads its standard input only to notice its end: the system closes the pipe when this process ends, also after
//! `kill -9`. In the ordinary case the pipe is closed on purpose, and a child that does not end in time is killed.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Time that a child gets to end by itself.
const END_GRACE: Duration = Duration::from_secs(12);
/// Lines of a child's log that are shown when it fails.
const LOG_LINES_SHOWN: usize = 15;

/// A running child.
pub struct ChildProcess {
    name: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    log: PathBuf,
    child: Child,
}

impl ChildProcess {
    /// Starts this program with other arguments; its output goes to a log file.
    ///
    /// # Errors
    /// When the log cannot be written or the process not be started.
    pub fn start(name: &str, arguments: &[String], variables: &[(&str, String)], log: PathBuf) -> Result<Self> {
        // What an earlier demo wrote is not this one's.
        File::create(&log).map_err(|source| Error::file("create", &log, source))?;
        let variables: Vec<_> = variables.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
        let child = spawn(arguments, &variables, &log)?;
        Ok(Self { name: name.to_string(), arguments: arguments.to_vec(), variables, log, child })
    }

    /// Starts it again after it has ended, with the same arguments and the same log.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.arguments, &self.variables, &self.log)?;
        Ok(())
    }

    /// Name for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The end of the child, if it has come.
    ///
    /// # Errors
    /// [`Error::Child`] when it has: with the last lines of its log.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failure(&format!("ended early ({status})"))),
            Err(source) => Err(Error::file("watch the process of", &self.log, source)),
        }
    }

    /// An error that names the child and shows the last lines of its log.
    pub fn failure(&self, problem: &str) -> Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        let mut last_lines = format!("; the last lines of {}:", self.log.display());
        for line in last {
            last_lines.push_str("\n  ");
            last_lines.push_str(line);
        }
        Error::Child { name: self.name.clone(), problem: problem.to_string(), last_lines }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Tells the child to end, without waiting.
    pub fn tell_to_end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until the child has ended; kills it when that takes too long.
    pub async fn end(mut self) {
        self.tell_to_end();
        if tokio::time::timeout(END_GRACE, self.child.wait()).await.is_err()
            && let Err(error) = self.child.kill().await
        {
            crate::shell::note(format_args!("{} cannot be ended: {error}", self.name));
        }
    }
}

fn spawn(arguments: &[String], variables: &[(String, String)], log: &Path) -> Result<Child> {
    let own = std::env::current_exe().map_err(|source| Error::file("find", Path::new("this program"), source))?;
    let output = OpenOptions::new().append(true).open(log).map_err(|source| Error::file("open", log, source))?;
    let errors = output.try_clone().map_err(|source| Error::file("open", log, source))?;
    Command::new(&own)
        .args(arguments)
        .arg("--exit-with-parent")
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(errors)
        // Ctrl-C reaches the whole group of a terminal; the children are to be ended in order instead.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Error::file("start", &own, source))
}
