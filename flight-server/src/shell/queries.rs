//! `bowshot queries`: what waits and runs on a server, one query in detail, and the way to end one. SQL over `system.queries` and
//! `system.tasks`, but for the cancelling.

use super::client::Client;
use super::execution::{Execution, Look};
use super::standard_output::StandardOutput;
use super::table::{self, Style};
use super::{ConnectionArguments, Format};
use crate::cli;
use crate::error::{Error, Result};
use crate::figures;
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::{Args, Subcommand};
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use unicode_width::UnicodeWidthStr;

/// Letters of a query id that lists show: its end, which is random. Ids begin with the time, so their beginnings look alike.
const SHORT_ID: usize = 8;
/// Least columns of a terminal for who runs a query and how long it waited, and for all the rest.
const WIDE: usize = 100;
const WIDEST: usize = 160;
/// Width of the names before values.
const LABEL_WIDTH: usize = 10;
/// Keeps these statements out of their own answer: each holds this text, in this condition.
const NOT_THESE: &str = "sql NOT LIKE '%bowshot queries ls%'";

#[derive(Args)]
pub struct QueriesArguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the queries that wait or run, the oldest first.
    Ls {
        #[command(flatten)]
        connection: ConnectionArguments,
        /// Those that ended too.
        #[arg(long)]
        all: bool,
        /// Form of the list; all but the table have every column of system.queries.
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Show a query: its figures, its tasks and its text.
    Show {
        #[command(flatten)]
        connection: ConnectionArguments,
        /// The query's id, or its last letters as ls shows them.
        id: String,
    },
    /// Cancel a query of yours that waits or runs.
    Cancel {
        #[command(flatten)]
        connection: ConnectionArguments,
        /// The query's id, or its last letters as ls shows them.
        id: String,
    },
}

/// Runs `bowshot queries`.
///
/// # Errors
/// When the server cannot be reached, or there is no such query, or it is somebody else's.
pub fn run(arguments: QueriesArguments) -> Result<()> {
    cli::block_on(async {
        match arguments.command {
            Command::Ls { connection, all, format } => list(Client::connect(&connection.options()).await?, all, format).await,
            Command::Show { connection, id } => show(Client::connect(&connection.options()).await?, &id).await,
            Command::Cancel { connection, id } => {
                let mut client = Client::connect(&connection.options()).await?;
                let id = whole_id(&mut client, &id).await?;
                client.cancel_query(&id).await?;
                print(&format!("cancelled query {id}\n"))
            }
        }
    })
}

async fn list(mut client: Client, all: bool, format: Format) -> Result<()> {
    let which = if all { "" } else { " AND state IN ('queued', 'running')" };
    let condition = format!("{NOT_THESE}{which} ORDER BY started_at, query_id");
    let look = Look::of_process(format, None, false);
    if format != Format::Table {
        return Execution::new(client, look).run(&format!("SELECT * FROM system.queries WHERE {condition}")).await;
    }
    let columns = "query_id, state, user_name, priority, queued_ms, elapsed_ms, running_tasks, peak_memory_bytes, bytes_scanned, rows, sql";
    let rows = rows(&mut client, &format!("SELECT {columns} FROM system.queries WHERE {condition}")).await?;
    if rows.is_empty() {
        let rest = if all { "" } else { "; 'bowshot queries ls --all' lists those that ended" };
        return print(&format!("no query waits or runs{rest}\n"));
    }
    print(&listed(&rows, look.style())?)
}

