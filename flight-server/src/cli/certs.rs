//! `bowshot certs`: a development authority in a folder, and certificates of it for the nodes of a cluster.
//!
//! The same command may be given again with more nodes: what is there stays as it is. Certificates are replaced, never half of one,
//! with `--renew` alone.

use crate::error::{Error, Result};
use crate::shell;
use bowshot_engine::ClusterTlsConfig;
use bowshot_engine::cluster_tls::{COORDINATOR_NAME, ClusterTls, Owner, is_label, node_name, region_name};
use bowshot_engine::port::followed::date;
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Life of the authority: longer than any development cluster.
const AUTHORITY_DAYS: u64 = 3650;
/// Longest life of a node's certificate: within the authority's, and short enough to be renewed while somebody remembers how.
const DAYS_MAX: u64 = 825;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Certificates are valid from a while ago, for nodes whose clocks are behind.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(3600);
const AUTHORITY: &str = "ca";
const COORDINATOR: &str = "coordinator";

#[derive(Args)]
pub struct CertsArguments {
    /// Folder of the authority and of what it issues; created when missing.
    folder: PathBuf,
    /// A worker: its node id, its region ("local" unless given) and host names or addresses, if the certificate is to serve other
    /// programs too. May be given several times.
    #[arg(long = "node", value_name = "NAME[,region=R][,host=H]...")]
    nodes: Vec<Node>,
    /// A host name or address in the coordinator's certificate, if it is to serve Flight SQL too ([tls]). May be given several times.
    #[arg(long = "coordinator-host", value_name = "HOST")]
    coordinator_hosts: Vec<String>,
    /// How long the certificates are valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
    days: u64,
    /// Issue the certificates of the named nodes (without --node: of the coordinator) anew, where there are some already.
    #[arg(long)]
    renew: bool,
}

/// A worker to issue for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    node_id: String,
    region: String,
    hosts: Vec<String>,
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let node_id = parts.next().unwrap_or_default().to_string();
        let mut node = Self { node_id, region: "local".into(), hosts: vec![] };
        for part in parts {
            match part.split_once('=') {
                Some(("region", region)) => node.region = region.to_string(),
                Some(("host", host)) if !host.is_empty() => node.hosts.push(host.to_string()),
                _ => return Err(format!("'{part}' is neither region=R nor host=H")),
            }
        }
        for (what, name) in [("node", &node.node_id), ("region", &node.region)] {
            if !is_label(name) {
                return Err(format!(
                    "the {what} '{name}' must be 1 to 63 lower-case letters, digits, '-' and '_', with no '-' at either end"
                ));
            }
        }
        if [AUTHORITY, COORDINATOR].contains(&node.node_id.as_str()) {
            return Err(format!("{}.pem is not a node's file: choose another name", node.node_id));
        }
        Ok(node)
    }
}

/// Makes what is missing and prints the settings to paste.
///
/// # Errors
/// When files are there that do not belong together, or the disk refuses.
pub fn run(arguments: &CertsArguments) -> Result<()> {
    let folder = std::path::absolute(&arguments.folder).map_err(|source| Error::file("find", &arguments.folder, source))?;
    create_folder(&folder)?;
    let authority = Authority::open(&folder)?;
    let life = DAY * arguments.days as u32;
    let renew_coordinator = arguments.renew && arguments.nodes.is_empty();
    let names = [&[COORDINATOR_NAME.to_string()], arguments.coordinator_hosts.as_slice()].concat();
    authority.provide(COORDINATOR, &names, Owner::Coordinator, life, renew_coordinator)?;
    for node in &arguments.nodes {
        let names = [&[node_name(&node.node_id), region_name(&node.region)], node.hosts.as_slice()].concat();
        let owner = Owner::Worker { node_id: node.node_id.clone(), region: node.region.clone() };
        authority.provide(&node.node_id, &names, owner, life, arguments.renew)?;
    }

    shell::line_and_go_on(format_args!("\n# settings of the coordinator"))?;
    print_settings("coordinator", &authority.files(COORDINATOR))?;
    for node in &arguments.nodes {
        shell::line_and_go_on(format_args!("\n# settings of the worker {}, its region being '{}'", node.node_id, node.region))?;
        print_settings("worker", &authority.files(&node.node_id))?;
    }
    shell::line_and_go_on(format_args!("\nTake to each machine its own two files and ca.pem, and mend the paths; ca.key stays here: whoever reads it can join the cluster as
any node. These certificates are for development. In production, let your own authority issue them with the same DNS names:
<node id>.node.bowshot and <region>.region.bowshot for a worker, {COORDINATOR_NAME} for the coordinator."
    ))?;
    Ok(())
}

