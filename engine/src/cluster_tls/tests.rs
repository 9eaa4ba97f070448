//! Both ends over real sockets: who is let in, who is not and what they are told, and what changes with the files.

use super::*;
use crate::config::ClusterTlsConfig;
use crate::control::client::ControlClient;
use crate::control::server::ControlService;
use crate::control::{PROTOCOL_VERSION, Register, Registered};
use crate::coordinator::membership::Heartbeats;
use crate::error::ErrorClass;
use crate::limits;
use crate::port::followed::Watch;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic::transport::Server;

const TOKEN: &str = "cluster-token-of-the-tests";

/// An authority of a cluster.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for `names`, valid for so many seconds from now.
    fn issue(&self, names: &[String], seconds: i64) -> (String, String) {
        let mut params = CertificateParams::new(names).unwrap();
        let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(crate::control::now_ms() / 1000);
        params.not_before = now - Duration::from_secs(3600);
        params.not_after = if seconds < 0 { now - Duration::from_secs(60) } else { now + Duration::from_secs(seconds as u64) };
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A node's files in a folder of their own.
struct NodeFiles {
    folder: TempDir,
}

impl NodeFiles {
    fn new(authorities: &[&Authority], certificate: (String, String)) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.write(authorities, certificate);
        files
    }

    fn write(&self, authorities: &[&Authority], (certificate, key): (String, String)) {
        let ca: String = authorities.iter().map(|authority| authority.0.pem()).collect();
        for (name, text) in [("node.pem", certificate), ("node.key", key), ("ca.pem", ca)] {
            std::fs::write(self.path(name), text).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self) -> ClusterTlsConfig {
        ClusterTlsConfig { certificate: Some(self.path("node.pem")), key: Some(self.path("node.key")), ca: Some(self.path("ca.pem")) }
    }

    fn load(&self, owner: Owner) -> Arc<ClusterTls> {
        self.try_load(owner).unwrap()
    }

    fn try_load(&self, owner: Owner) -> Result<Arc<ClusterTls>> {
        Ok(ClusterTls::load(&self.config(), owner)?.unwrap())
    }
}

fn coordinator_names() -> Vec<String> {
    vec![COORDINATOR_NAME.into()]
}

fn worker_names(node_id: &str, region: &str) -> Vec<String> {
    vec![node_name(node_id), region_name(region), "host.example".into(), "127.0.0.1".into()]
}

fn worker(node_id: &str, region: &str) -> Owner {
    Owner::Worker { node_id: node_id.into(), region: region.into() }
}

fn worker_files(authority: &Authority, node_id: &str) -> NodeFiles {
    NodeFiles::new(&[authority], authority.issue(&worker_names(node_id, "eu"), 3600))
}

fn register(node_id: &str, region: &str) -> Register {
    Register {
        protocol_version: PROTOCOL_VERSION,
        version: "test".into(),
        node_id: node_id.into(),
        region: region.into(),
        address: format!("https://127.0.0.1:1/{node_id}"),
        pid: 1,
        cpu_threads: 1,
        device: "none".into(),
        incarnation: uuid::Uuid::new_v4().to_string(),
        volumes: vec![],
        volume_regions: BTreeMap::new(),
        keeps_parts: false,
        client_url: None,
        found_volumes: Default::default(),
    }
}

/// A control service on a free port; gives its address without the scheme.
async fn serve(tls: Arc<ClusterTls>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = ControlService::new(Arc::new(Heartbeats::default()), TOKEN.into(), vec![], Arc::default(), Arc::default());
    tokio::spawn(Server::builder().add_service(Arc::new(service).into_server()).serve_with_incoming(incoming(listener, Some(tls))));
    address.to_string()
}

async fn serve_coordinator(authority: &Authority) -> (String, NodeFiles) {
    let files = NodeFiles::new(&[authority], authority.issue(&coordinator_names(), 3600));
    (serve(files.load(Owner::Coordinator)).await, files)
}

async fn try_register(address: &str, tls: Option<Arc<ClusterTls>>, register: &Register) -> Result<Registered> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    ControlClient::new(&format!("{scheme}://{address}"), TOKEN, tls).unwrap().register(register).await
}