/// The rows as a table that fits: the less room, the fewer columns, so that the text of a query keeps some.
fn listed(rows: &[Vec<String>], style: Style) -> Result<String> {
    type Column = (&'static str, usize, fn(&[String]) -> String);
    let columns: [Column; 11] = [
        ("id", 0, |row| row[0].chars().skip(row[0].chars().count().saturating_sub(SHORT_ID)).collect()),
        ("state", 0, |row| row[1].clone()),
        ("user", WIDE, |row| row[2].clone()),
        ("priority", WIDEST, |row| row[3].clone()),
        ("queued", WIDE, |row| milliseconds(&row[4])),
        ("elapsed", 0, |row| milliseconds(&row[5])),
        ("tasks", WIDEST, |row| row[6].clone()),
        ("peak", WIDEST, |row| figures::bytes(number(&row[7]))),
        ("scanned", WIDEST, |row| figures::bytes(number(&row[8]))),
        ("rows", WIDEST, |row| row[9].clone()),
        // One line a query.
        ("sql", 0, |row| row[10].split_whitespace().collect::<Vec<_>>().join(" ")),
    ];
    let wanted = columns.into_iter().filter(|(_, least, _)| style.width.is_none_or(|width| width >= *least));
    let named = wanted.map(|(name, _, value)| {
        let cells: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| value(row))));
        (name, cells)
    });
    let drawn = RecordBatch::try_from_iter(named).and_then(|batch| table::render(&batch.schema(), std::slice::from_ref(&batch), style));
    drawn.map_err(|error| Error::Format { format: "table", reason: error.to_string() })
}

async fn show(mut client: Client, id: &str) -> Result<()> {
    let id = whole_id(&mut client, id).await?;
    let columns = "state, user_name, priority, started_at, queued_ms, elapsed_ms, rows, bytes_scanned, bytes_moved, \
                   bytes_moved_across_regions, running_tasks, peak_memory_bytes, retries, coalesce(result_from, ''), coalesce(decisions, ''), coalesce(error, ''), sql";
    let found = rows(&mut client, &format!("SELECT {columns} FROM system.queries WHERE query_id = '{id}'")).await?;
    let Some(row) = found.first() else { return Err(unknown(&id)) };
    let style = Look::of_process(Format::Table, None, false).style();
    let bytes = |at: usize| figures::bytes(number(&row[at]));
    let mut text = String::new();
    for (name, value) in [
        ("query", id.clone()),
        ("state", row[0].clone()),
        ("user", row[1].clone()),
        ("priority", row[2].clone()),
        ("started", row[3].clone()),
        ("queued", milliseconds(&row[4])),
        ("elapsed", milliseconds(&row[5])),
        ("rows", row[6].clone()),
        ("scanned", bytes(7)),
        ("moved", format!("{} (across regions {})", bytes(8), bytes(9))),
        ("tasks", format!("{} running", row[10])),
        ("memory", format!("{} at most on one node", bytes(11))),
        ("retries", row[12].clone()),
        ("result", if row[13].is_empty() { String::new() } else { format!("from the {}", row[13]) }),
        ("decisions", row[14].clone()),
        ("error", row[15].clone()),
        ("sql", row[16].clone()),
    ] {
        if !value.is_empty() {
            text.push_str(&labelled(name, &value, style.width));
        }
    }
    print(&text)?;
    let tasks = format!(
        "SELECT fragment, task, node_id, device, rows, bytes_scanned, bytes_moved, elapsed_ms, region, kernel_rows, estimate, reason \
         FROM system.tasks WHERE query_id = '{id}' ORDER BY fragment, task"
    );
    let running = client.start(&tasks).await?;
    let schema = Arc::clone(&running.schema);
    let batches = running.all().await?;
    if batches.iter().all(|batch| batch.num_rows() == 0) {
        return Ok(());
    }
    let drawn = table::render(&schema, &batches, style).map_err(|error| Error::Format { format: "table", reason: error.to_string() })?;
    print(&drawn)
}

/// A name and its value, wrapped between words where there is an edge.
fn labelled(name: &str, value: &str, width: Option<usize>) -> String {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(LABEL_WIDTH + 1).max(1));
    let mut text = String::new();
    let mut label = name;
    for line in value.lines().flat_map(|line| wrapped(line, room)) {
        text.push_str(format!("{label:LABEL_WIDTH$} {line}").trim_end());
        text.push('\n');
        label = "";
    }
    text
}

/// A line in pieces of at most `room` columns; one word that is longer stays whole, so that it can be copied.
fn wrapped(line: &str, room: usize) -> Vec<String> {
    if line.width() <= room {
        return vec![table::printable(line)];
    }
    let mut pieces: Vec<String> = vec![];
    for word in line.split_whitespace() {
        match pieces.last_mut() {
            Some(piece) if piece.width() + 1 + word.width() <= room => {
                piece.push(' ');
                piece.push_str(&table::printable(word));
            }
            _ => pieces.push(table::printable(word)),
        }
    }
    pieces
}