fn print_settings(section: &str, files: &ClusterTlsConfig) -> Result<()> {
    shell::line_and_go_on(format_args!("[{section}.cluster_tls]"))?;
    for (name, path) in [("certificate", &files.certificate), ("key", &files.key), ("ca", &files.ca)] {
        if let Some(path) = path {
            shell::line_and_go_on(format_args!("{name} = {:?}", path.display().to_string()))?;
        }
    }
    Ok(())
}

/// The authority of a folder.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Opens the authority of `folder`, or makes one.
    fn open(folder: &Path) -> Result<Self> {
        let (certificate, key) = pair(folder, AUTHORITY);
        let (params, signing) = match (certificate.exists(), key.exists()) {
            (true, true) => {
                let pem = std::fs::read_to_string(&key).map_err(|source| Error::file("read", &key, source))?;
                // The reader's own text could quote the file.
                let signing = KeyPair::from_pem(&pem)
                    .map_err(|_| Error::config(format!("{} holds no private key that this command made", key.display())))?;
                shell::line_and_go_on(format_args!("authority    {} (was there)", certificate.display()))?;
                (authority_params(), signing)
            }
            (false, false) => {
                let signing = KeyPair::generate().map_err(cannot_issue)?;
                let params = with_life(authority_params(), DAY * AUTHORITY_DAYS as u32)?;
                let pem = params.self_signed(&signing).map_err(cannot_issue)?.pem();
                create(&key, &signing.serialize_pem())?;
                create(&certificate, &pem)?;
                shell::line_and_go_on(format_args!("authority    {} (new, for development)", certificate.display()))?;
                (params, signing)
            }
            (there, _) => {
                let (there, missing) = if there { (certificate, key) } else { (key, certificate) };
                return Err(Error::config(format!(
                    "{} is there without {}: bring it back, or choose another folder for a new authority",
                    there.display(),
                    missing.display()
                )));
            }
        };
        Ok(Self { folder: folder.to_path_buf(), issuer: Issuer::new(params, signing) })
    }

    fn files(&self, name: &str) -> ClusterTlsConfig {
        let (certificate, key) = pair(&self.folder, name);
        ClusterTlsConfig { certificate: Some(certificate), key: Some(key), ca: Some(pair(&self.folder, AUTHORITY).0) }
    }

    /// Issues for `owner` unless there is a certificate that serves already, and checks what is there then as a node would.
    fn provide(&self, name: &str, names: &[String], owner: Owner, life: Duration, renew: bool) -> Result<()> {
        let (certificate, key) = pair(&self.folder, name);
        let there = certificate.exists() || key.exists();
        if !there || renew {
            let signing = KeyPair::generate().map_err(cannot_issue)?;
            let params = CertificateParams::new(names).map_err(|error| {
                Error::config(format!("the names of {name} ({}) cannot stand in a certificate: {error}", names.join(", ")))
            })?;
            let mut params = with_life(params, life)?;
            params.distinguished_name = common_name(name);
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            params.use_authority_key_identifier_extension = true;
            let pem = params.signed_by(&signing, &self.issuer).map_err(cannot_issue)?.pem();
            let write = if there { replace } else { create };
            write(&key, &signing.serialize_pem())?;
            write(&certificate, &pem)?;
        }
        let checked = ClusterTls::load(&self.files(name), owner);
        let tls = checked.map_err(|error| match there && !renew {
            true => Error::config(format!("{error}. It was there before: add --renew to issue it anew")),
            false => error.into(),
        })?;
        let word = match (there, renew) {
            (false, _) => "new",
            (true, true) => "renewed",
            (true, false) => "was there, stays as it is",
        };
        let until = tls.map_or_else(String::new, |tls| format!(", valid until {}", date(tls.valid_until())));
        shell::line_and_go_on(format_args!("certificate  {} ({word}{until})", certificate.display()))?;
        Ok(())
    }
}

