//! Memory for what functions make: known before a function runs, and held for as long as its result lives.
//!
//! ```text
//!   while a statement is planned    a constant may have so much, all of a statement together so much; a call beyond is left for the rows
//!   while it runs                   the query's pool on that node must have it; the largest buffer of the result carries the reservation
//! ```
//!
//! Operators that keep rows account for all that they keep: their children [hand their batches over](HandsOver), so that nothing counts twice.

use super::in_place::{InPlace, InPlaceExec};
use crate::limits;
use crate::planning_scope::{is_planning, take_constant};
use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch, make_array};
use arrow::buffer::Buffer;
use bytes::Bytes;
use datafusion::common::config::{ConfigEntry, ConfigExtension, ConfigOptions, ExtensionOptions};
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::StreamExt;
use parking_lot::Mutex;
use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The part of a task's configuration that knows its query's memory. It does not travel: each node puts its own there.
#[derive(Debug, Clone)]
pub struct FunctionMemory(Arc<Made>);

#[derive(Debug)]
struct Made {
    consumer: MemoryReservation,
    /// Reservations of results that live, by the place of their largest buffer.
    held: Mutex<HashMap<usize, MemoryReservation>>,
}

impl ConfigExtension for FunctionMemory {
    const PREFIX: &'static str = "bowshot_function_memory";
}

impl ExtensionOptions for FunctionMemory {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }
    fn set(&mut self, key: &str, _: &str) -> Result<()> {
        plan_err!("'{key}' is not a setting")
    }
    fn entries(&self) -> Vec<ConfigEntry> {
        vec![]
    }
}

impl FunctionMemory {
    /// Of a pool.
    pub fn new(pool: &Arc<dyn MemoryPool>) -> Self {
        let consumer = MemoryConsumer::new("results of functions").register(pool);
        Self(Arc::new(Made { consumer, held: Mutex::default() }))
    }

    /// Memory for a result of so many bytes.
    fn reserve(&self, bytes: usize) -> Result<MemoryReservation> {
        let reservation = self.0.consumer.new_empty();
        reservation.try_grow(bytes)?;
        Ok(reservation)
    }

    /// The array, which keeps the reservation for as long as it lives.
    fn owned(&self, array: ArrayRef, held: MemoryReservation) -> Result<ArrayRef> {
        let bytes = array.get_array_memory_size();
        if bytes < limits::FUNCTION_FREE_BYTES {
            return Ok(array);
        }
        // What a function has made is there: the account follows it.
        held.resize(bytes);
        let data = array.to_data();
        let Some(place) = largest(&data).map(|buffer| buffer.as_ptr() as usize) else { return Ok(array) };
        self.0.held.lock().insert(place, held);
        let owner = Owner { place, made: self.0.clone(), buffer: Buffer::default() };
        Ok(make_array(with_owner(data, &mut Some(owner))?))
    }

    /// Ends the account of what a batch holds.
    fn hand_over(&self, batch: &RecordBatch) {
        let mut held = self.0.held.lock();
        if held.is_empty() {
            return;
        }
        for column in batch.columns() {
            each_buffer(&column.to_data(), &mut |buffer| drop(held.remove(&(buffer.as_ptr() as usize))));
        }
    }
}

/// A buffer of an array, with the reservation for all of the array.
struct Owner {
    place: usize,
    made: Arc<Made>,
    buffer: Buffer,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.made.held.lock().remove(&self.place);
    }
}

fn each_buffer<'a>(data: &'a ArrayData, see: &mut impl FnMut(&'a Buffer)) {
    data.buffers().iter().for_each(&mut *see);
    data.child_data().iter().for_each(|child| each_buffer(child, see));
}

fn largest(data: &ArrayData) -> Option<&Buffer> {
    let mut largest: Option<&Buffer> = None;
    each_buffer(data, &mut |buffer| {
        if largest.is_none_or(|known| buffer.len() > known.len()) {
            largest = Some(buffer);
        }
    });
    largest
}

/// The same data, in which the buffer at the owner's place belongs to the owner.
fn with_owner(data: ArrayData, owner: &mut Option<Owner>) -> Result<ArrayData> {
    let place = owner.as_ref().map(|owner| owner.place);
    let mut own = |buffer: &Buffer| match owner.take_if(|_| Some(buffer.as_ptr() as usize) == place) {
        Some(mut owner) => {
            owner.buffer = buffer.clone();
            Buffer::from(Bytes::from_owner(owner))
        }
        None => buffer.clone(),
    };
    let buffers = data.buffers().iter().map(&mut own).collect();
    let children = data.child_data().iter().map(|child| with_owner(child.clone(), owner)).collect::<Result<_>>()?;
    Ok(data.into_builder().buffers(buffers).child_data(children).build()?)
}

/// What a function is about to make.
pub struct Making<'a> {
    /// Its name.
    pub function: &'a str,
    /// Bytes of the result, or more.
    pub bytes: usize,
    /// Rows of it.
    pub rows: usize,
    /// Whether it is a list.
    pub is_list: bool,
}

/// Memory that was found for a result.
pub enum Found {
    /// It is a constant of a plan.
    Constant,
    /// It is of rows.
    OfRows(FunctionMemory, MemoryReservation),
}

impl Found {
    /// The array with what was found for it.
    pub fn for_array(self, array: ArrayRef) -> Result<ArrayRef> {
        match self {
            Self::Constant => Ok(array),
            Self::OfRows(memory, held) => memory.owned(array, held),
        }
    }
}

/// Looks for memory for a result.
///
/// # Errors
/// `ResourcesExhausted` where there is none.
pub fn find(making: &Making, config: &ConfigOptions) -> Result<Found> {
    let Making { function, bytes, rows, is_list } = making;
    let memory = match config.extensions.get::<FunctionMemory>() {
        Some(memory) if !is_planning() => memory,
        _ => {
            let bytes_max = if *is_list { limits::CONSTANT_LIST_BYTES_MAX } else { limits::CONSTANT_BYTES_MAX };
            take_constant(function, *bytes, bytes_max)?;
            return Ok(Found::Constant);
        }
    };
    if *bytes > limits::FUNCTION_BYTES_MAX {
        return Err(DataFusionError::ResourcesExhausted(format!(
            "{function} would make {bytes} bytes of {rows} row(s) at once, more than the limit of {}: ask for shorter results, or for fewer rows \
             with SET datafusion.execution.batch_size",
            limits::FUNCTION_BYTES_MAX
        )));
    }
    match memory.reserve(*bytes) {
        Ok(held) => Ok(Found::OfRows(memory.clone(), held)),
        Err(DataFusionError::ResourcesExhausted(cause)) => {
            Err(DataFusionError::ResourcesExhausted(format!("{function} would make {bytes} bytes of {rows} row(s) at once; {cause}")))
        }
        Err(other) => Err(other),
    }
}

/// Stands in for a node whose batches are kept, and accounted for, by the node above it.
#[derive(Debug)]
pub struct HandsOver;

impl HandsOver {
    /// The node, whose batches count for the one above it from now on.
    pub fn from(node: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        InPlaceExec::over(node, Arc::new(Self))
    }
}

impl InPlace for HandsOver {
    fn execute(&self, node: &Arc<dyn ExecutionPlan>, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = context.session_config().options().extensions.get::<FunctionMemory>().cloned();
        let batches = node.execute(partition, context)?.inspect(move |batch| {
            if let (Ok(batch), Some(memory)) = (batch, &memory) {
                memory.hand_over(batch);
            }
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(node.schema(), batches)))
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Owner({} bytes)", self.buffer.len())
    }
}
