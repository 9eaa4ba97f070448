//! A worker's own side of the rules: what it knows of files, and where each task's rows may go.

use super::flow::{Follow, follow};
use super::policy::Policy;
use super::{CALLER_REGION_HEADER, ERROR_REGIONS_HEADER, REGIONS_HEADER, Reach, TASK_HEADER};
use crate::cluster_tls::Peer;
use crate::error::{Error, ErrorClass, NodeLost, from_datafusion, may_quote_rows};
use bytes::Bytes;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{NetworkBoundary, Stage, TaskKey};
use http::HeaderMap;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use tonic::{Code, Status};
use url::Url;
use uuid::Uuid;

/// A task as headers name it: `query/fragment/task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId {
    query: Uuid,
    fragment: u64,
    task: u64,
}

impl TaskId {
    /// A task of the cluster's.
    pub fn new(query: Uuid, fragment: u64, task: u64) -> Self {
        Self { query, fragment, task }
    }

    /// The task in the headers of a call that sets its plan.
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parts = headers.get(TASK_HEADER)?.to_str().ok()?.split('/');
        let id = Self { query: parts.next()?.parse().ok()?, fragment: parts.next()?.parse().ok()?, task: parts.next()?.parse().ok()? };
        parts.next().is_none().then_some(id)
    }

    /// Its query.
    pub fn query(&self) -> Uuid {
        self.query
    }
    /// Its fragment's number.
    pub fn fragment(&self) -> u64 {
        self.fragment
    }
    /// Its number among the tasks of its fragment.
    pub fn task(&self) -> u64 {
        self.task
    }

    /// As [`TASK_HEADER`].
    pub fn header(&self) -> String {
        format!("{}/{}/{}", self.query, self.fragment, self.task)
    }
}

impl From<&TaskKey> for TaskId {
    fn from(key: &TaskKey) -> Self {
        Self::new(key.query_id, key.stage_id as u64, key.task_number as u64)
    }
}

/// What was declared of a task's rows, and what they are made of.
#[derive(Debug, Clone)]
struct Declared {
    reach: Reach,
    /// Fragments that it reads from as rows.
    reads_rows_of: Vec<(Uuid, u64)>,
    /// Fragments that it reads from.
    reads: Vec<(Uuid, u64)>,
    /// Where the texts of its errors may go.
    errors: Reach,
    /// Class of an error that ended it and may quote rows.
    quoting: Option<ErrorClass>,
    /// Whether it was ended by an error that quotes none.
    harmless: bool,
}

/// The rules and the tasks of one worker. One a node.
pub struct Ledger {
    node_id: String,
    region: String,
    /// Regions of volumes that do not lie there, by store.
    volume_regions: HashMap<String, String>,
    /// `None` until the coordinator has told them: nothing stored is read before.
    policy: RwLock<Option<Arc<Policy>>>,
    tasks: Mutex<HashMap<TaskId, Declared>>,
}

impl Ledger {
    /// Of a node without rules yet.
    pub fn new(node_id: &str, region: &str, volume_regions: &BTreeMap<String, String>) -> Self {
        let volume_regions = volume_regions.iter().map(|(volume, region)| (format!("node://{volume}"), region.clone())).collect();
        Self { node_id: node_id.into(), region: region.into(), volume_regions, policy: RwLock::default(), tasks: Mutex::default() }
    }

    /// Takes the coordinator's rules.
    pub fn learn(&self, policy: Policy) {
        tracing::info!(
            node = self.node_id,
            version = policy.version,
            pinned_tables = policy.pins.len(),
            "the rules of residency are known"
        );
        *self.policy.write() = Some(Arc::new(policy));
    }

    /// Version of the rules that are known.
    pub fn policy_version(&self) -> Option<i64> {
        self.policy.read().as_ref().map(|policy| policy.version)
    }

    fn policy(&self) -> crate::error::Result<Arc<Policy>> {
        self.policy.read().clone().ok_or_else(|| {
            // A process that took the place of another a moment ago: the query goes on without it.
            let reason = "it has just started, and has not heard the coordinator's rules of residency yet".to_string();
            Error::retry(NodeLost { node: self.node_id.clone(), fragment: None, reason }.to_string())
        })
    }

    /// Where the rows of a file may go.
    ///
    /// # Errors
    /// While the rules are not known.
    pub fn reach(&self, store: &str, path: &str) -> crate::error::Result<Reach> {
        Ok(self.policy()?.reach(store, path))
    }