/// Fails unless the result is an error that no waiting cures, with these words in its text.
fn assert_refused<T: std::fmt::Debug>(result: Result<T>, words: &[&str]) {
    let error = result.unwrap_err();
    assert!(matches!(error.class(), ErrorClass::User | ErrorClass::Unauthenticated), "{:?}: {error}", error.class());
    for word in words {
        assert!(error.to_string().contains(word), "'{word}' is not in: {error}");
    }
}

#[test]
fn files_that_do_not_fit_are_refused_at_start_by_name() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let refused = |files: &NodeFiles, words: &[&str]| assert_refused(files.try_load(worker("node-1", "eu")).map(|_| ()), words);

    let names = worker_names("node-1", "eu");
    refused(&NodeFiles::new(&[&other], own.issue(&names, 3600)), &["worker.cluster_tls.certificate", "node.pem", "not signed by"]);
    refused(&NodeFiles::new(&[&own], own.issue(&names, -1)), &["expired on 20"]);
    refused(&worker_files(&own, "node-2"), &["not for node-1.node.bowshot", "node-2.node.bowshot"]);
    let us = own.issue(&worker_names("node-1", "us"), 3600);
    refused(&NodeFiles::new(&[&own], us), &["region 'us'", "not for region 'eu'"]);
    let mixed = (own.issue(&names, 3600).0, own.issue(&names, 3600).1);
    refused(&NodeFiles::new(&[&own], mixed), &["not of the key"]);

    let files = worker_files(&own, "node-1");
    let key = std::fs::read_to_string(files.path("node.key")).unwrap();
    std::fs::write(files.path("node.key"), key.replace("BEGIN", "BEGUN")).unwrap();
    let error = files.try_load(worker("node-1", "eu")).map(|_| ()).unwrap_err().to_string();
    let secret = key.lines().nth(1).unwrap();
    assert!(error.contains("node.key holds no private key") && !error.contains(secret), "{error}");
    std::fs::remove_file(files.path("ca.pem")).unwrap();
    refused(&files, &["worker.cluster_tls.ca", "ca.pem cannot be read"]);

    let half = ClusterTlsConfig { key: None, ..files.config() };
    assert_refused(ClusterTls::load(&half, Owner::Coordinator).map(|_| ()), &["set coordinator.cluster_tls.key too"]);
    let upper = worker("node-1", "EU");
    assert_refused(files.try_load(upper).map(|_| ()), &["worker.region 'EU' cannot stand in a certificate"]);
}

#[test]
fn what_leaves_the_machine_wants_tls_or_a_word_of_consent() {
    let plain = WorkerConfig::default();
    assert!(ClusterTls::of_worker(&plain).unwrap().is_none(), "loopback needs no certificate");
    let far = WorkerConfig { coordinator: "http://coordinator:47472".into(), ..plain.clone() };
    assert_refused(
        ClusterTls::of_worker(&far).map(|_| ()),
        &["worker.coordinator is http://coordinator", "bowshot certs", "insecure_cluster"],
    );
    let open = WorkerConfig { listen: "0.0.0.0:1".parse().unwrap(), ..plain.clone() };
    assert_refused(ClusterTls::of_worker(&open).map(|_| ()), &["worker.listen is 0.0.0.0:1", "worker.cluster_tls"]);
    assert!(ClusterTls::of_worker(&WorkerConfig { insecure_cluster: true, ..open }).unwrap().is_none());
    let https = WorkerConfig { coordinator: "https://127.0.0.1:1".into(), insecure_cluster: true, ..plain };
    assert_refused(ClusterTls::of_worker(&https).map(|_| ()), &["worker.cluster_tls is not set"]);
    let coordinator = CoordinatorConfig { listen: "192.0.2.1:1".parse().unwrap(), ..CoordinatorConfig::default() };
    assert_refused(ClusterTls::of_coordinator(&coordinator).map(|_| ()), &["coordinator.listen is 192.0.2.1:1", "bowshot certs"]);
    assert!(ClusterTls::of_coordinator(&CoordinatorConfig { insecure_cluster: true, ..coordinator }).unwrap().is_none());
}

