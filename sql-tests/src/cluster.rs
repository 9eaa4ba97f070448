//! A cluster of real processes on free loopback ports: one coordinator and workers, ended when dropped.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The secret of the cluster's nodes.
pub const CLUSTER_TOKEN: &str = "cluster-token-of-the-tests";

/// A coordinator and its workers.
pub struct Cluster {
    flight: SocketAddr,
    workers: Vec<SocketAddr>,
    children: Vec<Child>,
}

/// A program of this workspace: named by a variable, or beside this test in the target folder.
///
/// # Errors
/// When it is not there: `cargo build --release --workspace` makes it.
pub fn program(name: &str, variable: &str) -> io::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("{name} is not built: run cargo build --release --workspace, or set {variable}"))
    })
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

impl Cluster {
    /// Starts a coordinator and one worker for each volume folder, `node-1` and up. The folders' volume is named `data`; logs go to
    /// `folder`. Workers may use a software device. Returns before they have joined.
    ///
    /// # Errors
    /// When a program is missing or cannot be started.
    pub fn start(folder: &Path, volumes: &[PathBuf]) -> io::Result<Self> {
        let [flight, http, control] = [free_address()?, free_address()?, free_address()?];
        let coordinator = folder.join("coordinator");
        let mut cluster = Self { flight, workers: vec![], children: vec![] };
        cluster.start_process(
            folder,
            "server",
            "COORDINATOR",
            &[
                ("--listen", flight.to_string()),
                ("--http-listen", http.to_string()),
                ("--control-listen", control.to_string()),
                ("--data-dir", coordinator.display().to_string()),
            ],
        )?;
        for (position, volume) in volumes.iter().enumerate() {
            let address = free_address()?;
            cluster.start_process(
                folder,
                "worker",
                "WORKER",
                &[
                    ("--node-id", format!("node-{}", position + 1)),
                    ("--listen", address.to_string()),
                    ("--coordinator", format!("http://{control}")),
                    ("--volume", format!("data={}", volume.display())),
                    ("--kernel-device", "software".into()),
                ],
            )?;
            cluster.workers.push(address);
        }
        Ok(cluster)
    }

    fn start_process(&mut self, folder: &Path, role: &str, section: &str, flags: &[(&str, String)]) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let log = File::create(folder.join(format!("{role}-{}.log", self.children.len())))?;
        let child = Command::new(program("bowshot", "BOWSHOT_BINARY")?)
            .arg(role)
            .args(flags.iter().flat_map(|(flag, value)| [*flag, value.as_str()]))
            // The process ends when its standard input closes, so also when this test is killed.
            .arg("--exit-with-parent")
            .env(format!("BOWSHOT__{section}__CLUSTER_TOKEN"), CLUSTER_TOKEN)
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.children.push(child);
        Ok(())
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("http://{}", self.flight)
    }

    /// Where nodes reach the workers.
    pub fn worker_addresses(&self) -> &[SocketAddr] {
        &self.workers
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Either may fail because the process is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