    /// Checks a task's plan against what the caller declared in its headers, and remembers that.
    ///
    /// # Errors
    /// [`ErrorClass::Denied`] when pinned rows could go further than their rules allow.
    pub fn plan(&self, headers: &HeaderMap, plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
        let reach = Reach::of_header(headers.get(REGIONS_HEADER));
        let errors = Reach::of_header(headers.get(ERROR_REGIONS_HEADER));
        let mut rows = Rows { ledger: self, all: vec![], reads: vec![] };
        let out = follow(plan, &mut rows)?;
        for (file, allowed) in &rows.all {
            if !allowed.allows(Some(&self.region)) {
                return self.denied(format!("{file} is pinned to {allowed}, and node {} is in {}", self.node_id, self.region));
            }
            if !errors.is_within(allowed) {
                return self.denied(format!("it reads {file}, which is pinned to {allowed}, and tells of errors in {errors}"));
            }
        }
        for (file, allowed) in &out.files {
            if !reach.is_within(allowed) {
                return self.denied(format!("it puts out rows of {file}, which is pinned to {allowed}, for readers in {reach}"));
            }
        }
        // A task that nobody named is nobody's: it can be set, but not read from.
        if let Some(task) = TaskId::of_headers(headers) {
            let mut tasks = self.tasks.lock();
            if tasks.len() >= crate::limits::TASKS_DECLARED_MAX {
                return Err(Error::new(
                    ErrorClass::Resource,
                    format!("node {} runs {} tasks already: try again", self.node_id, tasks.len()),
                )
                .into());
            }
            tasks.insert(task, Declared { reach, reads_rows_of: out.fragments, reads: rows.reads, errors, quoting: None, harmless: false });
        }
        Ok(())
    }

    fn denied<T>(&self, what: String) -> Result<T> {
        tracing::warn!(node = self.node_id, what, "plan refused");
        Err(Error::new(ErrorClass::Denied, format!("worker {} refuses this plan: {what}", self.node_id)).into())
    }

    /// The task is over.
    pub fn forget(&self, task: &TaskId) {
        self.tasks.lock().remove(task);
    }

    /// Whether a caller may read from a task. Returns where the task's rows and the texts of its errors may go.
    ///
    /// # Errors
    /// When the task is unknown, or the caller is beyond its border.
    pub fn read(&self, task: &TaskId, caller: Option<&str>) -> Result<(Reach, Reach), Status> {
        let Some(declared) = self.tasks.lock().get(task).cloned() else {
            return Err(Status::permission_denied(format!(
                "task {} of node {} was not declared: nobody may read from it",
                task.header(),
                self.node_id
            )));
        };
        if declared.reach.allows(caller) {
            return Ok((declared.reach, declared.errors));
        }
        let caller = caller.unwrap_or("an unknown region");
        tracing::warn!(node = self.node_id, task = task.header(), caller, "reader refused");
        Err(Status::permission_denied(format!(
            "rows of this task of node {} must stay in {}; the reader is in {caller}",
            self.node_id, declared.reach
        )))
    }

    /// Whether a task may take in rows that may go no further than `reach`, and errors no further than `errors`.
    ///
    /// # Errors
    /// [`ErrorClass::Denied`] when it has declared that its own go further.
    pub fn takes_in(&self, task: &TaskId, from: (Uuid, u64), reach: &Reach, errors: &Reach) -> Result<()> {
        let Some(declared) = self.tasks.lock().get(task).cloned() else { return Ok(()) };
        if !reach.allows(Some(&self.region)) {
            return self.denied(format!("it reads rows that must stay in {reach}, and the node is in {}", self.region));
        }
        if declared.reads_rows_of.contains(&from) && !declared.reach.is_within(reach) {
            return self.denied(format!("it passes on rows that must stay in {reach} to readers in {}", declared.reach));
        }
        if !declared.errors.is_within(errors) {
            return self.denied(format!("it passes on errors about rows that must stay in {errors} to readers in {}", declared.errors));
        }
        Ok(())
    }

    /// Checks what a task reads from other tasks of this very node, whose rows do not come over a connection.
    ///
    /// # Errors
    /// As [`Self::takes_in`].
    pub fn check_own(&self, task: &TaskId) -> Result<(), Status> {
        let tasks = self.tasks.lock();
        let Some(declared) = tasks.get(task).filter(|declared| !declared.reads.is_empty()) else { return Ok(()) };
        let beyond = tasks.iter().find(|(other, from)| {
            let from_there = (other.query, other.fragment);
            let rows = declared.reads_rows_of.contains(&from_there) && !declared.reach.is_within(&from.reach);
            rows || declared.reads.contains(&from_there) && !declared.errors.is_within(&from.errors)
        });
        match beyond {
            None => Ok(()),
            Some((_, from)) => Err(Status::permission_denied(format!(
                "worker {} refuses this plan: it passes on rows that must stay in {} to readers in {}",
                self.node_id, from.reach, declared.reach
            ))),
        }
    }
}

