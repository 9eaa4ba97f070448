//! Ports: those that two settings share, and those that other processes have.

use super::{Finding, Role, Subject, folders, problem};
use crate::cli::listen::{self, Purpose};
use std::fs;
use std::net::{SocketAddr, TcpListener};

/// Processes that are looked at for the holder of a port; a machine with more tells none.
const PROCESSES_MAX: usize = 20_000;
/// Files of a process that are looked at.
const FILES_MAX: usize = 100_000;
/// State of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Where a process with these settings listens.
pub fn listens(subject: &Subject) -> Vec<(Purpose, SocketAddr)> {
    let config = &subject.config;
    let mut all = vec![];
    if subject.role == Role::Server {
        all.push((listen::FLIGHT_SQL, config.server.listen));
        all.push((listen::HTTP, config.server.http_listen));
        all.push((listen::CONTROL, config.coordinator.listen));
    }
    if let Some(worker) = subject.worker() {
        all.push((listen::WORKER, worker.listen));
        all.extend(worker.flight_listen.map(|address| (listen::WORKER_CLIENTS, address)));
    }
    all
}

/// Settings of this process that take one port twice.
pub fn shared_ports(subject: &Subject) -> Vec<Finding> {
    let all = listens(subject);
    let mut found = vec![];
    for (position, (purpose, address)) in all.iter().enumerate() {
        // Port 0 takes any that is free.
        let same = |other: &SocketAddr| {
            let everywhere = address.ip().is_unspecified() || other.ip().is_unspecified();
            other.port() == address.port() && address.port() != 0 && (everywhere || other.ip() == address.ip())
        };
        for (other, _) in all[..position].iter().filter(|(_, earlier)| same(earlier)) {
            found.push(problem(format!(
                "{} and {} are both port {}: give each a port of its own",
                other.setting,
                purpose.setting,
                address.port()
            )));
        }
    }
    found
}

/// Ports that this process could not take now. While it runs already, that is no news.
pub fn taken_ports(subject: &Subject) -> Vec<Finding> {
    let runs = !folders::in_use(subject).is_empty();
    let mut found = vec![];
    for (purpose, address) in listens(subject) {
        let Err(error) = TcpListener::bind(address) else { continue };
        let taken = error.kind() == std::io::ErrorKind::AddrInUse;
        let text = listen::refused(address, purpose, error).to_string();
        found.push(if taken && runs { Finding::Note(text) } else { Finding::Problem(text) });
    }
    found
}

/// Which process listens on a port, as far as this user may know.
pub fn port_holder(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().flat_map(|table| sockets(table, port)).collect();
    if inodes.is_empty() {
        return None;
    }
    let links: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let processes = fs::read_dir("/proc").ok()?.flatten().take(PROCESSES_MAX);
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().take(FILES_MAX);
        let has = files
            .filter_map(|file| fs::read_link(file.path()).ok())
            .any(|link| links.iter().any(|socket| link.as_os_str() == socket.as_str()));
        if has {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("process {} ({})", process.file_name().to_string_lossy(), name.trim()));
        }
    }
    None
}

/// Inodes of the sockets that listen on a port.
fn sockets(table: &str, port: u16) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let of_port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
        let listens = u16::from_str_radix(local_port, 16).ok()? == port && *fields.get(3)? == LISTENS;
        listens.then(|| fields.get(9).map(ToString::to_string))?
    };
    text.lines().skip(1).filter_map(of_port).collect()
}
