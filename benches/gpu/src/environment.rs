//! The machine and the build, for the head of the report.

use bowshot_kernels::DeviceReport;

/// Lines that tell machines, drivers and revisions apart.
pub fn describe(device: &DeviceReport, revision: Option<&str>) -> Vec<(String, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_string()).unwrap_or_default()
    };
    let adapter = if device.software {
        format!("{} (software adapter: for correctness only, not for timing)", device.name)
    } else {
        device.name.clone()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let facts = [
        ("adapter", adapter),
        ("driver", device.driver.clone()),
        ("backend", device.backend.clone()),
        ("processor", format!("{}, {}", field(&read("/proc/cpuinfo"), "model name"), bowshot_kernels::machine::instruction_set())),
        ("cores", cores.to_string()),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_string()),
        ("load at start", read("/proc/loadavg").split(' ').next().unwrap_or_default().to_string()),
        ("revision", revision.or(option_env!("BOWSHOT_REVISION")).unwrap_or("not given").to_string()),
    ];
    facts.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}
