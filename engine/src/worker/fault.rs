//! Faults injected on purpose, for tests of failure paths with real processes. Off unless `worker.faults` names one.
//!
//! - `panic-in-scan`: every scan panics on its second batch.
//! - `panic-in-head`: the fragment's head operator panics on its first batch.
//! - `slow-scan`: every batch of a scan takes 200 ms.
//! - `slow-listing`: a listing of the volumes takes six seconds, as on a disk that does not answer.
//! - `device-allocation-N`, `device-shader-N`, `device-loss-N`: the device's Nth buffer finds no memory, its Nth shader does not compile, or
//!   it is lost in its Nth dispatch.

use crate::error::Error;
use crate::operators::in_place::{InPlace, InPlaceExec};
use bowshot_kernels::DeviceFaults;
use datafusion::catalog::memory::DataSourceExec;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;

/// Starts the names of faults of the device.
const ON_DEVICE: &str = "device-";

const SLOW_LISTING: &str = "slow-listing";

/// Holds up a listing of the volumes, if that is one of the named faults. Blocking.
pub fn hold_up_listing(names: &[String]) {
    if names.iter().any(|name| name == SLOW_LISTING) {
        std::thread::sleep(Duration::from_secs(6));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    PanicAtBatch(usize),
    Slow(Duration),
}

/// The named faults that are about the device.
pub fn of_device(names: &[String]) -> Result<DeviceFaults, Error> {
    let mut faults = DeviceFaults::default();
    for name in names.iter().filter(|name| name.starts_with(ON_DEVICE)) {
        let unknown = || Error::user(format!("worker.faults names the unknown fault '{name}'"));
        let (kind, call) = name[ON_DEVICE.len()..].split_once('-').ok_or_else(unknown)?;
        let call = Some(call.parse().map_err(|_| unknown())?);
        match kind {
            "allocation" => faults.allocation = call,
            "shader" => faults.shader = call,
            "loss" => faults.loss = call,
            _ => return Err(unknown()),
        }
    }
    Ok(faults)
}

/// Wraps the nodes that the named faults are about.
pub fn inject(faults: &[String], mut plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    for name in faults.iter().filter(|name| !name.starts_with(ON_DEVICE) && *name != SLOW_LISTING) {
        let wrap = |node: Arc<dyn ExecutionPlan>, fault: Fault| InPlaceExec::over(node, Arc::new(fault));
        let on_scans = |plan: Arc<dyn ExecutionPlan>, fault| {
            let wrapped = plan.transform_up(|node| {
                Ok(if node.is::<DataSourceExec>() { Transformed::yes(wrap(node, fault)) } else { Transformed::no(node) })
            });
            wrapped.map(|done| done.data)
        };
        plan = match name.as_str() {
            "panic-in-scan" => on_scans(plan, Fault::PanicAtBatch(2))?,
            "slow-scan" => on_scans(plan, Fault::Slow(Duration::from_millis(200)))?,
            "panic-in-head" => wrap(plan, Fault::PanicAtBatch(1)),
            other => return Err(Error::user(format!("worker.faults names the unknown fault '{other}'")).into()),
        };
    }
    Ok(plan)
}

impl InPlace for Fault {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let fault = *self;
        let mut seen = 0;
        let stream = node.execute(partition, context)?.then(move |batch| {
            seen += 1;
            if fault == Fault::PanicAtBatch(seen) {
                panic!("injected by worker.faults");
            }
            async move {
                if let Fault::Slow(wait) = fault {
                    tokio::time::sleep(wait).await;
                }
                batch
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), stream)))
    }
}
