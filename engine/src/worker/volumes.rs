//! The volumes of a worker: whose they are, and whether the folder that is there is the one that held their files.
//!
//! ```text
//!   <folder>/.bowshot/lock      held by the worker that serves the volume
//!   <folder>/.bowshot/volume    marker: the volume's id, which the coordinator's catalog knows too
//! ```
//!
//! A disk that is not mounted leaves an empty folder, or none. What is written there is lost once the disk is back. So every write first compares
//! the marker with the id that the coordinator expects, and nothing ever makes the folder of a volume. A marker is made only where the catalog
//! knows of no managed file, or where an earlier release has left some.

use crate::control::{ExpectedVolume, FoundVolume, HIDDEN_FOLDER, TABLE_FOLDER};
use crate::error::{Error, ErrorClass, Result, of_io};
use crate::folder_lock::{FolderLock, LockRefused};
use crate::limits;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Marker below a volume's folder.
const MARKER_FILE: &str = ".bowshot/volume";
/// What is locked.
const LOCK_FILE: &str = ".bowshot/lock";

/// All volumes of a node.
pub struct Volumes {
    node_id: String,
    volumes: BTreeMap<String, Volume>,
}

struct Volume {
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    lock: Option<FolderLock>,
    expected: Expected,
    /// Offered where the folder has no id.
    proposed: String,
    /// The coordinator was asked again since the folder has not been the expected one.
    asked: bool,
}

/// What the coordinator knows of a volume.
enum Expected {
    /// It has not said yet.
    Unknown,
    /// A marker with this id may be made: there is nothing to lose.
    New(String),
    /// The marker must have this id.
    Known(String),
}

/// What is wrong with a folder.
enum Problem {
    /// There is no folder.
    Missing,
    /// It has no marker.
    Unmarked,
    /// It has the marker of another volume.
    Another,
    /// The operating system refuses.
    Refused(io::Error),
}

impl Volumes {
    /// Takes the locks of the volumes (name to folder). One that cannot be written is served without: there is nothing to guard.
    ///
    /// # Errors
    /// When another process serves one of them, two are one folder, or a file system has no locks.
    pub fn open(node_id: &str, folders: &BTreeMap<String, PathBuf>) -> Result<Self> {
        let volumes = Self {
            node_id: node_id.to_string(),
            volumes: folders.iter().map(|(name, folder)| (name.clone(), Volume::new(folder.clone()))).collect(),
        };
        let mut known: BTreeMap<PathBuf, &str> = BTreeMap::new();
        for (name, volume) in &volumes.volumes {
            if let Ok(real) = volume.folder.canonicalize()
                && let Some(first) = known.insert(real, name)
            {
                return Err(Error::user(format!(
                    "the volumes '{first}' and '{name}' of node {node_id} are one folder, {}: give each its own",
                    volume.folder.display()
                )));
            }
            match volume.lock(node_id, FolderLock::take_at_start) {
                Ok(lock) => volume.state.lock().lock = Some(lock),
                Err(LockRefused::File(error)) => {
                    tracing::warn!(volume = name, folder = %volume.folder.display(), %error, "the volume cannot be written, and is served as it is");
                }
                Err(why) => return Err(refused(&volumes.named(name, volume), &why)),
            }
        }
        Ok(volumes)
    }

    /// What each folder says of itself, for the coordinator. Blocking.
    pub fn found(&self) -> BTreeMap<String, FoundVolume> {
        let found = |volume: &Volume| FoundVolume {
            is_there: volume.folder.is_dir(),
            id: volume.marker().ok().flatten(),
            proposed: volume.state.lock().proposed.clone(),
        };
        self.volumes.iter().map(|(name, volume)| (name.clone(), found(volume))).collect()
    }

