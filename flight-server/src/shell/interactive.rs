//! The interactive shell: a line editor with history, statements of several lines until `;`, Ctrl-C to cancel.

use super::Format;
use super::client::{Client, ConnectOptions};
use super::execution::{Execution, Look};
use crate::error::{Error, Result};
use crate::limits;
use crate::sql_text;
use reedline::{FileBackedHistory, Prompt, PromptEditMode, PromptHistorySearch, Reedline, Signal, ValidationResult, Validator};
use std::borrow::Cow;
use std::path::PathBuf;

const HELP: &str = "\
Statements end with ; and may span lines. Ctrl-C cancels a running query, Ctrl-D ends the shell.
  \\d         tables
  \\d TABLE   columns of a table
  \\?         this help
  \\q         end
Settings of the session: SET name = value, SHOW ALL.";

/// Runs the shell until the user ends it.
///
/// # Errors
/// When no server answers, the login is refused, or the terminal fails. A failing statement is printed, no more.
pub fn run(options: ConnectOptions, format: Format) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|source| Error::Output { source })?;
    let client = runtime.block_on(Client::connect(&options))?;
    let mut execution = Execution::new(client, Look::of_process(format, None, true));
    crate::shell::line(format_args!("bowshot {} on {}; \\? for help", env!("CARGO_PKG_VERSION"), options.url))?;
    let mut editor = editor();
    loop {
        let signal = editor.read_line(&ShellPrompt).map_err(|error| Error::Output { source: std::io::Error::other(error.to_string()) })?;
        let text = match signal {
            Signal::Success(text) => text,
            Signal::CtrlD => return Ok(()),
            // Ctrl-C clears the line being edited.
            _ => continue,
        };
        if !runtime.block_on(run_text(&mut execution, &text)) {
            return Ok(());
        }
    }
}

/// Runs what was typed; false when it asks to end.
async fn run_text(execution: &mut Execution, text: &str) -> bool {
    let text = text.trim();
    if let Some(command) = text.strip_prefix('\\') {
        let mut words = command.trim_end_matches(';').split_whitespace();
        let outcome = match (words.next(), words.next()) {
            (Some("q"), _) => return false,
            (Some("d"), None) => execution.show_tables().await,
            (Some("d"), Some(table)) => execution.run(&format!("DESCRIBE {table}")).await,
            (Some("?"), _) => crate::shell::line(HELP),
            _ => Err(Error::config(format!("unknown command '{text}'; \\? shows those there are"))),
        };
        report(outcome);
        return true;
    }
    for statement in sql_text::split_statements(text) {
        if !report(execution.run(&statement).await) {
            break;
        }
    }
    true
}

/// Prints an error; true when there was none.
fn report(outcome: Result<()>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(Error::Interrupted) => {
            crate::shell::note(format_args!("cancelled"));
            false
        }
        Err(error) => {
            crate::shell::note(format_args!("error: {error}"));
            false
        }
    }
}

fn editor() -> Reedline {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let editor = Reedline::create().with_validator(Box::new(StatementValidator)).with_ansi_colors(!no_color);
    let Some(path) = history_path() else {
        return editor;
    };
    match FileBackedHistory::with_file(limits::HISTORY_LINES_MAX, path.clone()) {
        Ok(history) => editor.with_history(Box::new(history)),
        Err(error) => {
            crate::shell::note(format_args!("no history is kept: {} cannot be used ({error})", path.display()));
            editor
        }
    }
}

fn history_path() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    Some(state.join("bowshot/history"))
}

struct StatementValidator;

impl Validator for StatementValidator {
    fn validate(&self, text: &str) -> ValidationResult {
        let text = text.trim();
        match text.is_empty() || text.starts_with('\\') || sql_text::is_complete(text) {
            true => ValidationResult::Complete,
            false => ValidationResult::Incomplete,
        }
    }
}

struct ShellPrompt;

impl Prompt for ShellPrompt {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        Cow::Borrowed("bowshot")
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn render_prompt_indicator(&self, _mode: PromptEditMode) -> Cow<'_, str> {
        Cow::Borrowed("> ")
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        Cow::Borrowed("     -> ")
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        Cow::Owned(format!("history '{}' > ", search.term))
    }
}
