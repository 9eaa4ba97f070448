//! One statement from start to footer.

use super::Format;
use super::client::{Client, RunningQuery};
use super::output::Output;
use super::progress::Progress;
use super::table::Style;
use crate::error::{Error, Result};
use crate::figures;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How results are shown.
#[derive(Debug, Clone)]
pub struct Look {
    format: Format,
    file: Option<PathBuf>,
    interactive: bool,
    /// Standard output is a terminal, and results go there.
    terminal: bool,
    /// Progress may be drawn on standard error without getting into the result.
    progress: bool,
}

impl Look {
    /// The look that fits where this process writes to.
    pub fn of_process(format: Format, file: Option<PathBuf>, interactive: bool) -> Self {
        let terminal = file.is_none() && io::stdout().is_terminal();
        let streams_to_terminal = terminal && format != Format::Table;
        Self { format, file, interactive, terminal, progress: io::stderr().is_terminal() && !streams_to_terminal }
    }

    /// How tables are drawn.
    pub fn style(&self) -> Style {
        Style {
            // Asked anew for every result: the window may have another size by now.
            width: self.terminal.then(terminal_width),
            unicode: self.terminal,
        }
    }
}

/// Columns of the terminal; 80 when it does not tell.
fn terminal_width() -> usize {
    comfy_table::Table::new().width().map_or(80, usize::from)
}

/// Runs statements over one connection and shows their results.
pub struct Execution {
    client: Client,
    look: Look,
    results_written: usize,
}

impl Execution {
    /// No statement yet.
    pub fn new(client: Client, look: Look) -> Self {
        Self { client, look, results_written: 0 }
    }

    /// Runs a statement and shows its result; Ctrl-C cancels it.
    ///
    /// # Errors
    /// What the server says, a failed output, or [`Error::Interrupted`].
    pub async fn run(&mut self, sql: &str) -> Result<()> {
        let mut client = self.client.clone();
        self.show(async move |progress: Option<&Progress>| {
            let running = client.start(sql).await?;
            if let Some(progress) = progress {
                progress.of_query(running.query_id.as_deref());
            }
            Ok(running)
        })
        .await
    }

    /// Shows the tables that the session sees.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn show_tables(&mut self) -> Result<()> {
        let mut client = self.client.clone();
        self.show(async move |_: Option<&Progress>| client.tables().await).await
    }

    async fn show(&mut self, start: impl AsyncFnOnce(Option<&Progress>) -> Result<RunningQuery>) -> Result<()> {
        let started = Instant::now();
        let progress = self.look.progress.then(|| Progress::start(self.client.clone()));
        let fetched = async {
            let mut running = start(progress.as_ref()).await?;
            let mut output = self.open_output(&running)?;
            while let Some(batch) = running.next().await? {
                if let Some(output) = &mut output {
                    output.write(batch)?;
                }
            }
            Ok((running.query_id.clone(), output))
        };
        let fetched = tokio::select! {
            fetched = fetched => fetched,
            // Dropping the call and its stream tells the server, which cancels the query everywhere.
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|source| Error::Output { source })?;
                Err(Error::Interrupted)
            }
        };
        let elapsed = started.elapsed();
        drop(progress);
        let (query_id, output) = fetched?;
        let rows = match output {
            Some(output) => {
                self.results_written += 1;
                output.finish()?
            }
            None => 0,
        };
        self.print_footer(rows, elapsed, query_id.as_deref()).await;
        Ok(())
    }

    /// The output of a result; none for a command, which has no columns.
    fn open_output(&self, running: &RunningQuery) -> Result<Option<Output>> {
        let look = &self.look;
        if running.schema.fields().is_empty() {
            return Ok(None);
        }
        let one_only = look.file.is_some() || matches!(look.format, Format::Arrow | Format::Parquet);
        if one_only && self.results_written > 0 {
            return Err(Error::config("the output can hold one result only, but several statements have one; run them one by one"));
        }
        Output::new(look.format, look.file.as_deref(), &running.schema, look.style(), look.interactive).map(Some)
    }

    async fn print_footer(&mut self, rows: u64, elapsed: Duration, query_id: Option<&str>) {
        let summary = match query_id {
            Some(query_id) => self.client.summary(query_id).await,
            None => None,
        };
        crate::shell::note(format_args!("{}", figures::footer(rows, elapsed, summary.as_ref(), query_id)));
    }
}
