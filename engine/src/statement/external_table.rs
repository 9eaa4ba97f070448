//! CREATE EXTERNAL TABLE and REFRESH TABLE: which files are at a location now, where their copies are, and whether their columns agree.

use crate::catalog::location::Location;
use crate::catalog::store::{NewFile, NewTable};
use crate::catalog::{BadFile, Table, TableDetails, footer};
use crate::control::{FileFacts, VolumeFile, is_table_file};
use crate::coordinator::membership::Inventory;
use crate::coordinator::{CoordinatorInner, blocking};
use crate::error::{Error, ErrorClass, Result};
use crate::files::footer_bytes::{self, End};
use crate::limits;
use crate::statement::columns_of_files::columns_of_files;
use crate::worker::{inventory, store};
use arrow::datatypes::Schema;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::file::metadata::ParquetMetaData;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Footers of a bucket that are read at once.
const BUCKET_READS_AT_ONCE: usize = 16;

/// What a table is to be made of.
pub(crate) struct Asked<'a> {
    /// As it was written.
    pub location: &'a str,
    /// The column list, if there is one.
    pub declared: Option<Schema>,
    /// Whether files that cannot be read are left out.
    pub skip_bad_files: bool,
}

/// The files at a location.
#[derive(Default)]
struct Found {
    files: Vec<NewFile>,
    bad: Vec<BadFile>,
}

/// Finds the files of a location and the columns of the table that they make: those of a column list, or of all files. Of the table as it is
/// `known`, files whose nodes are away stay where the cluster has copies of them: a file is gone only when its node says so.
pub(crate) async fn discover(
    inner: &CoordinatorInner,
    schema_name: &str,
    name: &str,
    asked: Asked<'_>,
    known: Option<&Table>,
) -> Result<NewTable> {
    let Asked { location: location_text, declared, skip_bad_files } = asked;
    let location = Location::parse(location_text)?;
    if location.is_managed() {
        return Err(Error::user(format!(
            "{location_text} is where the cluster keeps the files of managed tables: read them by their names"
        )));
    }
    let Found { mut files, bad } = match &location {
        Location::Node { node, volume, .. } => volume_files(inner, &location, node.as_deref(), volume).await?,
        Location::Bucket { url, prefix } => bucket_files(inner, url, prefix, &location).await?,
    };
    check_readable(&bad, skip_bad_files)?;
    if let Some(known) = known {
        keep_known(inner, known, &mut files)?;
    }
    if files.is_empty() {
        return Err(match bad.first() {
            Some(file) => {
                Error::not_found(format!("none of the {} Parquet files at {location_text} can be read: {}", bad.len(), unreadable(file)))
            }
            None => nothing_found(inner, &location, location_text),
        });
    }
    let details = TableDetails { columns_declared: declared.is_some(), skip_bad_files, bad_files: bad, ..TableDetails::default() };
    // A table may have a hundred thousand files.
    let (files, schema) = blocking(move || columns_of_files(files, declared)).await?;
    let schema_ipc = footer::encode_schema(&schema).map_err(Error::bug)?;
    Ok(NewTable {
        schema_name: schema_name.into(),
        name: name.into(),
        location: location_text.into(),
        schema_ipc,
        files,
        replicas: 1,
        regions: vec![],
        managed: false,
        details,
    })
}

