//! The commands of the binary and their flags.

mod backup;
mod certs;
mod children;
mod demo;
mod demo_cluster;
mod doctor;
pub mod server;
mod settings;
mod signals;
mod worker;

use crate::Extensions;
use crate::config::Role;
use crate::config::{Environment, Flags, Layers};
use crate::error::{Error, Result};
use crate::shell;
use clap::{Args, Parser, Subcommand};
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code after Ctrl-C, as shells use it: 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// SQL over Parquet where it lies: on the disks of your nodes and in your buckets.
#[derive(Parser)]
#[command(name = "bowshot", version, propagate_version = true)]
pub struct Arguments {
    /// Settings file; bowshot.toml in the current folder when it is there.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the coordinator and the Flight SQL service.
    Server(server::ServerArguments),
    /// Run a worker: it holds volumes and runs fragments over them.
    Worker(worker::WorkerArguments),
    /// Send SQL to a server; interactive without -c and -f.
    Sql(shell::SqlArguments),
    /// Show how a statement would run, or with --analyze how it ran.
    Explain(shell::ExplainArguments),
    /// List queries, look at one, or cancel one.
    Queries(shell::QueriesArguments),
    /// Start a small cluster on this machine with TPC-H data and run a query.
    Demo(demo::DemoArguments),
    /// Make certificates for the nodes of a cluster, from a development authority in a folder.
    Certs(certs::CertsArguments),
    /// Copy the catalog of a server, which may run meanwhile, into a file.
    Backup(backup::BackupArguments),
    /// Show or check the settings.
    Config(ConfigArguments),
    /// Say what this machine brings to a server or worker with these settings, and what is wrong: cores, memory, cards, disks, ports,
    /// certificates, the way to the coordinator.
    Doctor {
        /// What the settings are for; worker where they have that section and none of a server's.
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
    /// Hash a password for auth.users; it is read from standard input.
    HashPassword,
    /// Write one part of TPC-H; what `worker --generate-tpch` runs in a process of its own.
    #[command(hide = true)]
    GenerateTpch(worker::GenerateArguments),
}

#[derive(Args)]
struct ConfigArguments {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print every setting, its value and where it came from.
    Show,
    /// Say everything that would keep a server or worker with these settings from starting.
    Check {
        /// What the settings are for; worker where they have that section and none of a server's.
        #[arg(long, value_enum)]
        role: Option<Role>,
    },
}

/// Runs a command and turns its outcome into an exit code; errors go to standard error.
pub fn run(arguments: Arguments, extensions: Extensions) -> ExitCode {
    let outcome = dispatch(arguments, extensions);
    match outcome {
        Ok(code) => code,
        Err(Error::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            crate::shell::note(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: Arguments, extensions: Extensions) -> Result<ExitCode> {
    let file = arguments.config;
    let layers = |flags: Flags| Layers::read(file.as_deref(), Environment::of_process(), flags);
    match arguments.command {
        Command::Server(server) => {
            let config = layers(server.flags()?)?.config()?;
            logging();
            block_on(server::run(server, config, extensions))?;
        }
        Command::Worker(worker) => {
            let config = layers(worker.flags()?)?.config()?;
            logging();
            block_on(worker::run(worker, config))?;
        }
        Command::Sql(sql) => shell::run(sql)?,
        Command::Explain(explain) => shell::explain(explain)?,
        Command::Queries(queries) => shell::queries(queries)?,
        Command::Demo(demo) => return block_on(demo::run(demo)),
        Command::Certs(certs) => certs::run(&certs)?,
        Command::Config(ConfigArguments { command }) => {
            let layers = layers(Flags::default())?;
            match command {
                ConfigCommand::Show => settings::show(&layers)?,
                ConfigCommand::Check { role } => return settings::check(&layers, role),
            }
        }
        Command::Backup(arguments) => backup::run(&arguments, &layers(arguments.flags())?.config()?)?,
        Command::Doctor { role } => {
            let layers = layers(Flags::default())?;
            doctor::run(layers.config()?, role.unwrap_or_else(|| layers.role()))?;
        }
        Command::HashPassword => settings::hash_password()?,
        Command::GenerateTpch(generate) => worker::generate(&generate)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a future on a runtime of all cores.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(bowshot_engine::limits::TURNS_BEFORE_EVENTS)
        .thread_stack_size(bowshot_engine::limits::THREAD_STACK_BYTES)
        .build()
        .map_err(|source| Error::file("start threads for", std::path::Path::new("the runtime"), source))?;
    let outcome = runtime.block_on(future);
    // A blocking call of a library must not keep the process alive after its work is done.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    outcome
}

/// Log lines go to standard error; `RUST_LOG` chooses them.
fn logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false).with_ansi(false).init();
}