#[test]
fn names_in_certificates_are_written_in_one_way() {
    for name in ["node-1", "n", "0", "a_b", &"x".repeat(63)] {
        assert!(is_label(name) && identity::server_name(&node_name(name)).is_ok(), "{name}");
    }
    for name in ["", "-a", "a-", "a.b", "A", "é", "*", &"x".repeat(64)] {
        assert!(!is_label(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_as_what_its_certificate_says_and_as_nothing_else() {
    let own = Authority::new("own");
    let (address, _files) = serve_coordinator(&own).await;
    let files = worker_files(&own, "node-1");
    let tls = files.load(worker("node-1", "eu"));
    try_register(&address, Some(tls.clone()), &register("node-1", "eu")).await.unwrap();

    let as_other = try_register(&address, Some(tls.clone()), &register("node-2", "eu")).await;
    assert_refused(as_other, &["calls itself node 'node-2'", "certificate is for node 'node-1', region 'eu'"]);
    let elsewhere = try_register(&address, Some(tls.clone()), &register("node-1", "us")).await;
    assert_refused(elsewhere, &["calls its region 'us'", "mend worker.region"]);
    let hidden = Register { address: "https://127.0.0.1:1/node-2".into(), ..register("node-1", "eu") };
    assert_refused(try_register(&address, Some(tls), &hidden).await, &["another node's"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_why_they_are_refused() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let (address, _files) = serve_coordinator(&own).await;
    let node = register("node-1", "eu");

    assert_refused(try_register(&address, None, &node).await, &["it wants TLS", "cluster_tls"]);
    // Knows the authority of the cluster, but was signed by another.
    let stranger = NodeFiles::new(&[&own, &other], other.issue(&worker_names("node-1", "eu"), 3600));
    let refused = try_register(&address, Some(stranger.load(worker("node-1", "eu"))), &node).await;
    assert_refused(refused, &["other side refused our certificate", "cluster_tls.ca"]);
    // The reverse: the coordinator is the stranger.
    let stranger = worker_files(&other, "node-1");
    assert_refused(try_register(&address, Some(stranger.load(worker("node-1", "eu"))), &node).await, &["not signed by"]);

    // A worker on the port where the coordinator should be.
    let worker_at = serve(worker_files(&own, "node-2").load(worker("node-2", "eu"))).await;
    let tls = worker_files(&own, "node-1").load(worker("node-1", "eu"));
    assert_refused(try_register(&worker_at, Some(tls.clone()), &node).await, &["not for coordinator.role.bowshot", "node-2.node.bowshot"]);

    // A port without TLS.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_at = plain.local_addr().unwrap().to_string();
    let service = ControlService::new(Arc::new(Heartbeats::default()), TOKEN.into(), vec![], Arc::default(), Arc::default());
    tokio::spawn(Server::builder().add_service(Arc::new(service).into_server()).serve_with_incoming(incoming(plain, None)));
    assert_refused(try_register(&plain_at, Some(tls), &node).await, &["not TLS"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_ends_while_the_node_runs_is_refused_from_then_on() {
    let own = Authority::new("own");
    let (address, _files) = serve_coordinator(&own).await;
    let files = NodeFiles::new(&[&own], own.issue(&worker_names("node-1", "eu"), 2));
    let tls = files.load(worker("node-1", "eu"));
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_refused(try_register(&address, Some(tls), &register("node-1", "eu")).await, &["expired"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_certificate_gets_no_further_than_the_handshake() {
    let own = Authority::new("own");
    let (address, _files) = serve_coordinator(&own).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.0.der().clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = identity::server_name(COORDINATOR_NAME).unwrap();
    let stream = TcpStream::connect(&address).await.unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let error = stream.read(&mut [0; 64]).await.unwrap_err().to_string();
    assert!(error.contains("CertificateRequired"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_say_nothing_hold_nobody_up() {
    let own = Authority::new("own");
    let (address, _files) = serve_coordinator(&own).await;
    let mut silent = vec![];
    for _ in 0..limits::HANDSHAKES_MAX + 10 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(socket.connect(address.parse().unwrap()).await.unwrap());
    }
    // Half of a handshake.
    silent[0].write_all(&[0x16, 3, 1]).await.unwrap();
    let started = Instant::now();
    let tls = worker_files(&own, "node-1").load(worker("node-1", "eu"));
    try_register(&address, Some(tls), &register("node-1", "eu")).await.unwrap();
    assert!(started.elapsed() < limits::HANDSHAKE_TIMEOUT / 2, "{:?}", started.elapsed());
    // And they are not kept.
    let closed = tokio::time::timeout(limits::HANDSHAKE_TIMEOUT * 2, silent[1].read(&mut [0])).await.expect("closed in time");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

fn look_twice(tls: &ClusterTls, watch: &mut Watch) {
    tls.followed.look(watch);
    tls.followed.look(watch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_files_serve_new_connections_and_leave_open_ones_alone() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let files = NodeFiles::new(&[&old], old.issue(&coordinator_names(), 3600));
    let server = files.load(Owner::Coordinator);
    let address = serve(server.clone()).await;
    let old_worker = worker_files(&old, "node-1").load(worker("node-1", "eu"));
    let mut open = ControlClient::new(&format!("https://{address}"), TOKEN, Some(old_worker.clone())).unwrap();
    open.register(&register("node-1", "eu")).await.unwrap();

    files.write(&[&new], new.issue(&coordinator_names(), 7200));
    let (mut watch, before) = (Watch::default(), server.valid_until());
    server.followed.look(&mut watch);
    assert_eq!(server.valid_until(), before, "files are taken once they rest");
    server.followed.look(&mut watch);
    assert!(server.valid_until() > before + 3000);

    open.register(&register("node-1", "eu")).await.unwrap();
    assert_refused(try_register(&address, Some(old_worker), &register("node-1", "eu")).await, &["not signed by"]);
    let new_worker = worker_files(&new, "node-2").load(worker("node-2", "eu"));
    try_register(&address, Some(new_worker), &register("node-2", "eu")).await.unwrap();
}

#[test]
fn files_that_broke_leave_the_ones_before_in_use_and_are_told_of_once() {
    let own = Authority::new("own");
    let files = worker_files(&own, "node-1");
    let tls = files.load(worker("node-1", "eu"));
    let (mut watch, before) = (Watch::default(), tls.current());
    let mut refuse = |words: &str| {
        look_twice(&tls, &mut watch);
        let complaint = watch.complaint.clone().unwrap_or_default();
        assert!(complaint.contains(words), "'{words}' is not in: {complaint}");
        assert!(Arc::ptr_eq(&tls.current(), &before));
    };
    std::fs::write(files.path("node.pem"), "not a certificate").unwrap();
    refuse("holds no certificate in PEM form");
    files.write(&[&own], own.issue(&worker_names("node-2", "eu"), 3600));
    refuse("not for node-1.node.bowshot");
    std::fs::remove_file(files.path("ca.pem")).unwrap();
    refuse("ca.pem cannot be read");
    files.write(&[&own], own.issue(&worker_names("node-1", "eu"), 7200));
    look_twice(&tls, &mut watch);
    assert!(watch.complaint.is_none() && !Arc::ptr_eq(&tls.current(), &before));
}