/// Takes over checksums of files that have not changed, and files that only copies are left of for the moment.
fn keep_known(inner: &CoordinatorInner, known: &Table, files: &mut Vec<NewFile>) -> Result<()> {
    let inventories = inner.membership.inventories();
    let mut by_path: HashMap<String, Vec<usize>> = HashMap::new();
    for (at, file) in files.iter().enumerate() {
        by_path.entry(file.path.clone()).or_default().push(at);
    }
    for file in &known.files {
        let Some(checksum) = &file.checksum else { continue };
        let is_home = |(node, version): &(String, i64)| file.homes.iter().any(|(home, known)| **home == *node && known == version);
        let same = |new: &NewFile| new.facts.size_bytes == file.size_bytes && new.homes.iter().any(is_home);
        let found = by_path.get(&file.path).and_then(|found| found.iter().copied().find(|at| same(&files[*at])));
        if let Some(at) = found {
            files[at].facts.checksum.get_or_insert_with(|| checksum.clone());
            continue;
        }
        let away = file.homes.iter().all(|(node, _)| !inventories.contains_key(&**node));
        let copied = file.volume().is_some_and(|volume| inventories.values().any(|held| held.replica(volume, checksum).is_some()));
        if away && copied {
            files.push(inner.stored_file(file.file_id)?);
        }
    }
    Ok(())
}

fn nothing_found(inner: &CoordinatorInner, location: &Location, text: &str) -> Error {
    let mut message = format!("no Parquet file lies at {text}");
    if let Location::Node { volume, .. } = location {
        let nodes: Vec<_> = inner.membership.live().into_iter().map(|node| node.node_id).collect();
        message += &match nodes.is_empty() {
            true => "; no worker is live".to_string(),
            false => format!(
                "; live nodes: {}. Is '{volume}' the volume's name there (worker.volumes), and do the files end in .parquet?",
                nodes.join(", ")
            ),
        };
    }
    Error::not_found(message)
}

/// One file name with the nodes that have a file of that name.
type Copies<'a> = Vec<(&'a String, &'a VolumeFile)>;

/// Refuses a location with a file that no reader understands, unless such files are to be left out: without it the table would be short, and
/// nobody would know.
fn check_readable(bad: &[BadFile], skip: bool) -> Result<()> {
    match bad.first() {
        Some(_) if skip && bad.len() <= limits::BAD_FILES_MAX => Ok(()),
        Some(file) if skip => Err(Error::user(format!(
            "{} files cannot be read, more than the {} that a table may leave out; the first is {}",
            bad.len(),
            limits::BAD_FILES_MAX,
            file.path
        ))),
        Some(file) => Err(Error::user(format!(
            "{}; mend it, move it out of the folder, or leave it out on purpose with OPTIONS ('on_bad_file' 'skip'){}",
            unreadable(file),
            if bad.len() > 1 { format!(", and {} more", bad.len() - 1) } else { String::new() }
        ))),
        None => Ok(()),
    }
}

fn unreadable(file: &BadFile) -> String {
    let BadFile { path, reason, .. } = file;
    match &file.node {
        Some(node) => format!("file {path} on node {node} cannot be read as Parquet: {reason}"),
        None => format!("{path} cannot be read as Parquet: {reason}"),
    }
}

/// Refuses a location on a volume that a node serves and that is away: its files are not gone.
fn check_there(inventories: &BTreeMap<String, Inventory>, node: Option<&str>, volume: &str) -> Result<()> {
    let mut asked = inventories.iter().filter(|(holder, _)| node.is_none_or(|wanted| wanted == *holder));
    match asked.find_map(|(_, held)| held.missing_volumes.get(volume)) {
        Some(missing) => Err(Error::new(
            ErrorClass::Storage,
            format!(
                "{missing}. Nothing was changed: without it the table would be short. If it is lost for good, take it out of the node's settings"
            ),
        )),
        None => Ok(()),
    }
}

