//! What holds while a statement is planned: a bound on the constants that it makes, and whether anybody still waits for its plan.
//!
//! Steps of planning are functions that run to their end. Long ones run in a [task of their own](apart), so that a cancel or a deadline ends the wait;
//! rules [look](Abandonable) between two steps whether there is somebody, and planning ends soon after.

use crate::cpu_runtime::aside;
use crate::error::{Error, ErrorClass};
use crate::limits;
use crate::port::panics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use std::cell::RefCell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// One statement that is planned.
#[derive(Default)]
struct Scope {
    /// Bytes of constants so far.
    made: usize,
    /// Set when nobody waits any more.
    abandoned: Option<Arc<AtomicBool>>,
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Runs a step of planning in its scope.
fn step<T>(scope: &mut Option<Scope>, step: impl FnOnce() -> T) -> T {
    struct Swapped<'a>(&'a mut Option<Scope>);
    impl Drop for Swapped<'_> {
        fn drop(&mut self) {
            SCOPE.with_borrow_mut(|current| std::mem::swap(current, self.0));
        }
    }
    SCOPE.with_borrow_mut(|current| std::mem::swap(current, scope));
    let _back = Swapped(scope);
    step()
}

/// Plans here: a part of what is planned already, or a statement.
pub async fn planning<F: Future>(plans: F) -> F::Output {
    if is_planning() { plans.await } else { within(Scope::default(), plans).await }
}

async fn within<F: Future>(scope: Scope, plans: F) -> F::Output {
    let (mut plans, mut scope) = (pin!(plans), Some(scope));
    poll_fn(|context| step(&mut scope, || plans.as_mut().poll(context))).await
}

/// Plans in a task of its own, which ends soon after whoever waits for it has gone.
///
/// # Errors
/// When planning panics.
pub async fn apart<T: Send + 'static>(cpu: &Handle, id: Uuid, plans: impl Future<Output = T> + Send + 'static) -> Result<T, Error> {
    let flag = Arc::new(AtomicBool::new(false));
    let scope = Scope { made: 0, abandoned: Some(flag.clone()) };
    let mut task = Waiting { task: cpu.spawn(aside(within(scope, plans), true)), flag };
    match (&mut task.task).await {
        Ok(planned) => Ok(planned),
        Err(error) if error.is_panic() => Err(panics::told("planning", id, &*error.into_panic())),
        Err(_) => Err(abandoned()),
    }
}

struct Waiting<T> {
    task: JoinHandle<T>,
    flag: Arc<AtomicBool>,
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        self.flag.store(true, Ordering::Release);
        self.task.abort();
    }
}

fn abandoned() -> Error {
    Error::new(ErrorClass::Cancelled, "planning was given up: nobody waits for the statement")
}

/// Whether this thread plans a statement now.
pub fn is_planning() -> bool {
    SCOPE.with_borrow(Option::is_some)
}

/// Takes bytes for a constant that a function is about to make.
///
/// # Errors
/// Where the constants of the statement have no more room. Who folds constants leaves the call where it is then: it runs with the query's memory.
pub fn take_constant(function: &str, bytes: usize, bytes_max: usize) -> Result<()> {
    SCOPE.with_borrow_mut(|scope| {
        let after = scope.as_ref().map_or(0, |scope| scope.made).saturating_add(bytes);
        if bytes > bytes_max || after > limits::CONSTANTS_BYTES_MAX {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{function} would make a constant of {bytes} bytes while the statement is planned; one may have {bytes_max}, and all of a statement {}",
                limits::CONSTANTS_BYTES_MAX
            )));
        }
        if let Some(scope) = scope {
            scope.made = after;
        }
        Ok(())
    })
}

fn check_waiting() -> Result<()> {
    let gone = SCOPE.with_borrow(|scope| {
        let flag = scope.as_ref().and_then(|scope| scope.abandoned.as_ref());
        flag.is_some_and(|flag| flag.load(Ordering::Acquire))
    });
    if gone { Err(abandoned().into()) } else { Ok(()) }
}

/// A rule that ends planning when nobody waits for it.
pub struct Abandonable<R: ?Sized>(Arc<R>);

/// The rules, each of which looks whether anybody waits.
pub fn logical(rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    rules.into_iter().map(|rule| Arc::new(Abandonable(rule)) as _).collect()
}

/// The same of physical rules.
pub fn physical(rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>>) -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    rules.into_iter().map(|rule| Arc::new(Abandonable(rule)) as _).collect()
}

impl fmt::Debug for Abandonable<dyn OptimizerRule + Send + Sync> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Abandonable").field(&self.0.name()).finish()
    }
}

impl fmt::Debug for Abandonable<dyn PhysicalOptimizerRule + Send + Sync> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Abandonable").field(&self.0.name()).finish()
    }
}

impl OptimizerRule for Abandonable<dyn OptimizerRule + Send + Sync> {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }
    fn supports_rewrite(&self) -> bool {
        true
    }
    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        check_waiting()?;
        self.0.rewrite(plan, config)
    }
}

impl PhysicalOptimizerRule for Abandonable<dyn PhysicalOptimizerRule + Send + Sync> {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        check_waiting()?;
        self.0.optimize(plan, config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn constants_of_one_statement_are_bounded_together() {
        let one = limits::CONSTANT_BYTES_MAX;
        planning(async {
            assert!(is_planning());
            for _ in 0..limits::CONSTANTS_BYTES_MAX / one {
                take_constant("repeat", one, one).unwrap();
            }
            tokio::task::yield_now().await;
            assert!(take_constant("repeat", one, one).is_err(), "the next step knows of the one before");
        })
        .await;
        assert!(!is_planning());
        assert!(take_constant("repeat", one, one).is_ok() && take_constant("repeat", one + 1, one).is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn planning_ends_when_nobody_waits() {
        let (tell, told) = std::sync::mpsc::channel();
        let endless = async move {
            while check_waiting().is_ok() {
                std::thread::yield_now();
            }
            tell.send(()).unwrap();
        };
        let cpu = Handle::current();
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), apart(&cpu, Uuid::nil(), endless));
        assert!(waits.await.is_err());
        tokio::task::block_in_place(|| told.recv_timeout(std::time::Duration::from_secs(20))).unwrap();
    }
}
