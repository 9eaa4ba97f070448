//! Membership, placement and replication of a cluster that exists in memory alone, with a clock that is turned by hand: hours of joins, deaths,
//! returns, lost disks and drains in a second, the same for the same seed.
//!
//! A failure prints its seed; `BOWSHOT_SIMULATION_SEED=n cargo test --test cluster_simulation` replays it, `BOWSHOT_SIMULATION_SEEDS=n` runs
//! more of them.

use bowshot_engine::catalog::location::Location;
use bowshot_engine::catalog::{CatalogFile, Snapshot, Table, TableDetails};
use bowshot_engine::control::packed::PackedInventory;
use bowshot_engine::control::{FailedCopy, FileFacts, Heartbeat, Orders, PROTOCOL_VERSION, Register, Replica, RowGroupFacts, VolumeFile};
use bowshot_engine::coordinator::clock::Clock;
use bowshot_engine::coordinator::membership::{Heartbeats, Membership, NodeState};
use bowshot_engine::coordinator::replication::Replicator;
use bowshot_engine::fragment::placement::Placement;
use bowshot_engine::limits;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const GRACE: Duration = Duration::from_secs(30);
const REGIONS: [&str; 2] = ["eu", "us"];

/// A worker as far as the coordinator can tell.
struct Worker {
    node_id: String,
    region: &'static str,
    life: u32,
    running: bool,
    /// Cut off: it lives, but nothing it says arrives.
    cut_off: bool,
    /// Originals: path and version.
    originals: BTreeMap<String, i64>,
    /// Replicas by checksum.
    replicas: BTreeSet<String>,
    /// Orders of the last answer.
    orders: Orders,
    failures: Vec<FailedCopy>,
    epoch: u64,
}

struct Simulation {
    seed: u64,
    random: StdRng,
    /// Seconds since the start.
    seconds: Arc<AtomicU64>,
    membership: Arc<Heartbeats>,
    replicator: Replicator,
    snapshot: Snapshot,
    workers: Vec<Worker>,
    /// Whether anything still goes wrong.
    faults: bool,
}

fn checksum(path: &str) -> String {
    format!("{path:0>64}")
}

