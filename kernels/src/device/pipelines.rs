//! Compiled kernels: by the shape of their plans, in memory and in a file that outlives the process, and compiled beside queries where those
//! can be answered meanwhile.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use wgpu::*;

use super::copies::RecentlyUsed;
use super::faults::Faults;
use super::wgsl::{LOWER_WORDS, MAIN, Shader};
use super::with_error_scopes;
use crate::error::KernelError;
use crate::limits::{COMPILING_MAX, PIPELINE_FILE_BYTES_MAX, PIPELINES_MAX};

/// The storage bindings before the columns.
pub(super) const FIXED_BINDINGS: u32 = 3;

/// One shape's pipelines.
pub(super) struct Pipeline {
    pub main: ComputePipeline,
    /// The second pass, where there is one.
    pub lower_words: Option<ComputePipeline>,
    pub bindings: BindGroupLayout,
}

/// What a pipeline is made of.
struct Request {
    source: String,
    columns: u32,
    two_passes: bool,
}

/// What the thread beside queries is asked for.
enum Ask {
    /// To compile it.
    Compile(Request),
    /// To write down what is compiled.
    Store,
}

/// The compiled kernels of one device.
pub(super) struct Pipelines {
    device: Device,
    faults: Arc<Faults>,
    ready: Mutex<RecentlyUsed<String, Arc<Pipeline>>>,
    stored: Option<Stored>,
    /// What is being compiled beside queries, and why what could not be could not.
    asked: Mutex<HashMap<String, Option<String>>>,
    /// To the thread that compiles; started when first needed.
    compiler: Mutex<Option<SyncSender<Ask>>>,
}

impl Pipelines {
    /// `file` keeps them over the process's end, if the device can write them down.
    pub(super) fn new(device: Device, faults: Arc<Faults>, file: Option<PathBuf>) -> Self {
        let has_cache = device.features().contains(Features::PIPELINE_CACHE);
        let stored = file.filter(|_| has_cache).map(|file| Stored::open(&device, file));
        Self {
            device,
            faults,
            ready: Mutex::new(RecentlyUsed::new(PIPELINES_MAX)),
            stored,
            asked: Mutex::default(),
            compiler: Mutex::default(),
        }
    }

    /// The pipeline, compiled here and now if it is not there. The caller holds the error scopes.
    pub(super) fn get(self: &Arc<Self>, shader: &Shader) -> Arc<Pipeline> {
        if let Some(known) = self.ready.lock().get(&shader.source) {
            return known;
        }
        let pipeline = self.compile(&Request::of(shader));
        self.ready.lock().insert(shader.source.clone(), Arc::clone(&pipeline));
        if self.stored.is_some() {
            self.ask(Ask::Store);
        }
        pipeline
    }

    /// Whether the pipeline is there. If not, it is compiled beside; one that could not be is declined from then on.
    pub(super) fn is_ready(self: &Arc<Self>, shader: &Shader) -> Result<bool, KernelError> {
        if self.ready.lock().get(&shader.source).is_some() {
            return Ok(true);
        }
        let mut asked = self.asked.lock();
        if let Some(known) = asked.get(&shader.source) {
            let Some(error) = known else { return Ok(false) };
            return Err(KernelError::declined(format!("device: the kernel does not compile: {error}")));
        }
        if asked.len() < COMPILING_MAX && self.ask(Ask::Compile(Request::of(shader))) {
            asked.insert(shader.source.clone(), None);
        }
        Ok(false)
    }

    #[cfg(test)]
    pub(super) fn is_stored(&self) -> bool {
        self.stored.is_some()
    }

    /// Forgets all: under an error some may be no good.
    pub(super) fn clear(&self) {
        self.ready.lock().clear();
    }

    /// Leaves work to the thread beside queries, unless it has too much.
    fn ask(self: &Arc<Self>, ask: Ask) -> bool {
        let compiler = &mut *self.compiler.lock();
        if compiler.is_none() {
            let (sender, requests) = mpsc::sync_channel(COMPILING_MAX);
            let pipelines = Arc::downgrade(self);
            let started = std::thread::Builder::new().name("bowshot-compile".into()).spawn(move || {
                while let Ok(ask) = requests.recv() {
                    let Some(pipelines) = Weak::upgrade(&pipelines) else { return };
                    if let Ask::Compile(request) = ask {
                        pipelines.compile_beside(request);
                    }
                    pipelines.stored.iter().for_each(Stored::write);
                }
            });
            match started {
                Ok(_) => *compiler = Some(sender),
                Err(error) => tracing::warn!(%error, "no thread compiles kernels: queries wait for theirs"),
            }
        }
        compiler.as_ref().is_some_and(|compiler| compiler.try_send(ask).is_ok())
    }

