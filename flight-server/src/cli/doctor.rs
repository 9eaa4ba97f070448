//! `bowshot doctor`: what this machine brings to a server or a worker with these settings, and what holds it back.

/// A line of the report.
macro_rules! say {
    ($($text:tt)*) => { crate::shell::line(format_args!($($text)*))? };
}

mod process;

use super::settings;
use crate::auth::Authenticator;
use crate::checks::{Finding, Subject};
use crate::config::{Config, Role};
use crate::error::Result;
use crate::tls::ClientTls;
use bowshot_engine::cluster_tls::ClusterTls;
use bowshot_engine::config::machine_memory_bytes;
use bowshot_engine::port::followed::date;
use bowshot_engine::{AdapterReport, adapters, machine};

/// Prints what a process would find here under these settings, and at the end all that is wrong, with the way out.
///
/// # Errors
/// When the report cannot be written.
pub fn run(config: Config, role: Role) -> Result<()> {
    print_machine(&config)?;
    print_access(&config)?;
    let worker_certificate = config.worker.as_ref().map(ClusterTls::of_worker);
    let coordinator_certificate = (role == Role::Server).then(|| ClusterTls::of_coordinator(&config.coordinator));
    for (of, tls) in [("coordinator", coordinator_certificate), ("worker", worker_certificate)] {
        match tls {
            Some(Ok(Some(tls))) => say!("certificate  of the {of}, valid until {}", date(tls.valid_until())),
            Some(Err(error)) => say!("certificate  {error}"),
            Some(Ok(None)) | None => {}
        }
    }
    let subject = Subject::new(config, role);
    process::print(&subject)?;
    let findings = settings::look(&subject)?;
    for finding in &findings {
        let word = if finding.is_problem() { "wrong" } else { "note " };
        say!("{word}        {}", finding.text());
    }
    if !findings.iter().any(Finding::is_problem) {
        say!("verdict      nothing here keeps it from starting");
    }
    Ok(())
}

/// Processor, memory and cards.
fn print_machine(config: &Config) -> Result<()> {
    let worker = config.worker.clone().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let memory = machine_memory_bytes();
    let share = |wanted: u64, default: u64| if wanted > 0 { wanted } else { default };
    say!("processor    {}, {}", counted(cores, "core"), machine::instruction_set());
    say!(
        "memory       {}: {} for queries, {} for the column cache",
        crate::figures::bytes(memory),
        crate::figures::bytes(share(worker.memory_bytes, memory / 2)),
        crate::figures::bytes(share(worker.cache_bytes, memory / 4))
    );
    let rate = |threads| format!("{:.1} GB/s", machine::memory_read_bandwidth(threads) / 1e9);
    say!("reads        {} on one core, {} on all", rate(1), rate(cores));
    let adapters = adapters();
    say!("device       {}", verdict(&worker.kernel_device, &adapters));
    for adapter in &adapters {
        say!("  {} ({}, {})", adapter.name, adapter.kind, adapter.backend);
        say!("    driver   {}", adapter.driver);
        say!(
            "    limits   {} a binding, {} of workgroup memory",
            crate::figures::bytes(adapter.binding_bytes_max),
            crate::figures::bytes(adapter.workgroup_memory_bytes.into())
        );
        say!(
            "    has      doubles: {}, 64-bit integers: {}, timestamps: {}",
            yes(adapter.has_doubles),
            yes(adapter.has_wide_integers),
            yes(adapter.has_timestamps)
        );
    }
    Ok(())
}

/// Who could connect to a server with these settings, and how its connections would be encrypted.
fn print_access(config: &Config) -> Result<()> {
    match Authenticator::new(config) {
        Ok(authenticator) => say!("clients      {}", authenticator.summary()),
        Err(error) => say!("clients      {error}"),
    }
    match ClientTls::load(&config.tls) {
        Ok(Some(tls)) => say!("certificate  for clients, valid until {}", tls.valid_until()),
        Ok(None) => {}
        Err(error) => say!("certificate  {error}"),
    }
    Ok(())
}

/// What a worker would run kernels on, and why on nothing else.
fn verdict(policy: &str, adapters: &[AdapterReport]) -> String {
    let advice = "\n             to use a card, install its driver and the Vulkan loader (Debian's libvulkan1)";
    match (policy, adapters.first()) {
        ("off", _) => "none: the setting worker.kernel_device is off".into(),
        (_, None) => format!("none: no adapter was found{advice}"),
        ("software", Some(adapter)) => format!("{}, where a query asks for it", adapter.name),
        (_, Some(adapter)) if adapter.is_hardware => adapter.name.clone(),
        (_, Some(_)) => format!("none: only a software adapter was found, slower than the host kernel{advice}"),
    }
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn yes(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}
