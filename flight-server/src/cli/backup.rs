//! `bowshot backup`: a copy of the catalog, while the server runs or when it does not.

use crate::config::{Config, Flags};
use crate::error::Result;
use clap::Args;
use std::path::PathBuf;

#[derive(Args)]
pub struct BackupArguments {
    /// A folder for a new file, or a file that is not there yet.
    #[arg(long, value_name = "FOLDER|FILE")]
    to: PathBuf,
    /// Folder of the catalog.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
}

impl BackupArguments {
    /// The flags as settings.
    pub fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.set("coordinator.data_dir", self.data_dir.as_deref());
        flags
    }
}

/// Makes the copy and says where it is.
///
/// # Errors
/// When there is no catalog, or the copy cannot be written.
pub fn run(arguments: &BackupArguments, config: &Config) -> Result<()> {
    let copy = bowshot_engine::catalog::backup::back_up(&config.coordinator.data_dir, &arguments.to)?;
    crate::shell::line(format_args!("{}", copy.display()))?;
    Ok(())
}