    fn compile_beside(&self, request: Request) {
        let (pipeline, error) = with_error_scopes(&self.device, || self.compile(&request));
        match error {
            None => {
                self.ready.lock().insert(request.source.clone(), pipeline);
                self.asked.lock().remove(&request.source);
            }
            Some(error) => {
                tracing::warn!(error, "a kernel does not compile: the host has its queries");
                self.asked.lock().insert(request.source, Some(error));
            }
        }
    }

    fn compile(&self, request: &Request) -> Arc<Pipeline> {
        let entries: Vec<BindGroupLayoutEntry> = (0..FIXED_BINDINGS + request.columns)
            .map(|binding| BindGroupLayoutEntry {
                binding,
                visibility: ShaderStages::COMPUTE,
                ty: BindingType::Buffer {
                    ty: BufferBindingType::Storage { read_only: binding != 1 },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let bindings = self.device.create_bind_group_layout(&BindGroupLayoutDescriptor { label: None, entries: &entries });
        let layout = self.device.create_pipeline_layout(&PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: &[Some(&bindings)],
            immediate_size: 0,
        });
        let source = if self.faults.fails_shader() { "no shader" } else { request.source.as_str() };
        let module = self
            .device
            .create_shader_module(ShaderModuleDescriptor { label: Some("hot aggregation"), source: ShaderSource::Wgsl(source.into()) });
        let pass = |entry_point| {
            self.device.create_compute_pipeline(&ComputePipelineDescriptor {
                label: Some("hot aggregation"),
                layout: Some(&layout),
                module: &module,
                entry_point: Some(entry_point),
                compilation_options: PipelineCompilationOptions::default(),
                cache: self.stored.as_ref().map(|stored| &stored.cache),
            })
        };
        Arc::new(Pipeline { main: pass(MAIN), lower_words: request.two_passes.then(|| pass(LOWER_WORDS)), bindings })
    }
}

impl Request {
    fn of(shader: &Shader) -> Self {
        Self { source: shader.source.clone(), columns: shader.columns.len() as u32, two_passes: shader.two_passes }
    }
}

/// The driver's own form of compiled kernels, in a file. A file that is damaged, or of another driver, is as good as none.
struct Stored {
    cache: PipelineCache,
    file: PathBuf,
    /// Checksum of what the file holds.
    written: Mutex<Option<u64>>,
}

impl Stored {
    fn open(device: &Device, file: PathBuf) -> Self {
        let data = read(&file);
        let descriptor = PipelineCacheDescriptor { label: Some("hot aggregations"), data: data.as_deref(), fallback: true };
        // SAFETY: the data were written by `write` and have their checksum; wgpu and the driver refuse those of another version.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Self { cache, file, written: Mutex::new(data.as_deref().map(checksum)) }
    }

    fn write(&self) {
        let mut written = self.written.lock();
        let Some(data) = self.cache.get_data().filter(|data| data.len() as u64 <= PIPELINE_FILE_BYTES_MAX) else { return };
        let sum = checksum(&data);
        if *written == Some(sum) {
            return;
        }
        if let Err(error) = replace(&self.file, sum, &data) {
            tracing::warn!(%error, file = %self.file.display(), "compiled kernels cannot be written: they are compiled again after a restart");
        }
        // A folder that cannot be written is not tried at every query.
        *written = Some(sum);
    }
}

/// What [`replace`] wrote; `None` for anything else.
fn read(file: &Path) -> Option<Vec<u8>> {
    if std::fs::metadata(file).ok()?.len() > PIPELINE_FILE_BYTES_MAX + 8 {
        return None;
    }
    let mut bytes = std::fs::read(file).ok()?;
    let sum = u64::from_le_bytes(*bytes.first_chunk()?);
    bytes.drain(..8);
    (checksum(&bytes) == sum).then_some(bytes)
}

/// At once, so that a process that ends midway leaves the old file.
fn replace(file: &Path, sum: u64, data: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&beside, [&sum.to_le_bytes(), data].concat())?;
    std::fs::rename(&beside, file).inspect_err(|_| drop(std::fs::remove_file(&beside)))
}

fn checksum(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernels").join("of-one-card");
        replace(&file, checksum(b"compiled"), b"compiled").unwrap();
        assert_eq!(read(&file).as_deref(), Some(&b"compiled"[..]));
        let mut bytes = std::fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(read(&file), None);
        std::fs::write(&file, b"short").unwrap();
        assert_eq!(read(&file), None);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }
}
