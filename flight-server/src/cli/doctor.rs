//! `bowshot doctor`: what this machine brings to a worker, and what holds it back.

use crate::auth::Authenticator;
use crate::config::Config;
use crate::shell;
use crate::tls::ClientTls;
use bowshot_engine::cluster_tls::ClusterTls;
use bowshot_engine::config::machine_memory_bytes;
use bowshot_engine::port::followed::date;
use bowshot_engine::{AdapterReport, adapters, machine};

/// Prints what a worker would find here under these settings.
pub fn run(config: &Config) {
    let worker = config.worker.clone().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let memory = machine_memory_bytes();
    let share = |wanted: u64, default: u64| if wanted > 0 { wanted } else { default };
    println!("processor    {}, {}", counted(cores, "core"), machine::instruction_set());
    println!(
        "memory       {}: {} for queries, {} for the column cache",
        shell::bytes(memory),
        shell::bytes(share(worker.memory_bytes, memory / 2)),
        shell::bytes(share(worker.cache_bytes, memory / 4))
    );
    let rate = |threads| format!("{:.1} GB/s", machine::memory_read_bandwidth(threads) / 1e9);
    println!("reads        {} on one core, {} on all", rate(1), rate(cores));
    let adapters = adapters();
    println!("device       {}", verdict(&worker.kernel_device, &adapters));
    for adapter in &adapters {
        println!("  {} ({}, {})", adapter.name, adapter.kind, adapter.backend);
        println!("    driver   {}", adapter.driver);
        println!(
            "    limits   {} a binding, {} of workgroup memory",
            shell::bytes(adapter.binding_bytes_max),
            shell::bytes(adapter.workgroup_memory_bytes.into())
        );
        println!(
            "    has      doubles: {}, 64-bit integers: {}, timestamps: {}",
            yes(adapter.has_doubles),
            yes(adapter.has_wide_integers),
            yes(adapter.has_timestamps)
        );
    }
    print_access(config);
    let worker_certificate = config.worker.as_ref().map(ClusterTls::of_worker);
    for (role, tls) in [("coordinator", Some(ClusterTls::of_coordinator(&config.coordinator))), ("worker", worker_certificate)] {
        match tls {
            Some(Ok(Some(tls))) => println!("certificate  of the {role}, valid until {}", date(tls.valid_until())),
            Some(Err(error)) => println!("certificate  {error}"),
            Some(Ok(None)) | None => {}
        }
    }
}

/// Who could connect to a server with these settings, and how its connections would be encrypted.
fn print_access(config: &Config) {
    match Authenticator::new(config) {
        Ok(authenticator) => println!("clients      {}", authenticator.summary()),
        Err(error) => println!("clients      {error}"),
    }
    match ClientTls::load(&config.tls) {
        Ok(Some(tls)) => println!("certificate  for clients, valid until {}", tls.valid_until()),
        Ok(None) => {}
        Err(error) => println!("certificate  {error}"),
    }
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