    /// Notes what the coordinator knows, and marks what is new. A coordinator of an earlier release says nothing of volumes. Blocking.
    pub fn note_expected(&self, said: &BTreeMap<String, ExpectedVolume>) {
        for (name, volume) in &self.volumes {
            let mut state = volume.state.lock();
            state.expected = match said.get(name) {
                Some(known) if known.may_be_new || volume.has_table_files() => Expected::New(known.id.clone()),
                Some(known) => Expected::Known(known.id.clone()),
                None => match volume.marker() {
                    Ok(Some(id)) => Expected::Known(id),
                    _ => Expected::New(state.proposed.clone()),
                },
            };
            // One that cannot be written is marked by the first write that can.
            if let Err(Problem::Refused(error)) = volume.check(&mut state) {
                tracing::debug!(volume = name, %error, "the volume has no marker");
            }
        }
    }

    /// The folder of a volume that is about to be written. Blocking.
    ///
    /// # Errors
    /// [`ErrorClass::Storage`] when it is not the folder that the coordinator expects, or cannot be written.
    pub fn writable(&self, name: &str) -> Result<&Path> {
        let Some(volume) = self.volumes.get(name) else {
            return Err(Error::not_found(format!("node {} serves no volume '{name}'", self.node_id)));
        };
        let mut state = volume.state.lock();
        if matches!(state.expected, Expected::Unknown) {
            return Err(Error::retry(format!("node {} has not heard of its volumes from the coordinator yet", self.node_id)));
        }
        volume.check(&mut state).map_err(|problem| self.refusal(name, volume, &state, &problem))?;
        if !state.lock.as_ref().is_some_and(FolderLock::is_in_place) {
            // The one before is another folder's.
            state.lock = None;
            let taken = volume.lock(&self.node_id, FolderLock::take).map_err(|refused| match refused {
                LockRefused::File(error) => of_io(&self.named(name, volume), "cannot be written", &error),
                other => Error::new(ErrorClass::Storage, format!("{} {other}", self.named(name, volume))),
            });
            state.lock = Some(taken?);
        }
        Ok(&volume.folder)
    }

    /// Volumes whose folders are not those that the coordinator expects, with the reason and the way out. Blocking.
    pub fn missing(&self) -> BTreeMap<String, String> {
        let reason = |(name, volume): (&String, &Volume)| {
            let mut state = volume.state.lock();
            match volume.check(&mut state) {
                Ok(()) | Err(Problem::Refused(_)) => None,
                // A volume that nobody has written yet, or that holds others' files alone.
                Err(Problem::Unmarked) if !matches!(state.expected, Expected::Known(_)) => None,
                Err(problem) => Some((name.clone(), self.refusal(name, volume, &state, &problem).message())),
            }
        };
        self.volumes.iter().filter_map(reason).collect()
    }

    /// Whether the coordinator is to be asked about a folder that has come in the place of another; once for each that comes. Blocking.
    pub fn have_changed(&self) -> bool {
        let mut changed = false;
        for volume in self.volumes.values() {
            let mut state = volume.state.lock();
            match volume.check(&mut state) {
                Ok(()) => state.asked = false,
                Err(Problem::Another | Problem::Unmarked) => changed |= !std::mem::replace(&mut state.asked, true),
                Err(Problem::Missing | Problem::Refused(_)) => {}
            }
        }
        changed
    }

    fn named(&self, name: &str, volume: &Volume) -> String {
        format!("volume '{name}' of node {} in {}", self.node_id, volume.folder.display())
    }

    fn refusal(&self, name: &str, volume: &Volume, state: &State, problem: &Problem) -> Error {
        let named = self.named(name, volume);
        let marker = volume.folder.join(MARKER_FILE);
        let found = match problem {
            Problem::Refused(error) => return of_io(&named, "cannot be looked at", error),
            Problem::Missing => "is not there: the folder has vanished".to_string(),
            Problem::Unmarked => "is not there: the folder has no marker file".to_string(),
            Problem::Another => "is not there: the folder holds another volume".to_string(),
        };
        let (Expected::New(id) | Expected::Known(id)) = &state.expected else {
            return Error::new(ErrorClass::Storage, format!("{named} {found}"));
        };
        Error::new(
            ErrorClass::Storage,
            format!("{named} {found}. Mount its disk again; if this folder is to take its place, write {id} into {}", marker.display()),
        )
    }
}

