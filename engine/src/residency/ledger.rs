//! A worker's own side of the rules: what it knows of files, and where each task's rows may go.

use super::flow::{Follow, follow};
use super::policy::Policy;
use super::{CALLER_REGION_HEADER, REGIONS_HEADER, Reach, TASK_HEADER};
use crate::cluster_tls::Peer;
use crate::error::{Error, ErrorClass};
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::Result;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_distributed::{NetworkBoundary, Stage, TaskKey};
use http::HeaderMap;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use tonic::Status;
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
}

/// The rules and the tasks of one worker. One a node.
pub struct Ledger {
    node_id: String,
    region: String,
    /// `None` until the coordinator has told them: nothing stored is read before.
    policy: RwLock<Option<Arc<Policy>>>,
    tasks: Mutex<HashMap<TaskId, Declared>>,
}

impl Ledger {
    /// Of a node without rules yet.
    pub fn new(node_id: &str, region: &str) -> Self {
        Self { node_id: node_id.into(), region: region.into(), policy: RwLock::default(), tasks: Mutex::default() }
    }

    /// Takes the coordinator's rules.
    pub fn learn(&self, policy: Policy) {
        tracing::info!(node = self.node_id, version = policy.version, pins = policy.pins.len(), "rules of residency");
        *self.policy.write() = Some(Arc::new(policy));
    }

    /// Version of the rules that are known.
    pub fn policy_version(&self) -> Option<i64> {
        self.policy.read().as_ref().map(|policy| policy.version)
    }

    fn policy(&self) -> crate::error::Result<Arc<Policy>> {
        self.policy.read().clone().ok_or_else(|| {
            Error::retry(format!("node {} has not heard the coordinator's rules of residency yet: try again in a moment", self.node_id))
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
        let reach = headers.get(REGIONS_HEADER).and_then(|value| value.to_str().ok()).map_or_else(Reach::anywhere, Reach::parse);
        let mut rows = Rows { ledger: self, all: vec![] };
        let out = follow(plan, &mut rows)?;
        for (file, allowed) in &rows.all {
            if !allowed.allows(Some(&self.region)) {
                return self.denied(format!("{file} is pinned to {allowed}, and node {} is in {}", self.node_id, self.region));
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
            tasks.insert(task, Declared { reach, reads_rows_of: out.fragments });
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

    /// Whether a caller may read from a task. Returns where the task's rows may go.
    ///
    /// # Errors
    /// When the task is unknown, or the caller is beyond its border.
    pub fn read(&self, task: &TaskId, caller: Option<&str>) -> Result<Reach, Status> {
        let Some(declared) = self.tasks.lock().get(task).cloned() else {
            return Err(Status::permission_denied(format!(
                "task {} of node {} was not declared: nobody may read from it",
                task.header(),
                self.node_id
            )));
        };
        if declared.reach.allows(caller) {
            return Ok(declared.reach);
        }
        let caller = caller.unwrap_or("an unknown region");
        tracing::warn!(node = self.node_id, task = task.header(), caller, "reader refused");
        Err(Status::permission_denied(format!(
            "rows of this task of node {} must stay in {}; the reader is in {caller}",
            self.node_id, declared.reach
        )))
    }

    /// Whether a task may take in rows that may go no further than `reach`.
    ///
    /// # Errors
    /// [`ErrorClass::Denied`] when it has declared that its own go further.
    pub fn takes_in(&self, task: &TaskId, from: (Uuid, u64), reach: &Reach) -> Result<()> {
        let Some(declared) = self.tasks.lock().get(task).cloned() else { return Ok(()) };
        if !reach.allows(Some(&self.region)) {
            return self.denied(format!("it reads rows that must stay in {reach}, and the node is in {}", self.region));
        }
        if declared.reads_rows_of.contains(&from) && !declared.reach.is_within(reach) {
            return self.denied(format!("it passes on rows that must stay in {reach} to readers in {}", declared.reach));
        }
        Ok(())
    }

    /// Checks what a task reads from other tasks of this very node, whose rows do not come over a connection.
    ///
    /// # Errors
    /// As [`Self::takes_in`].
    pub fn check_own(&self, task: &TaskId) -> Result<(), Status> {
        let tasks = self.tasks.lock();
        let Some(declared) = tasks.get(task).filter(|declared| !declared.reads_rows_of.is_empty()) else { return Ok(()) };
        let beyond = tasks.iter().find(|(other, from)| {
            declared.reads_rows_of.contains(&(other.query, other.fragment)) && !declared.reach.is_within(&from.reach)
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

/// The task that a session of a worker runs, for what it reads from others.
pub struct ReadingTask {
    /// The task.
    pub task: TaskId,
    /// Where it was declared.
    pub ledger: Arc<Ledger>,
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
            if reach.is_limited() {
                files.push((format!("{store}/{path}"), reach));
            }
        }
        self.all.extend(files.iter().cloned());
        Ok(Out { files, fragments: vec![] })
    }

    fn boundary(&mut self, boundary: &dyn NetworkBoundary, _: &str) -> Result<Out> {
        let stage: &Stage = boundary.input_stage();
        Ok(Out { files: vec![], fragments: vec![(stage.query_id(), stage.num() as u64)] })
    }

    fn both(mut left: Out, right: Out) -> Out {
        left.files.extend(right.files);
        left.fragments.extend(right.fragments);
        left
    }
}