/// The one query that has this id, or whose id ends so.
async fn whole_id(client: &mut Client, id: &str) -> Result<String> {
    let id = id.trim().to_ascii_lowercase();
    if id.is_empty() || !id.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-') {
        return Err(Error::config(format!("'{id}' is no query id: give one, or its last letters, as 'bowshot queries ls' shows it")));
    }
    let found = rows(client, &format!("SELECT query_id FROM system.queries WHERE ends_with(query_id, '{id}') ORDER BY query_id")).await?;
    let found: Vec<String> = found.into_iter().flatten().collect();
    match &found[..] {
        [] => Err(unknown(&id)),
        [one] => Ok(one.clone()),
        several => Err(Error::config(format!("{} queries end in '{id}', so give more letters: {}", several.len(), several.join(", ")))),
    }
}

fn unknown(id: &str) -> Error {
    Error::config(format!("the server knows no query '{id}': 'bowshot queries ls --all' lists those that run or ended lately"))
}

/// Every row of an answer, its values as text; nothing is an empty text.
async fn rows(client: &mut Client, sql: &str) -> Result<Vec<Vec<String>>> {
    let broken = |error: arrow::error::ArrowError| Error::Format { format: "text", reason: error.to_string() };
    let mut rows = vec![];
    for batch in client.start(sql).await?.all().await? {
        let options = FormatOptions::default();
        let columns: Vec<ArrayFormatter> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>().map_err(broken)?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.value(row).try_to_string()).collect::<Result<_, _>>().map_err(broken)?);
        }
    }
    Ok(rows)
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

fn milliseconds(text: &str) -> String {
    figures::duration(Duration::from_millis(number(text)))
}

fn print(text: &str) -> Result<()> {
    StandardOutput::new().write_all(text.as_bytes()).map_err(|source| Error::Output { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows_of(sql: &str) -> Vec<Vec<String>> {
        let row = [
            "019a1fbf-9b5b-77d4-8b53-78c7620a1ead",
            "running",
            "anonymous",
            "normal",
            "1200",
            "3420",
            "6",
            "41000000",
            "5300000",
            "0",
            sql,
        ];
        vec![row.map(str::to_string).to_vec()]
    }

    #[test]
    fn a_list_fits_narrow_and_wide_terminals_and_leaves_room_for_the_text() {
        let sql = "SELECT count(*)\n  FROM lineitem a JOIN orders b ON a.l_orderkey = b.o_orderkey WHERE a.l_quantity > 5 GROUP BY a.l_returnflag";
        for (width, least_of_sql) in
            [(60, "SELECT count(*)"), (80, "SELECT count(*) FROM"), (200, "SELECT count(*) FROM lineitem a JOIN orders")]
        {
            let text = listed(&rows_of(sql), Style { width: Some(width), unicode: true }).unwrap();
            assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
            assert!(text.contains("620a1ead") && text.contains("running") && text.contains("3.42 s"), "{width}:\n{text}");
            assert!(text.contains(least_of_sql), "{width}:\n{text}");
            assert!(!text.contains("columns fit"), "{width}:\n{text}");
        }
        let piped = listed(&rows_of(sql), Style { width: None, unicode: false }).unwrap();
        assert!(piped.contains("GROUP BY a.l_returnflag") && piped.contains("anonymous"));
    }

    #[test]
    fn values_are_wrapped_between_words_under_their_own_beginning() {
        let text = labelled("sql", "SELECT a, b\nFROM a_table_with_a_name_that_is_longer_than_the_edge WHERE a > 5", Some(40));
        assert_eq!(
            text,
            "sql        SELECT a, b\n           FROM\n           a_table_with_a_name_that_is_longer_than_the_edge\n           WHERE a > 5\n"
        );
        assert_eq!(labelled("state", "running", None), "state      running\n");
    }
}