fn facts(version: i64, path: &str) -> FileFacts {
    FileFacts {
        size_bytes: 1000,
        version,
        row_count: 10,
        row_groups: vec![],
        schema_ipc: String::new(),
        footer_hash: String::new(),
        checksum: Some(checksum(path)),
        columns: vec![],
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(3..9);
        let mut workers: Vec<Worker> = (0..count)
            .map(|number| Worker {
                node_id: format!("node-{number}"),
                // At least two nodes of a region, so that a pinned table can have two copies.
                region: REGIONS[usize::from(number >= 2 && random.random_bool(0.4))],
                life: 0,
                running: true,
                cut_off: false,
                originals: BTreeMap::new(),
                replicas: BTreeSet::new(),
                orders: Orders::default(),
                failures: vec![],
                epoch: 1,
            })
            .collect();
        let mut tables = BTreeMap::new();
        let mut file_id = 0;
        for table_id in 0..3i64 {
            let regions: Vec<String> = if table_id == 0 { vec!["eu".into()] } else { vec![] };
            let mut files = vec![];
            for number in 0..random.random_range(1..12) {
                let path = format!("t{table_id}-part-{number}.parquet");
                let allowed: Vec<usize> =
                    (0..workers.len()).filter(|at| regions.is_empty() || regions.contains(&workers[*at].region.to_string())).collect();
                let home = *allowed.choose(&mut random).unwrap();
                workers[home].originals.insert(path.clone(), 7);
                file_id += 1;
                let node: Arc<str> = workers[home].node_id.as_str().into();
                files.push(Arc::new(CatalogFile {
                    file_id,
                    store_url: "node://data".into(),
                    checksum: Some(checksum(&path)),
                    path,
                    size_bytes: 1000,
                    version: 7,
                    row_count: 10,
                    row_groups: [RowGroupFacts { offset: 4, rows: 10, bytes: 900 }].into(),
                    homes: [(node, 7)].into(),
                }));
            }
            let schema = Arc::new(arrow::datatypes::Schema::empty());
            let name = format!("t{table_id}");
            let table = Table {
                table_id,
                revision: 1,
                schema_name: "public".into(),
                name: name.clone(),
                location_text: "node://*/data/".into(),
                location: Location::parse("node://*/data/").unwrap(),
                stored_schema: schema.clone(),
                scan_schema: schema.clone(),
                files,
                statistics: datafusion::common::Statistics::new_unknown(&schema),
                replicas: 2,
                regions,
                managed: false,
                details: TableDetails::default(),
                defaults: BTreeMap::new(),
            };
            tables.insert(name, Arc::new(table));
        }
        let snapshot = Snapshot { version: 1, schemas: BTreeMap::from([("public".into(), tables)]), draining: BTreeSet::new() };
        let (seconds, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let shown = seconds.clone();
        let clock = Clock::new(move || start + Duration::from_secs(shown.load(Ordering::Relaxed)));
        let membership = Arc::new(Heartbeats::new(clock.clone()));
        Self { seed, random, seconds, membership, replicator: Replicator::new(GRACE, clock), snapshot, workers, faults: true }
    }

    /// Everything that happens in a second.
    fn step(&mut self) {
        self.seconds.fetch_add(1, Ordering::Relaxed);
        if self.faults && self.random.random_bool(0.05) {
            self.fault();
        }
        for at in 0..self.workers.len() {
            if self.workers[at].running {
                self.work(at);
                if !self.workers[at].cut_off {
                    self.beat(at);
                }
            }
        }
        for (node, failure) in self.membership.failed_copies() {
            self.replicator.failed(&node, &failure.volume, &failure.checksum);
        }
        let decision = self.replicator.decide(&self.snapshot, &self.membership.inventories());
        self.membership.give_orders(decision.orders);
        self.check();
    }

    /// One thing goes wrong, or is mended. At most one node is away at a time, and the next goes only when all copies are whole: two copies promise
    /// no more.
    fn fault(&mut self) {
        let away: Vec<usize> = (0..self.workers.len()).filter(|at| !self.workers[*at].running || self.workers[*at].cut_off).collect();
        if let Some(&at) = away.first() {
            if self.random.random_bool(0.5) {
                let worker = &mut self.workers[at];
                worker.running = true;
                worker.cut_off = false;
            }
            return;
        }
        if !self.whole() {
            return;
        }
        let at = self.random.random_range(0..self.workers.len());
        match self.random.random_range(0..5) {
            0 => self.workers[at].cut_off = true,
            1 => self.kill(at),
            2 => {
                // The disk is gone with the node, and comes back empty.
                self.kill(at);
                self.workers[at].originals.clear();
                self.workers[at].replicas.clear();
            }
            3 => {
                let node = self.workers[at].node_id.clone();
                let stays = self.workers.iter().filter(|worker| worker.region == self.workers[at].region).count() > 2;
                if !self.snapshot.draining.remove(&node) && stays && self.snapshot.draining.is_empty() {
                    self.snapshot.draining.insert(node);
                }
            }
            _ => self.membership.trip(&self.workers[at].node_id),
        }
    }

    fn kill(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        worker.running = false;
        worker.life += 1;
        worker.orders = Orders::default();
    }

    /// The worker follows its orders, as far as its disk and the sources let it.
    fn work(&mut self, at: usize) {
        let orders = std::mem::take(&mut self.workers[at].orders);
        for (_, checksum) in &orders.discard {
            self.workers[at].replicas.remove(checksum);
            self.workers[at].epoch += 1;
        }
        for fetch in orders.fetch.iter().take(limits::REPLICAS_AT_ONCE) {
            let readable = fetch.sources.iter().any(|(url, path)| {
                let from = self.workers.iter().find(|worker| url.ends_with(&format!("/{}", worker.node_id)) && worker.running);
                from.is_some_and(|from| from.originals.contains_key(path) || from.replicas.iter().any(|held| path.contains(held.as_str())))
            });
            let torn = self.faults && self.random.random_bool(0.1);
            let worker = &mut self.workers[at];
            if readable && !torn {
                worker.replicas.insert(fetch.checksum.clone());
                worker.epoch += 1;
            } else {
                let (volume, checksum) = (fetch.volume.clone(), fetch.checksum.clone());
                worker.failures.push(FailedCopy { volume, checksum, reason: "torn".into() });
            }
        }
    }

    fn beat(&mut self, at: usize) {
        let worker = &mut self.workers[at];
        let files = worker.originals.iter().map(|(path, version)| VolumeFile {
            volume: "data".into(),
            path: path.clone(),
            facts: facts(*version, path),
        });
        let replicas = worker.replicas.iter().map(|checksum| Replica {
            volume: "data".into(),
            checksum: checksum.clone(),
            size_bytes: 1000,
            version: 9,
        });
        let beat = Heartbeat {
            budgets: Default::default(),
            node_id: worker.node_id.clone(),
            incarnation: worker.life.to_string(),
            inventory_epoch: worker.epoch,
            packed_inventory: Some(PackedInventory::pack(&files.collect::<Vec<_>>()).unwrap()),
            inventory: None,
            cached_bytes: 0,
            cached_columns: None,
            device: "-".into(),
            listed_at_ms: 0,
            listed_after_ms: None,
            unreadable: vec![],
            replicas: replicas.collect(),
            failed_copies: std::mem::take(&mut worker.failures),
            hashed: vec![],
            damaged: vec![],
            free_bytes: BTreeMap::new(),
            missing_volumes: Default::default(),
            running_tasks: 0,
            max_tasks: 0,
            memory_reserved_bytes: 0,
            spilled_bytes: 0,
            leaving: false,
            sent_at_ms: None,
            policy_version: None,
        };
        let answer = self.membership.heartbeat(beat);
        if answer.register_again {
            let register = Register {
                protocol_version: PROTOCOL_VERSION,
                version: "1".into(),
                node_id: worker.node_id.clone(),
                region: worker.region.into(),
                address: format!("http://127.0.0.1:1/{}", worker.node_id),
                pid: 1,
                cpu_threads: 2,
                device: "-".into(),
                incarnation: worker.life.to_string(),
                volumes: vec!["data".into()],
                volume_regions: BTreeMap::new(),
                keeps_parts: false,
                client_url: None,
                found_volumes: Default::default(),
            };
            self.membership.register(register, None).unwrap();
        } else {
            worker.orders = answer.orders;
        }
    }

    fn holders(&self, file: &CatalogFile) -> Vec<&Worker> {
        let holds = |worker: &&Worker| {
            worker.originals.contains_key(&file.path) || file.checksum.as_ref().is_some_and(|checksum| worker.replicas.contains(checksum))
        };
        self.workers.iter().filter(holds).collect()
    }

    fn files(&self) -> impl Iterator<Item = (&Arc<Table>, &Arc<CatalogFile>)> {
        self.snapshot.tables().flat_map(|table| table.files.iter().map(move |file| (table, file)))
    }

    /// Whether every file has its two copies on nodes that run and stay.
    fn whole(&self) -> bool {
        let stays = |worker: &&Worker| worker.running && !worker.cut_off && !self.snapshot.draining.contains(&worker.node_id);
        self.files().all(|(_, file)| self.holders(file).into_iter().filter(stays).count() >= 2)
    }

    /// What must hold in every second.
    fn check(&self) {
        let seed = self.seed;
        for (table, file) in self.files() {
            let holders = self.holders(file);
            assert!(!holders.is_empty(), "seed {seed}: the last copy of {} is gone", file.path);
            for holder in &holders {
                assert!(table.allows_region(holder.region), "seed {seed}: {} lies in {}", file.path, holder.region);
            }
        }
        let tables: Vec<Arc<Table>> = self.snapshot.tables().cloned().collect();
        let states: BTreeMap<String, NodeState> = self.membership.nodes().into_iter().map(|node| (node.node_id, node.state)).collect();
        match Placement::freeze(&self.snapshot, &tables, self.membership.as_ref(), &HashSet::new()) {
            Ok(placement) => {
                for (table, file) in self.files() {
                    let files = &placement.table(table.table_id).unwrap().files;
                    let placed = files.iter().find(|placed| placed.file.file_id == file.file_id).unwrap();
                    let node = &placement.nodes[placed.slot];
                    assert_eq!(states[&node.node_id], NodeState::Live, "seed {seed}: {} is read on {}", file.path, node.node_id);
                    assert!(table.allows_region(&node.region), "seed {seed}: {} is read in {}", file.path, node.region);
                    let worker = self.workers.iter().find(|worker| worker.node_id == node.node_id).unwrap();
                    let believed = match &placed.path {
                        Some(path) => worker.replicas.iter().any(|held| path.contains(held.as_str())),
                        None => worker.originals.contains_key(&file.path),
                    };
                    // What the coordinator cannot know yet the worker finds out: it compares versions before it reads.
                    assert!(
                        believed || !worker.running || worker.orders.discard.iter().any(|(_, sum)| Some(sum) == file.checksum.as_ref()),
                        "seed {seed}: {} is not on {}",
                        file.path,
                        node.node_id
                    );
                }
            }
            Err(error) => {
                // An error needs a file whose copies are all on nodes that are not live.
                let unreachable = self.files().any(|(_, file)| {
                    self.holders(file).iter().all(|holder| states.get(&holder.node_id) != Some(&NodeState::Live) || !holder.running)
                });
                assert!(unreachable || states.len() < self.workers.len(), "seed {seed}: {error}");
            }
        }
    }
}

fn simulate(seed: u64) {
    let mut simulation = Simulation::new(seed);
    for _ in 0..60 {
        simulation.faults = false;
        simulation.step();
    }
    assert!(simulation.whole(), "seed {seed}: copies were not made at the start");
    simulation.faults = true;
    for _ in 0..1_200 {
        simulation.step();
    }
    // The dust settles: everybody is back, nobody drains.
    simulation.faults = false;
    simulation.snapshot.draining.clear();
    for worker in &mut simulation.workers {
        (worker.running, worker.cut_off) = (true, false);
    }
    for _ in 0..300 {
        simulation.step();
    }
    assert!(simulation.whole(), "seed {seed}: copies are missing after all nodes have been back for five minutes");
    for (_, file) in simulation.files() {
        let copies = simulation.holders(file).len();
        assert!(copies <= 2, "seed {seed}: {} still has {copies} copies", file.path);
    }
}

#[test]
fn no_copy_is_lost_misplaced_or_forgotten() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match number("BOWSHOT_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("BOWSHOT_SIMULATION_SEEDS").unwrap_or(50),
    };
    for seed in seeds {
        simulate(seed);
    }
}
