//! Ports: those that two settings share, and those that other processes have.

use super::{Finding, Subject, folders, problem};
use crate::config::Role;
use crate::listen::{self, Purpose};
use std::net::{SocketAddr, TcpListener};

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
