//! Who has a port, as far as this user may know.

use std::fs;

/// Processes that are looked at for the holder of a port; a machine with more tells none.
const PROCESSES_MAX: usize = 20_000;
/// Files of a process that are looked at.
const FILES_MAX: usize = 100_000;
/// State of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";

/// Which process listens on a port.
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
