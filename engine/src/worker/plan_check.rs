//! What a worker checks of every plan before it runs, and how it rewrites it.

use super::published::PartId;
use super::{GONE_TEXT, VERSION_TEXT, WorkerNode, fault, inventory};
use crate::config::{BowshotOptions, CacheAction};
use crate::error::{Error, ErrorClass};
use crate::files::by_name;
use crate::operators::hot_aggregate::HotAggregateExec;
use crate::operators::{cache_columns, in_parts, panic_guard, publish, stand_ins};
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::physical_plan::{FileScanConfig, ParquetSource};
use datafusion::datasource::sink::DataSinkExec;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion_distributed::{WorkerPlanRewriteEvent, WorkerPlanRewriteEventResponse};
use http::HeaderMap;
use std::sync::Arc;

/// Checks and rewrites one task's plan.
pub fn rewrite(node: &WorkerNode, headers: &HeaderMap, event: WorkerPlanRewriteEvent) -> Result<WorkerPlanRewriteEventResponse> {
    check(node, &event.plan)?;
    node.ledger.plan(headers, &event.plan)?;
    let options = event.session_config.options().extensions.get::<BowshotOptions>().cloned().unwrap_or_default();
    let plan = match options.cache_action {
        CacheAction::None => event.plan,
        action => cache_columns::over_scans(event.plan, &node.kernels, action)?,
    };
    let plan = by_name::scans_by_name(plan, &node.runtime)?;
    let plan = plan.transform_up(|plan| match plan.downcast_ref::<AggregateExec>() {
        // Over no rows there is nothing for a kernel to do, nor to decline.
        Some(aggregate)
            // What takes its rows in parts is no matter for one either.
            if *aggregate.mode() == AggregateMode::Partial
                && !aggregate.input().exists(|node| Ok(node.is::<EmptyExec>()))?
                && in_parts::rows_beside_constants(&plan)?.is_none() =>
        {
            let hot = HotAggregateExec::new(aggregate.clone(), node.kernels.clone(), options.kernel);
            Ok(Transformed::yes(Arc::new(hot) as Arc<dyn ExecutionPlan>))
        }
        _ => Ok(Transformed::no(plan)),
    })?;
    let plan = stand_ins::in_fragment(plan.data)?;
    let plan = fault::inject(&node.config.faults, plan)?;
    let plan = panic_guard::guard(plan)?;
    let plan = match PartId::of_headers(headers) {
        Some(part) => publish::over_head(plan, &node.published, part),
        None => plan,
    };
    Ok(WorkerPlanRewriteEventResponse::new(plan))
}

/// Refuses leaves other than Parquet files of known stores in their catalogued version, literal rows, and everything that writes.
fn check(node: &WorkerNode, plan: &Arc<dyn ExecutionPlan>) -> Result<()> {
    let denied = |what: String| -> Result<TreeNodeRecursion> {
        tracing::warn!(node = node.config.node_id, what, "plan refused");
        Err(Error::new(ErrorClass::Denied, format!("worker {} refuses this plan: {what}", node.config.node_id)).into())
    };
    plan.apply(|part| {
        if part.is::<DataSinkExec>() {
            return denied("it writes".into());
        }
        let Some(leaf) = part.downcast_ref::<DataSourceExec>() else {
            return Ok(TreeNodeRecursion::Continue);
        };
        if leaf.data_source().downcast_ref::<MemorySourceConfig>().is_some() {
            return Ok(TreeNodeRecursion::Continue);
        }
        let Some(scan) = leaf.data_source().downcast_ref::<FileScanConfig>() else {
            return denied("it reads from an unknown kind of source".into());
        };
        let url = scan.object_store_url.as_ref() as &url::Url;
        if !matches!(url.scheme(), "node" | "s3") {
            return denied(format!("it reads {url}, which is outside the volumes and configured buckets"));
        }
        if scan.file_source().downcast_ref::<ParquetSource>().is_none() {
            return denied("it reads files that are not Parquet".into());
        }
        if url.scheme() == "node" {
            check_versions(node, scan, url)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn check_versions(node: &WorkerNode, scan: &FileScanConfig, url: &url::Url) -> Result<()> {
    let volume = url.host_str().unwrap_or_default();
    let Some(folder) = node.stores.volume_folder(url) else {
        return Err(Error::new(ErrorClass::Denied, format!("node {} serves no volume '{volume}'", node.config.node_id)).into());
    };
    for planned in scan.file_groups.iter().flat_map(|group| group.files()) {
        let meta = &planned.object_meta;
        let name = format!("node://{}/{volume}/{}", node.config.node_id, meta.location);
        let found = std::fs::metadata(folder.join(meta.location.as_ref())).map_err(|error| {
            let text = match node.volumes.missing().remove(volume) {
                Some(missing) => format!("file {name} {GONE_TEXT}: {missing}"),
                None => format!("file {name} {GONE_TEXT}: {error}; bring it back, or run REFRESH TABLE on its table"),
            };
            Error::new(ErrorClass::Retry, text)
        })?;
        let version = meta.last_modified.timestamp_nanos_opt().unwrap_or(0);
        if found.len() != meta.size || inventory::disk_version(&found) != version {
            return Err(Error::new(
                ErrorClass::Retry,
                format!("file {name} {VERSION_TEXT}: it was replaced on disk; run REFRESH TABLE on its table"),
            )
            .into());
        }
    }
    Ok(())
}
