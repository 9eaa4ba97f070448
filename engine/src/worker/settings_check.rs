//! What is wrong with the settings of a worker, all of it: a start refuses with the first, `bowshot config check` prints each.

use super::{check_token, device_policy, fault, store};
use crate::catalog::location::valid_name;
use crate::cluster_tls::connect::endpoint;
use crate::config::WorkerConfig;
use crate::error::{Error, Result};
use crate::settings_check::{buckets, region};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use url::Url;

/// Every problem that can be told without opening anything. Certificates tell theirs when they are read.
pub fn problems(config: &WorkerConfig) -> Vec<Error> {
    let single = [
        node_id(config),
        check_token(&config.cluster_token, "worker"),
        region("worker.region", &config.region),
        coordinator(config),
        listen(config),
        advertised("worker.advertise", config.advertise.as_deref()),
        advertised("worker.flight_advertise", config.flight_advertise.as_deref()),
        client_listen(config),
        device_policy(&config.kernel_device).map(drop),
        fault::of_device(&config.faults).map(drop),
    ];
    let mut problems: Vec<Error> = single.into_iter().filter_map(Result::err).collect();
    problems.extend(volumes(config));
    problems.extend(volume_regions(config));
    problems.extend(buckets("worker", &config.storage, store::open_bucket));
    problems
}

fn node_id(config: &WorkerConfig) -> Result<()> {
    if config.node_id.is_empty() {
        return Err(Error::user("a worker needs a name: --node-id NAME or the setting worker.node_id"));
    }
    if !valid_name(&config.node_id) {
        return Err(Error::user(format!(
            "worker.node_id '{}' is no node name: use 1 to 64 lower-case letters, digits, '-' and '_', and keep it for the node's life",
            config.node_id
        )));
    }
    if config.node_id == COORDINATOR {
        return Err(Error::user(format!("worker.node_id '{COORDINATOR}' is the coordinator's own name in system.nodes: choose another")));
    }
    Ok(())
}

/// What the coordinator is called in `system.nodes`.
const COORDINATOR: &str = "coordinator";

fn coordinator(config: &WorkerConfig) -> Result<()> {
    let address = &config.coordinator;
    let wrong = || Error::user(format!("coordinator address '{address}' is not a URL like http://host:47472: mend worker.coordinator"));
    endpoint(address).map_err(|_| wrong())?;
    let url = Url::parse(address).map_err(|_| wrong())?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() || url.port().is_none() {
        return Err(wrong());
    }
    if url.scheme() == "http" && config.cluster_tls.certificate.is_some() {
        return Err(Error::user(format!(
            "worker.coordinator is {address}, but worker.cluster_tls is set: write https://, which is how the coordinator is called then, or leave worker.cluster_tls out"
        )));
    }
    Ok(())
}

fn listen(config: &WorkerConfig) -> Result<()> {
    if config.listen.ip().is_unspecified() && config.advertise.is_none() {
        return Err(Error::user(format!(
            "worker.listen is {}, which other nodes cannot connect to: set worker.advertise to the host:port they reach this node on",
            config.listen
        )));
    }
    Ok(())
}

fn client_listen(config: &WorkerConfig) -> Result<()> {
    match config.flight_listen {
        Some(listen) if listen.ip().is_unspecified() && config.flight_advertise.is_none() => Err(Error::user(format!(
            "worker.flight_listen is {listen}, which clients cannot connect to: set worker.flight_advertise to the host:port they reach this node on"
        ))),
        _ => Ok(()),
    }
}

fn advertised(setting: &str, address: Option<&str>) -> Result<()> {
    let Some(address) = address else { return Ok(()) };
    let url = Url::parse(&format!("bowshot://{address}/"));
    let is_address = url.is_ok_and(|url| url.host().is_some() && url.port().is_some_and(|port| port > 0) && url.username().is_empty());
    match is_address && !address.contains('/') {
        true => Ok(()),
        false => Err(Error::user(format!("{setting} is '{address}': write host:port, as others reach this node"))),
    }
}

