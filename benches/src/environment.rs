//! The machine a run was made on, for the head of its report.

use std::process::Command;

/// Lines that tell machines and revisions apart.
pub fn describe() -> Vec<(String, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_string())
            .unwrap_or_default()
    };
    let revision = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok();
    vec![
        ("processor".into(), field(&read("/proc/cpuinfo"), "model name")),
        ("cores".into(), std::thread::available_parallelism().map_or(0, |cores| cores.get()).to_string()),
        ("memory".into(), field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel".into(), read("/proc/sys/kernel/osrelease").trim().to_string()),
        ("load at start".into(), read("/proc/loadavg").split(' ').next().unwrap_or_default().to_string()),
        ("revision".into(), revision.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string()).unwrap_or_default()),
        ("build".into(), "release profile of Cargo.toml".into()),
    ]
}
