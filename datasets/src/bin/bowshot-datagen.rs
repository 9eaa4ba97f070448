//! Writes data sets as Parquet files: `bowshot-datagen tpch --scale 1 --out DIR`, `bowshot-datagen hits --rows 1000000 --out DIR`,
//! `bowshot-datagen sweep --rows 1000000 --out DIR`, `bowshot-datagen edge-cases --out DIR`, `bowshot-datagen spread --parts 3 --out DIR`.

#![forbid(unsafe_code)]

use bowshot_datasets::{Options, ParquetCompression, Result, WrittenFile, edge_cases, hits, spread, sweep, tpch};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Write data sets as Parquet files.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The eight tables of TPC-H, or one part of each.
    Tpch {
        /// Scale factor; 1 is about 1 GB of raw data.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
        #[command(flatten)]
        part: Part,
    },
    /// Hits of web pages as in ClickBench's table, or one part of them.
    Hits {
        /// Rows of all parts.
        #[arg(long, default_value_t = 1_000_000)]
        rows: usize,
        #[command(flatten)]
        part: Part,
    },
    /// A table of keys of every cardinality, or one part of it.
    Sweep {
        /// Rows of all parts.
        #[arg(long, default_value_t = 1_000_000)]
        rows: usize,
        #[command(flatten)]
        part: Part,
    },
    /// Small tables of nulls, repeated values and mixed types, or one part of their rows.
    Spread {
        /// Which part to write, counted from 1.
        #[arg(long, default_value_t = 1)]
        part: usize,
        /// Into how many parts the rows are dealt.
        #[arg(long, default_value_t = 1)]
        parts: usize,
        /// Folder that gets one folder a table.
        #[arg(long)]
        out: PathBuf,
    },
    /// Small tables of nulls, extremes and odd values.
    EdgeCases {
        /// Folder that gets one folder a table.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Which part is written, and how.
#[derive(Args)]
struct Part {
    /// Which part to write, counted from 1.
    #[arg(long, default_value_t = 1)]
    part: usize,
    /// Into how many parts the tables are divided.
    #[arg(long, default_value_t = 1)]
    parts: usize,
    /// Files each part is written as.
    #[arg(long, default_value_t = 1)]
    files_per_part: usize,
    /// Compress with Zstandard instead of Snappy.
    #[arg(long)]
    zstd: bool,
    /// Folder that gets one folder a table.
    #[arg(long)]
    out: PathBuf,
}

impl Part {
    fn options(&self) -> Options {
        let compression = if self.zstd { ParquetCompression::Zstd } else { ParquetCompression::Snappy };
        Options { compression, files_per_part: self.files_per_part, ..Options::default() }
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(files) => {
            for file in files {
                let note = if file.kept { " (kept)" } else { "" };
                println!("{}: {} rows, {} bytes{note}", file.path.display(), file.rows, file.bytes);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<Vec<WrittenFile>> {
    match command {
        Command::Tpch { scale, part } => tpch::write_tables(scale, part.part, part.parts, &part.out, &part.options()),
        Command::Hits { rows, part } => hits::write_part(rows, part.part, part.parts, &part.out, &part.options()),
        Command::Sweep { rows, part } => sweep::write_part(rows, part.part, part.parts, &part.out, &part.options()),
        Command::Spread { part, parts, out } => spread::write(&out, part, parts),
        Command::EdgeCases { out } => edge_cases::write(&out),
    }
}