/// Certificate and key of a name.
fn pair(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")))
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Bowshot development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn with_life(mut params: CertificateParams, life: Duration) -> Result<CertificateParams> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Error::config("this machine's clock stands before 1970"))?;
    let now = rcgen::date_time_ymd(1970, 1, 1) + since;
    params.not_before = now - CLOCK_DIFFERENCE;
    params.not_after = now + life;
    Ok(params)
}

fn cannot_issue(error: rcgen::Error) -> Error {
    Error::config(format!("a certificate cannot be made: {error}"))
}

fn create_folder(folder: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(|source| Error::file("create", folder, source))
}

/// Writes a file that must not be there, for its owner's eyes alone.
fn create(path: &Path, text: &str) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| Error::file("create", path, source))
}

/// Puts a file in the place of another at once: nodes may read it at any time.
fn replace(path: &Path, text: &str) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match std::fs::remove_file(&beside) {
        // One that an interrupted run left.
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(Error::file("remove", &beside, source)),
    }
    create(&beside, text)?;
    std::fs::rename(&beside, path).map_err(|source| Error::file("replace", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(folder: &Path, nodes: &[&str], renew: bool) -> CertsArguments {
        let nodes = nodes.iter().map(|node| node.parse().unwrap()).collect();
        CertsArguments { folder: folder.to_path_buf(), nodes, coordinator_hosts: vec!["localhost".into()], days: 30, renew }
    }

    #[test]
    fn nodes_are_added_to_an_authority_and_nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("certs");
        run(&arguments(&folder, &["node-1,region=eu,host=host-1,host=10.0.0.1"], false)).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let (authority, first, key) = (read("ca.pem"), read("node-1.pem"), read("node-1.key"));
        run(&arguments(&folder, &["node-1,region=eu", "node-2"], false)).unwrap();
        assert_eq!((authority.as_str(), first.as_str(), key.as_str()), (&*read("ca.pem"), &*read("node-1.pem"), &*read("node-1.key")));
        assert!(folder.join("node-2.key").exists());

        let moved = run(&arguments(&folder, &["node-1,region=us"], false)).unwrap_err().to_string();
        assert!(moved.contains("region 'eu'") && moved.contains("--renew"), "{moved}");
        assert_eq!(read("node-1.pem"), first);
        run(&arguments(&folder, &["node-1,region=us"], true)).unwrap();
        assert_ne!((read("node-1.pem"), read("node-1.key")), (first, key));

        std::fs::remove_file(folder.join("ca.key")).unwrap();
        let alone = run(&arguments(&folder, &["node-3"], false)).unwrap_err().to_string();
        assert!(alone.contains("ca.pem is there without"), "{alone}");
        assert!(!folder.join("node-3.key").exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_what_was_made() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        run(&arguments(folder.path(), &["node-1"], false)).unwrap();
        run(&arguments(folder.path(), &["node-1"], true)).unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        }
    }

    #[test]
    fn a_node_that_no_certificate_could_name_is_refused() {
        assert_eq!("n,region=eu".parse(), Ok(Node { node_id: "n".into(), region: "eu".into(), hosts: vec![] }));
        for text in ["", "a.b", "Node", "ca", "coordinator", "n,region=", "n,region=EU", "n,host=", "n,zone=a", "../n"] {
            assert!(text.parse::<Node>().is_err(), "{text}");
        }
    }
}
