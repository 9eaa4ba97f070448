//! `bowshot config` and `bowshot hash-password`.

use crate::auth;
use crate::checks::{Finding, Subject};
use crate::config::{Layers, Role};
use crate::error::{Error, Result};
use crate::shell::{self, StandardOutput};
use bowshot_engine::ErrorClass;
use parking_lot::Mutex;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;

/// Prints every setting: `key = value  # origin`.
///
/// # Errors
/// When a setting is unknown or of the wrong type.
pub fn show(layers: &Layers) -> Result<()> {
    let settings = layers.settings()?;
    let width = settings.iter().map(|setting| setting.key.len() + setting.value.len() + 3).max().unwrap_or(0);
    let mut out = StandardOutput::new();
    for setting in settings {
        let line = format!("{} = {}", setting.key, setting.value);
        writeln!(out, "{line:width$}  # {}", setting.origin).map_err(|source| Error::Output { source })?;
    }
    Ok(())
}

/// Says everything that would keep a process with these settings from starting, and what else is worth a look.
///
/// # Errors
/// When the answer cannot be written.
pub fn check(layers: &Layers, role: Option<Role>) -> Result<ExitCode> {
    let role = role.unwrap_or_else(|| layers.role());
    let (config, wrong) = layers.all_problems();
    let mut findings: Vec<Finding> = wrong.into_iter().map(|error| Finding::Problem(error.to_string())).collect();
    if let Some(config) = config {
        findings.extend(look(&Subject::new(config, role))?);
    }
    for finding in &findings {
        match finding {
            Finding::Problem(text) => shell::note(format_args!("error: {text}")),
            Finding::Note(text) => shell::note(format_args!("note: {text}")),
        }
    }
    let problems = findings.iter().filter(|finding| finding.is_problem()).count();
    if problems > 0 {
        return Ok(ExitCode::FAILURE);
    }
    let role = match role {
        Role::Server => "a server",
        Role::Worker => "a worker",
    };
    match layers.file() {
        Some(file) => shell::line(format_args!("{}: all settings of {role} can be used", file.display()))?,
        None => shell::line(format_args!("no settings file; variables and defaults of {role} can be used"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole list, what its parts warn of, and what the coordinator says.
///
/// # Errors
/// When there are no threads for the call.
pub fn look(subject: &Subject) -> Result<Vec<Finding>> {
    let warned = Warned::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .with_writer(warned.clone())
        .finish();
    let mut findings = tracing::subscriber::with_default(subscriber, || subject.look());
    let text = String::from_utf8_lossy(&std::mem::take(&mut *warned.0.lock())).into_owned();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.dedup();
    findings.extend(lines.into_iter().map(|line| Finding::Note(line.to_string())));
    if !findings.iter().any(Finding::is_problem) {
        findings.extend(of_coordinator(subject)?);
    }
    Ok(findings)
}

/// What a start hears from the coordinator. It waits for one that is not there yet.
fn of_coordinator(subject: &Subject) -> Result<Option<Finding>> {
    Ok(super::block_on(async { Ok(subject.ask_coordinator().await) })?.and_then(|answer| match answer {
        Ok(_) => None,
        Err(error) if error.class() == ErrorClass::Retry => Some(Finding::Note(format!(
            "{error}: a worker waits until it does; look at worker.coordinator, the network, and whether it runs"
        ))),
        Err(error) if error.message().contains(UNKNOWN_ACTION) => {
            Some(Finding::Note(format!("{error}: it is of an earlier release, which does not say whether it would take this node in")))
        }
        Err(error) => Some(Finding::Problem(error.to_string())),
    }))
}

/// What coordinators of earlier releases answer to a question that they do not know.
const UNKNOWN_ACTION: &str = "no control action";

/// Lines that the parts of a check log.
#[derive(Clone, Default)]
struct Warned(Arc<Mutex<Vec<u8>>>);

impl Write for Warned {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Warned {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Reads a password from standard input and prints its hash. At a terminal it is not shown, and asked for twice.
///
/// # Errors
/// When there is no password, the two differ, or it cannot be hashed.
pub fn hash_password() -> Result<()> {
    let password = match io::stdin().is_terminal() {
        false => read_line()?,
        true => {
            let _hidden = HiddenInput::begin().map_err(|source| Error::Output { source })?;
            let password = ask("Password (it is not shown): ")?;
            if !password.is_empty() && ask("The same again: ")? != password {
                return Err(Error::config("the two passwords are not the same"));
            }
            password
        }
    };
    if password.is_empty() {
        return Err(Error::config("no password was given on standard input"));
    }
    shell::line(auth::hash_password(&password)?)
}

fn ask(question: &str) -> Result<String> {
    // Nobody sees it where standard error is closed.
    let _ = write!(io::stderr(), "{question}");
    let answer = read_line();
    shell::note("");
    answer
}

fn read_line() -> Result<String> {
    let mut text = String::new();
    io::stdin().lock().read_line(&mut text).map_err(|source| Error::Output { source })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_string())
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct HiddenInput(Termios);

impl HiddenInput {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        // A terminal that is gone shows nothing either.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