fn volumes(config: &WorkerConfig) -> Vec<Error> {
    let mut problems = vec![];
    let mut known: BTreeMap<PathBuf, &str> = BTreeMap::new();
    for (volume, folder) in &config.volumes {
        if !valid_name(volume) {
            problems.push(Error::user(format!("volume name '{volume}': use lower-case letters, digits, '-' and '_'")));
        }
        if let Err(problem) = folder_of(folder) {
            problems.push(Error::user(format!(
                "volume '{volume}' of node '{}': the folder {} {problem}. Create it, or name another with --volume {volume}=PATH or the setting worker.volumes.{volume}",
                config.node_id,
                folder.display()
            )));
        }
        if let Ok(real) = folder.canonicalize()
            && let Some(first) = known.insert(real, volume)
        {
            problems.push(Error::user(format!(
                "the volumes '{first}' and '{volume}' of node {} are one folder, {}: give each its own",
                config.node_id,
                folder.display()
            )));
        }
    }
    problems
}

fn folder_of(path: &Path) -> Result<(), String> {
    match std::fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            std::io::ErrorKind::NotFound => "does not exist".to_string(),
            std::io::ErrorKind::NotADirectory => "is not a folder".to_string(),
            _ => format!("cannot be read: {error}"),
        }),
    }
}

fn volume_regions(config: &WorkerConfig) -> Vec<Error> {
    let mut problems = vec![];
    for (volume, label) in &config.volume_regions {
        if !config.volumes.contains_key(volume) {
            problems.push(Error::user(format!(
                "worker.volume_regions.{volume} is '{label}', but there is no volume '{volume}': mend the name, or add it to worker.volumes"
            )));
        }
        problems.extend(region(&format!("worker.volume_regions.{volume}"), label).err());
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_told_and_a_good_worker_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = |paths: &[(&str, &Path)]| paths.iter().map(|(name, path)| (name.to_string(), path.to_path_buf())).collect();
        let good = WorkerConfig {
            node_id: "node-1".into(),
            cluster_token: "a token of sixteen".replace(' ', "-"),
            volumes: volumes(&[("data", folder.path())]),
            ..WorkerConfig::default()
        };
        assert!(problems(&good).is_empty(), "{:?}", problems(&good));
        let bad = WorkerConfig {
            node_id: "Node 1".into(),
            cluster_token: "short".into(),
            region: "EU".into(),
            coordinator: "coordinator".into(),
            listen: "0.0.0.0:1".parse().unwrap(),
            flight_listen: Some("0.0.0.0:2".parse().unwrap()),
            kernel_device: "all".into(),
            faults: vec!["device-nothing".into()],
            volumes: volumes(&[("data", folder.path()), ("same", folder.path()), ("gone", &folder.path().join("gone"))]),
            volume_regions: BTreeMap::from([("dta".to_string(), "us".to_string())]),
            ..WorkerConfig::default()
        };
        let said: Vec<String> = problems(&bad).iter().map(Error::message).collect();
        let words = [
            "worker.node_id",
            "worker.cluster_token",
            "worker.region",
            "worker.coordinator",
            "worker.advertise",
            "worker.flight_advertise",
            "worker.kernel_device",
            "worker.faults",
            "does not exist",
            "are one folder",
            "worker.volume_regions.dta",
        ];
        assert_eq!(said.len(), words.len(), "{said:#?}");
        assert!(words.iter().all(|word| said.iter().any(|text| text.contains(word))), "{said:#?}");
        assert!(!said.iter().any(|text| text.contains("short'")), "{said:#?}");
    }

    #[test]
    fn an_advertised_address_has_a_host_and_a_port() {
        for good in ["host-1:47480", "10.0.0.1:1", "[::1]:47480"] {
            assert!(advertised("worker.advertise", Some(good)).is_ok(), "{good}");
        }
        for bad in ["", "host", "host:", "host:0", "host:70000", "http://host:1", "host:1/path", "user@host:1"] {
            assert!(advertised("worker.advertise", Some(bad)).is_err(), "{bad}");
        }
    }
}