impl Volume {
    fn new(folder: PathBuf) -> Self {
        let state = State { lock: None, expected: Expected::Unknown, proposed: Uuid::new_v4().to_string(), asked: false };
        Self { folder, state: Mutex::new(state) }
    }

    fn lock(
        &self,
        node_id: &str,
        take: impl Fn(&Path, &str) -> std::result::Result<FolderLock, LockRefused>,
    ) -> std::result::Result<FolderLock, LockRefused> {
        make_folder(&self.folder.join(HIDDEN_FOLDER)).map_err(LockRefused::File)?;
        take(&self.folder.join(LOCK_FILE), &format!("worker {node_id}"))
    }

    /// The id in the folder's marker, if it has one.
    fn marker(&self) -> io::Result<Option<String>> {
        let file = match File::open(self.folder.join(MARKER_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = String::new();
        file.take(limits::VOLUME_MARKER_BYTES_MAX).read_to_string(&mut text)?;
        Ok(Some(text.trim().to_string()))
    }

    /// Compares the folder with what is expected of it, and marks one that is new.
    fn check(&self, state: &mut State) -> std::result::Result<(), Problem> {
        match fs::metadata(&self.folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Problem::Missing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Problem::Missing),
            Err(error) => return Err(Problem::Refused(error)),
        }
        let found = self.marker().map_err(Problem::Refused)?;
        let id = match (&state.expected, found) {
            (Expected::Unknown, _) => return Ok(()),
            (Expected::New(id) | Expected::Known(id), Some(found)) if *id == found => id.clone(),
            (_, Some(_)) => return Err(Problem::Another),
            (Expected::Known(_), None) => return Err(Problem::Unmarked),
            (Expected::New(id), None) => {
                self.mark(id).map_err(Problem::Refused)?;
                id.clone()
            }
        };
        state.expected = Expected::Known(id);
        Ok(())
    }

    /// The marker is whole or not there.
    fn mark(&self, id: &str) -> io::Result<()> {
        let (marker, hidden) = (self.folder.join(MARKER_FILE), self.folder.join(HIDDEN_FOLDER));
        make_folder(&hidden)?;
        let partial = marker.with_extension("part");
        let mut file = File::create(&partial)?;
        file.write_all(format!("{id}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, &marker)?;
        File::open(&hidden)?.sync_all()
    }

    /// Whether a release without markers has left files of managed tables here.
    fn has_table_files(&self) -> bool {
        let tables = fs::read_dir(self.folder.join(TABLE_FOLDER)).into_iter().flatten().flatten();
        let mut files = tables.flat_map(|table| fs::read_dir(table.path()).into_iter().flatten().flatten());
        files.any(|file| file.path().extension().is_some_and(|ending| ending == "parquet"))
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made,
    }
}

fn refused(named: &str, why: &LockRefused) -> Error {
    Error::user(format!("{named} {why}, or serve another folder"))
}

/// Who serves a volume, if anybody does, in the words that a start would be refused with.
pub fn in_use(node_id: &str, name: &str, folder: &Path) -> Option<String> {
    let holder = FolderLock::holder_of(&folder.join(LOCK_FILE))?;
    let named = format!("volume '{name}' of node {node_id} in {}", folder.display());
    Some(refused(&named, &LockRefused::Held { holder }).message())
}

/// What a volume's folder says of itself, for people: the id in its marker, and who holds its lock.
pub fn marks(folder: &Path) -> (io::Result<Option<String>>, Option<String>) {
    (Volume::new(folder.to_path_buf()).marker(), FolderLock::holder_of(&folder.join(LOCK_FILE)))
}

/// Makes the folders on the way from a volume's folder to a file below it. The volume's own is never made.
pub fn make_folders(root: &Path, file: &Path) -> io::Result<()> {
    let Some(way) = file.parent().and_then(|folder| folder.strip_prefix(root).ok()) else { return Ok(()) };
    let mut folder = root.to_path_buf();
    for part in way {
        folder.push(part);
        make_folder(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(id: &str, may_be_new: bool) -> BTreeMap<String, ExpectedVolume> {
        BTreeMap::from([("data".to_string(), ExpectedVolume { id: id.into(), may_be_new })])
    }

    /// A scratch folder with the volume `data` below it.
    fn volume() -> (tempfile::TempDir, PathBuf, Volumes) {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("data");
        fs::create_dir(&folder).unwrap();
        let volumes = Volumes::open("node-1", &BTreeMap::from([("data".to_string(), folder.clone())])).unwrap();
        (scratch, folder, volumes)
    }

    #[test]
    fn a_new_volume_is_marked_once_and_kept_apart_from_others() {
        let (scratch, folder, volumes) = volume();
        assert_eq!(volumes.writable("data").unwrap_err().class(), ErrorClass::Retry, "nothing is known of it yet");
        volumes.note_expected(&expected("one", true));
        assert_eq!(volumes.writable("data").unwrap(), folder);
        assert_eq!(fs::read_to_string(folder.join(MARKER_FILE)).unwrap(), "one\n");
        let away = scratch.path().join("away");
        fs::rename(&folder, &away).unwrap();
        let error = volumes.writable("data").unwrap_err();
        assert_eq!(error.class(), ErrorClass::Storage);
        assert!(error.message().contains("volume 'data' of node node-1") && error.message().contains("has vanished"), "{error}");
        assert!(!folder.exists());
        // An empty folder in its place, as of a disk that is not mounted.
        fs::create_dir(&folder).unwrap();
        assert!(volumes.missing()["data"].contains("no marker file"), "{:?}", volumes.missing());
        assert!(volumes.have_changed() && !volumes.have_changed());
        volumes.note_expected(&expected("one", false));
        assert!(volumes.writable("data").is_err() && fs::read_dir(&folder).unwrap().next().is_none());
        fs::create_dir(folder.join(HIDDEN_FOLDER)).unwrap();
        fs::write(folder.join(MARKER_FILE), "two").unwrap();
        assert!(volumes.missing()["data"].contains("another volume"));
        fs::remove_dir_all(&folder).unwrap();
        fs::rename(&away, &folder).unwrap();
        assert!(volumes.missing().is_empty() && volumes.writable("data").is_ok());
    }

    #[test]
    fn files_of_an_earlier_release_make_a_folder_the_volume() {
        let (_scratch, folder, volumes) = volume();
        volumes.note_expected(&expected("one", false));
        assert!(volumes.writable("data").is_err());
        fs::create_dir_all(folder.join(TABLE_FOLDER).join("t")).unwrap();
        fs::write(folder.join(TABLE_FOLDER).join("t/f.parquet"), "").unwrap();
        volumes.note_expected(&expected("one", false));
        assert!(volumes.writable("data").is_ok());
    }

    #[test]
    fn one_worker_has_a_folder() {
        let (_scratch, folder, _volumes) = volume();
        let refused = |folders: &[(&str, &PathBuf)]| {
            let folders = folders.iter().map(|(name, folder)| (name.to_string(), folder.to_path_buf())).collect();
            Volumes::open("node-2", &folders).err().unwrap().message()
        };
        let said = refused(&[("data", &folder)]);
        assert!(said.contains("is in use by worker node-1, process") && said.contains("'data'"), "{said}");
        let other = tempfile::tempdir().unwrap();
        let path = other.path().to_path_buf();
        assert!(refused(&[("a", &path), ("b", &path)]).contains("are one folder"));
    }
}