impl Ledger {
    /// Notes what ended a task. The whole text of what may quote rows stands in this node's log alone.
    fn note_failure(&self, task: &TaskId, error: &DataFusionError) {
        let mut tasks = self.tasks.lock();
        let Some(declared) = tasks.get_mut(task).filter(|declared| declared.errors.is_limited()) else { return };
        if !may_quote_rows(error) {
            declared.harmless = true;
            return;
        }
        let error = from_datafusion(error);
        if declared.quoting.replace(error.class()).is_none() {
            tracing::warn!(node = self.node_id, task = task.header(), regions = %declared.errors, %error, "a task over pinned rows failed");
        }
    }

    /// What a caller beyond the border of `errors` is told instead of the error that ended a task; nothing where it may have the error itself.
    pub fn instead_of_error(&self, task: &TaskId, caller: Option<&str>, errors: &Reach, encoded: bool) -> Option<Status> {
        if errors.allows(caller) {
            return None;
        }
        // A task may be forgotten before its last reader is told.
        let noted = self.tasks.lock().get(task).map(|declared| (declared.quoting, declared.harmless));
        let (quoting, harmless) = noted.unwrap_or_default();
        // What the library says of its own, without an encoded error, quotes nothing. An error that nobody noted may.
        if quoting.is_none() && (!encoded || harmless) {
            return None;
        }
        let text = format!(
            "a task of fragment {} failed on node {} over rows that must stay in {}: the reason may quote them, and is in that node's log",
            task.fragment, self.node_id, errors
        );
        Some(match quoting {
            // Details tell it from a connection that broke.
            None | Some(ErrorClass::Bug) => Status::with_details(Code::Internal, text, Bytes::from_static(b"bowshot")),
            Some(_) => Status::invalid_argument(text),
        })
    }
}

/// The task that a session of a worker runs, for what it reads from others.
pub struct ReadingTask {
    /// The task.
    pub task: TaskId,
    /// Where it was declared.
    pub ledger: Arc<Ledger>,
}

impl ReadingTask {
    /// Notes what ended the task.
    pub fn failed(&self, error: &DataFusionError) {
        self.ledger.note_failure(&self.task, error);
    }
}

/// The region that a caller is in: what it says, if its certificate does not say otherwise.
pub fn caller_region(headers: &HeaderMap, extensions: &http::Extensions) -> Option<String> {
    let said = headers.get(CALLER_REGION_HEADER)?.to_str().ok()?.to_string();
    let identity = Peer::of(extensions).ok().and_then(|peer| peer.identity.clone());
    let proven = identity.is_none_or(|identity| {
        // The coordinator's certificate may name its region, and need not.
        identity.regions.contains(&said) || (identity.coordinator && identity.regions.is_empty())
    });
    proven.then_some(said)
}

/// Follows rows for a worker, which knows files and nothing of what other tasks send.
struct Rows<'a> {
    ledger: &'a Ledger,
    /// Every pinned file that is read.
    all: Vec<(String, Reach)>,
    /// Fragments that are read from.
    reads: Vec<(Uuid, u64)>,
}

/// What a task puts out as rows.
#[derive(Default)]
struct Out {
    files: Vec<(String, Reach)>,
    fragments: Vec<(Uuid, u64)>,
}

impl Follow for Rows<'_> {
    type Label = Out;

    fn leaf(&mut self, leaf: &Arc<dyn ExecutionPlan>) -> Result<Out> {
        let source = leaf.downcast_ref::<DataSourceExec>().map(|leaf| leaf.data_source());
        let Some(scan) = source.and_then(|source| source.downcast_ref::<FileScanConfig>()) else { return Ok(Out::default()) };
        let url = scan.object_store_url.as_ref() as &Url;
        let store = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let mut files = vec![];
        for file in scan.file_groups.iter().flat_map(|group| group.files()) {
            let path = file.object_meta.location.as_ref();
            let reach = self.ledger.reach(&store, path)?;
            if let Some(region) = self.ledger.volume_regions.get(&store).filter(|region| !reach.allows(Some(region))) {
                return self.ledger.denied(format!("{store}/{path} is pinned to {reach}, and its volume lies in {region} here"));
            }
            if reach.is_limited() {
                files.push((format!("{store}/{path}"), reach));
            }
        }
        self.all.extend(files.iter().cloned());
        Ok(Out { files, fragments: vec![] })
    }

    fn boundary(&mut self, boundary: &dyn NetworkBoundary, _: &str) -> Result<Out> {
        let stage: &Stage = boundary.input_stage();
        let from = (stage.query_id(), stage.num() as u64);
        self.reads.push(from);
        Ok(Out { files: vec![], fragments: vec![from] })
    }

    fn both(mut left: Out, right: Out) -> Out {
        left.files.extend(right.files);
        left.fragments.extend(right.fragments);
        left
    }
}
