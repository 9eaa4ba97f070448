//! What a process with these settings would write, listen on and call.

use crate::checks::{Subject, Written, listens, mount_of, open_files_advised, spill_folder, usable_memory_bytes};
use crate::cli::block_on;
use crate::config::Role;
use crate::connection::connections_max;
use crate::error::Result;
use crate::figures::bytes;
use crate::listen::port_holder;
use bowshot_engine::ErrorClass;
use bowshot_engine::catalog::integrity;
use bowshot_engine::config::machine_memory_bytes;
use bowshot_engine::coordinator::data_folder;
use bowshot_engine::port::door::open_files_max;
use bowshot_engine::worker::volumes;
use std::net::TcpListener;
use std::path::Path;

/// Prints folders, ports, limits and what the coordinator says.
pub fn print(subject: &Subject) -> Result<()> {
    if usable_memory_bytes() < machine_memory_bytes() {
        say!("container    may use {} of the machine's memory", bytes(usable_memory_bytes()));
    }
    if subject.role == Role::Server {
        print_catalog(subject)?;
    }
    if let Some(worker) = subject.worker() {
        for (name, folder) in &worker.volumes {
            let (marker, holder) = volumes::marks(folder);
            let marker = match marker {
                Ok(Some(id)) => format!("marker {id}"),
                Ok(None) => "no marker yet".to_string(),
                Err(error) => format!("its marker cannot be read: {error}"),
            };
            let holder = holder.map_or_else(|| "served by nobody now".to_string(), |holder| format!("served by {holder}"));
            say!("volume       {name}: {}, {marker}, {holder}", disk(folder));
        }
        say!("spill        of the worker: {}", disk(&spill_folder(worker.spill_dir.as_ref())));
    }
    for (purpose, address) in listens(subject) {
        let state = match TcpListener::bind(address) {
            Ok(_) => "free".to_string(),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                format!("taken by {}", port_holder(address.port()).unwrap_or_else(|| "another process".into()))
            }
            Err(error) => error.to_string(),
        };
        say!("port         {address} for {} ({}): {state}", purpose.name, purpose.setting);
    }
    let connections = match subject.role {
        Role::Server => format!(", {} connections of clients among them", connections_max()),
        Role::Worker => String::new(),
    };
    say!("open files   {} at most{connections}; these settings can want {}", open_files_max(), open_files_advised(subject));
    print_coordinator(subject)
}

fn print_catalog(subject: &Subject) -> Result<()> {
    let config = &subject.config.coordinator;
    let folder = data_folder::absolute(&config.data_dir);
    let state = match integrity::look(&folder) {
        Ok(true) => "its catalog is whole".to_string(),
        Ok(false) => "no catalog yet, a start makes an empty one".to_string(),
        Err(error) => error.to_string(),
    };
    say!("data_dir     {}, {state}", disk(&folder));
    say!("spill        of the coordinator: {}", disk(&spill_folder(config.spill_dir.as_ref())));
    Ok(())
}

/// A folder, what it lies on, and whether it can be written.
fn disk(folder: &Path) -> String {
    let written = match Written::of(folder) {
        Written::Yes => "writable".to_string(),
        Written::Missing => return format!("{} is not there", folder.display()),
        Written::No(error) => format!("not writable: {error}"),
    };
    match mount_of(folder) {
        Some(mount) => format!(
            "{} on {} ({}), {} of {} free, {written}",
            folder.display(),
            mount.point.display(),
            mount.kind,
            bytes(mount.free_bytes),
            bytes(mount.total_bytes)
        ),
        None => format!("{}, {written}", folder.display()),
    }
}

fn print_coordinator(subject: &Subject) -> Result<()> {
    let Some(worker) = subject.worker().filter(|_| subject.role == Role::Worker) else { return Ok(()) };
    match block_on(async { Ok(subject.ask_coordinator().await) })? {
        None => {}
        Some(Ok(sight)) => {
            let clock = match sight.clock_ahead_ms {
                0 => "its clock is this machine's".to_string(),
                ahead if ahead > 0 => format!("this machine's clock is {ahead} ms ahead of its clock"),
                behind => format!("this machine's clock is {} ms behind its clock", -behind),
            };
            say!("coordinator  {} takes this node in, release {}, {clock}", worker.coordinator, sight.looked.version);
        }
        Some(Err(error)) if error.class() == ErrorClass::Retry => say!("coordinator  not reached: {error}"),
        Some(Err(error)) => say!("coordinator  refuses this node: {error}"),
    }
    Ok(())
}
