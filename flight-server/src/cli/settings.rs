//! `bowshot config` and `bowshot hash-password`.

use crate::auth::{self, Authenticator};
use crate::config::Layers;
use crate::error::{Error, Result};
use crate::shell::StandardOutput;
use crate::tls::ClientTls;
use bowshot_engine::cluster_tls::ClusterTls;
use std::io::{self, BufRead, IsTerminal, Write};

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

/// Says whether the settings can be used, as far as that can be told without starting anything.
///
/// # Errors
/// The first thing that is wrong.
pub fn check(layers: &Layers) -> Result<()> {
    let config = layers.config()?;
    Authenticator::new(&config)?;
    ClientTls::load(&config.tls)?;
    ClusterTls::of_coordinator(&config.coordinator)?;
    if let Some(worker) = &config.worker {
        ClusterTls::of_worker(worker)?;
        super::worker::check_volumes(worker)?;
    }
    match layers.file() {
        Some(file) => println!("{}: all settings can be used", file.display()),
        None => println!("no settings file; variables and defaults can be used"),
    }
    Ok(())
}

/// Reads a password from standard input and prints its hash.
///
/// # Errors
/// When there is no password, or it cannot be hashed.
pub fn hash_password() -> Result<()> {
    let mut input = io::stdin().lock();
    if io::stdin().is_terminal() {
        eprint!("Password (it will be shown): ");
    }
    let mut password = String::new();
    input.read_line(&mut password).map_err(|source| Error::Output { source })?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(Error::config("no password was given on standard input"));
    }
    println!("{}", auth::hash_password(password)?);
    Ok(())
}