async fn volume_files(inner: &CoordinatorInner, location: &Location, node: Option<&str>, volume: &str) -> Result<Found> {
    inner.membership.await_fresh_inventories(limits::INVENTORY_WAIT).await?;
    let mut bad = inner.membership.unreadable(volume)?;
    bad.retain(|file| location.covers(&file.path) && node.is_none_or(|wanted| file.node.as_deref() == Some(wanted)));
    bad.sort_by(|a, b| (&a.path, &a.node).cmp(&(&b.path, &b.node)));
    let deadline = Instant::now() + limits::INVENTORY_WAIT;
    loop {
        let inventories = inner.membership.inventories();
        if let Some(node) = node
            && !inventories.contains_key(node)
        {
            return Err(Error::not_found(format!("node '{node}' is not in the cluster; system.nodes lists those that are")));
        }
        check_there(&inventories, node, volume)?;
        let (node, volume, location) = (node.map(str::to_string), volume.to_string(), location.clone());
        let unhashed = match blocking(move || compare(&inventories, &location, node.as_deref(), &volume)).await? {
            Compared::Files(files) => return Ok(Found { files, bad }),
            Compared::Unhashed(keys) => keys,
        };
        if Instant::now() >= deadline {
            return Err(Error::retry(format!(
                "{} file name(s) exist on several nodes and are still being compared, {} for one: try again",
                unhashed.len(),
                unhashed[0]
            )));
        }
        inner.membership.want_checksums(&unhashed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What the nodes' reports say of a location.
enum Compared {
    /// Its files, with their homes.
    Files(Vec<NewFile>),
    /// Files (`volume/path`) that only their content tells apart.
    Unhashed(Vec<String>),
}

fn compare(inventories: &BTreeMap<String, Inventory>, location: &Location, node: Option<&str>, volume: &str) -> Result<Compared> {
    let asked = inventories.iter().filter(|(holder, _)| node.is_none_or(|wanted| wanted == *holder));
    let found = asked.map(|(holder, held)| Ok((holder, held.files.facts(volume, |path| location.covers(path) && !is_table_file(path))?)));
    let found: Vec<(&String, Vec<VolumeFile>)> = found.collect::<Result<_>>()?;
    let mut by_name: BTreeMap<&str, Copies> = BTreeMap::new();
    for (holder, files) in &found {
        for file in files {
            by_name.entry(&file.path).or_default().push((holder, file));
        }
    }
    // Files of one name on several nodes are copies only if their content is the same; only a hash of all of it tells.
    let unhashed: Vec<String> = by_name
        .iter()
        .filter(|(_, copies)| look_alike(copies) && copies.iter().any(|(_, file)| file.facts.checksum.is_none()))
        .map(|(path, _)| format!("{volume}/{path}"))
        .collect();
    if !unhashed.is_empty() {
        return Ok(Compared::Unhashed(unhashed));
    }
    let store_url = location.store_url()?.to_string();
    Ok(Compared::Files(by_name.into_iter().flat_map(|(path, copies)| group_copies(&store_url, path, copies)).collect()))
}

/// Whether some of these files could be copies of each other.
fn look_alike(copies: &Copies) -> bool {
    copies.iter().enumerate().any(|(at, (_, file))| copies[..at].iter().any(|(_, other)| alike(&file.facts, &other.facts)))
}

fn alike(left: &FileFacts, right: &FileFacts) -> bool {
    left.size_bytes == right.size_bytes && left.footer_hash == right.footer_hash
}

/// Files of one name: one entry for each distinct content, with its homes.
fn group_copies(store_url: &str, path: &str, copies: Copies) -> Vec<NewFile> {
    let mut files: Vec<NewFile> = vec![];
    for (node, file) in copies {
        let home = (node.clone(), file.facts.version);
        let same = files.iter_mut().find(|known| {
            alike(&known.facts, &file.facts) && known.facts.checksum.is_some() && known.facts.checksum == file.facts.checksum
        });
        match same {
            Some(known) => known.homes.push(home),
            None => files.push(NewFile { store_url: store_url.into(), path: path.into(), facts: file.facts.clone(), homes: vec![home] }),
        }
    }
    files
}

async fn bucket_files(inner: &CoordinatorInner, url: &url::Url, prefix: &str, location: &Location) -> Result<Found> {
    let base = url.as_str().trim_end_matches('/');
    let config = inner.config.storage.iter().find(|storage| storage.url.trim_end_matches('/') == base).ok_or_else(|| {
        Error::not_found(format!("bucket {base} is not configured: add [[coordinator.storage]] with url = \"{base}\", endpoint and credentials, and restart the coordinator"))
    })?;
    let bucket = store::open_bucket(config)?;
    let failed = |error: object_store::Error| {
        let class = match error {
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => ErrorClass::Denied,
            object_store::Error::NotFound { .. } => ErrorClass::NotFound,
            object_store::Error::InvalidPath { source } => {
                return Error::user(format!(
                    "bucket {base}: an object at this LOCATION has a key that cannot be read: {source}; give it another key, or write a LOCATION that leaves it out"
                ));
            }
            _ => ErrorClass::Retry,
        };
        Error::new(class, format!("bucket {base}: {error}"))
    };
    let path = Path::parse(prefix).map_err(|source| failed(object_store::Error::InvalidPath { source }))?;
    let mut objects: Vec<object_store::ObjectMeta> = if prefix.to_ascii_lowercase().ends_with(".parquet") {
        vec![bucket.head(&path).await.map_err(failed)?]
    } else {
        bucket.list(Some(&path)).take(limits::BUCKET_FILES_MAX + 1).try_collect().await.map_err(failed)?
    };
    if objects.len() > limits::BUCKET_FILES_MAX {
        let most = limits::BUCKET_FILES_MAX;
        return Err(Error::user(format!("bucket {base}: more than {most} objects lie below '{prefix}': write a narrower LOCATION")));
    }
    objects.retain(|object| {
        let key = object.location.as_ref();
        key.to_ascii_lowercase().ends_with(".parquet") && location.covers(key) && !is_hidden(key, prefix)
    });
    objects.sort_by(|a, b| a.location.cmp(&b.location));
    let read = futures::stream::iter(objects).map(|object| {
        let bucket = bucket.clone();
        async move {
            let name = format!("{base}/{}", object.location);
            let footer = bucket_footer(bucket.as_ref(), &object, &name).await?;
            let facts = footer.and_then(|metadata| footer::file_facts(&metadata, object.size, inventory::object_version(&object)));
            Ok::<_, Error>((name, object.location, facts))
        }
    });
    let mut read = read.buffered(BUCKET_READS_AT_ONCE);
    let mut found = Found::default();
    while let Some((name, path, facts)) = read.try_next().await? {
        match facts {
            Ok(facts) => found.files.push(NewFile { store_url: format!("{base}/"), path: path.to_string(), facts, homes: vec![] }),
            Err(reason) => found.bad.push(BadFile { node: None, path: name, reason }),
        }
        // Whether they are to be left out or not, these are too many.
        if found.bad.len() > limits::BAD_FILES_MAX {
            break;
        }
    }
    Ok(found)
}

/// What the footer of an object says, or why it says nothing.
///
/// # Errors
/// What the bucket says: nothing is known of the file then.
async fn bucket_footer(bucket: &dyn ObjectStore, object: &object_store::ObjectMeta, name: &str) -> Result<Result<ParquetMetaData, String>> {
    let mut wanted = limits::FOOTER_FIRST_BYTES;
    loop {
        let has = wanted.min(object.size);
        let end = match has {
            0 => Ok(Bytes::new()),
            _ => bucket.get_range(&object.location, object.size - has..object.size).await,
        };
        let end = end.map_err(|error| Error::retry(format!("{name} cannot be read now: {error}")))?;
        match footer_bytes::understood(&end, object.size) {
            Ok(End::Whole(metadata)) => return Ok(Ok(*metadata)),
            Ok(End::Wants(more)) if more > has && more <= object.size => wanted = more,
            Ok(End::Wants(more)) => return Ok(Err(format!("its last {more} bytes are wanted, and it has {}", object.size))),
            Err(why) => return Ok(Err(why)),
        }
    }
}

/// Whether writers keep the object for themselves: `_temporary/`, `.staging/`. Volumes leave such files out as well.
fn is_hidden(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).unwrap_or(key).split('/').any(|part| part.starts_with(['.', '_']))
}
