//! The shell: statements to a server over Flight SQL, results to the terminal, a file or a pipe.

mod client;
mod execution;
mod interactive;
mod output;
mod progress;
mod queries;
mod standard_output;
mod table;

pub use client::{Client, ConnectOptions};
pub use execution::{Execution, Look};
pub use queries::{QueriesArguments, run as queries};
pub use standard_output::{StandardOutput, line, line_and_go_on, note};

use crate::cli;
use crate::error::{Error, Result};
use crate::sql_text;
use clap::{Args, ValueEnum};
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Drawn for people.
    Table,
    /// Comma-separated with a header line.
    Csv,
    /// One JSON array of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
    /// Arrow IPC: a stream on standard output, a file with -o.
    Arrow,
    /// Apache Parquet.
    Parquet,
}

#[derive(Args)]
pub struct SqlArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Run these statements and end.
    #[arg(short = 'c', long = "command", value_name = "SQL", conflicts_with = "file", allow_hyphen_values = true)]
    command: Option<String>,
    /// Run the statements of a file (- is standard input) and end.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Form of the results.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Write the result to a file instead of standard output.
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Args)]
pub struct ExplainArguments {
    #[command(flatten)]
    connection: ConnectionArguments,
    /// Run the statement and show what each task did.
    #[arg(long)]
    analyze: bool,
    /// The statement.
    sql: String,
}

#[derive(Args)]
struct ConnectionArguments {
    /// Address of the server: grpc://HOST:PORT, or grpc+tls://HOST:PORT.
    #[arg(long, env = "BOWSHOT_URL", default_value = "grpc://127.0.0.1:47470")]
    url: String,
    /// User to log in as; the password comes from --password or BOWSHOT_PASSWORD.
    #[arg(long, env = "BOWSHOT_USER")]
    user: Option<String>,
    #[arg(long, env = "BOWSHOT_PASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// Token instead of user and password.
    #[arg(long, env = "BOWSHOT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Certificate of the authority that signed the server's, for grpc+tls.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ConnectionArguments {
    fn options(self) -> ConnectOptions {
        ConnectOptions { url: self.url, user: self.user, password: self.password, token: self.token, authority: self.ca }
    }
}

/// Runs `bowshot sql`.
///
/// # Errors
/// The first statement that fails ends the run, except in the interactive shell.
pub fn run(arguments: SqlArguments) -> Result<()> {
    let statements = match (&arguments.command, &arguments.file) {
        (Some(sql), _) => Some(sql.clone()),
        (None, Some(file)) if file.as_os_str() == "-" => Some(read_input()?),
        (None, Some(file)) => Some(std::fs::read_to_string(file).map_err(|source| Error::file("read", file, source))?),
        (None, None) if !io::stdin().is_terminal() => Some(read_input()?),
        (None, None) => None,
    };
    let options = arguments.connection.options();
    let Some(statements) = statements else {
        return interactive::run(options, arguments.format);
    };
    cli::block_on(async {
        let client = Client::connect(&options).await?;
        let look = Look::of_process(arguments.format, arguments.output, false);
        let mut execution = Execution::new(client, look);
        for statement in sql_text::split_statements(&statements) {
            execution.run(&statement).await?;
        }
        Ok(())
    })
}

/// Runs `bowshot explain`.
///
/// # Errors
/// When the statement cannot be planned or, with `--analyze`, run.
pub fn explain(arguments: ExplainArguments) -> Result<()> {
    let analyze = if arguments.analyze { "ANALYZE " } else { "" };
    let sql = arguments.sql.trim().trim_end_matches(';');
    let statement = format!("EXPLAIN {analyze}{sql}");
    let options = arguments.connection.options();
    cli::block_on(async {
        let mut client = Client::connect(&options).await?;
        let text = client.explain(&statement).await?;
        writeln!(StandardOutput::new(), "{}", text.trim_end()).map_err(|source| Error::Output { source })
    })
}

fn read_input() -> Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|source| Error::file("read", std::path::Path::new("standard input"), source))?;
    Ok(text)
}
