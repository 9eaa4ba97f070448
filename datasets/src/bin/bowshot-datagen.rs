//! Writes data sets as Parquet files: `bowshot-datagen tpch --scale 1 --out DIR`, `bowshot-datagen edge-cases --out DIR`.

use bowshot_datasets::tpch::{Options, ParquetCompression};
use bowshot_datasets::{Result, WrittenFile, edge_cases, tpch};
use clap::{Parser, Subcommand};
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
    },
    /// Small tables of nulls, extremes and odd values.
    EdgeCases {
        /// Folder that gets one folder a table.
        #[arg(long)]
        out: PathBuf,
    },
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
        Command::Tpch { scale, part, parts, files_per_part, zstd, out } => {
            let options = Options {
                compression: if zstd { ParquetCompression::Zstd } else { ParquetCompression::Snappy },
                files_per_part,
                ..Options::default()
            };
            tpch::write_tables(scale, part, parts, &out, &options)
        }
        Command::EdgeCases { out } => edge_cases::write(&out),
    }
}
