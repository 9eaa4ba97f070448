//! Rules of the house, as tests: sizes and names of files, the direction of the crates, no orphaned shader, a README that says how.

use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 700;
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] = ["utils", "util", "helper", "helpers", "common", "misc", "manager", "managers"];
const SOURCE_ENDINGS: [&str; 6] = ["rs", "py", "wgsl", "js", "css", "sh"];
/// Lines of README.md.
const README_LINES_MAX: usize = 120;
/// Folders that are not ours or not source.
const SKIPPED: [&str; 7] = ["target", "node_modules", "__pycache__", "shared", "results", ".pytest_cache", "bundle"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}

fn ending(path: &Path) -> &str {
    path.extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

/// Every file of the repository whose ending is one of `endings`; hidden folders and build outputs left out.
fn files(endings: &[&str]) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![repository().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository can be read") {
            let path = entry.expect("a folder of the repository can be listed").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&name) {
                folders.push(path);
            } else if path.is_file() && endings.contains(&ending(&path)) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no file ends in {endings:?}: the search looks in the wrong place");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", shown(path)))
}

fn assert_none(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

#[test]
fn no_source_file_is_longer_than_a_reader_bears() {
    let long = files(&SOURCE_ENDINGS).into_iter().filter_map(|path| {
        let lines = read(&path).lines().count();
        (lines > LINES_MAX).then(|| format!("{}: {lines} lines, more than {LINES_MAX}: which second idea moved in?", shown(&path)))
    });
    assert_none(long.collect());
}

#[test]
fn no_file_or_folder_has_an_empty_name() {
    let empty = files(&SOURCE_ENDINGS).into_iter().filter_map(|path| {
        let inside = path.strip_prefix(repository()).unwrap_or(&path).with_extension("");
        let part = inside.iter().find(|part| part.to_str().is_some_and(|part| EMPTY_NAMES.contains(&part)))?;
        Some(format!("{}: '{}' says nothing about what is inside", shown(&path), part.to_string_lossy()))
    });
    assert_none(empty.collect());
}

/// The dependencies that the manifest of a crate names, those for tests included.
fn dependencies(krate: &str) -> Vec<String> {
    let manifest: toml::Table = read(&repository().join(krate).join("Cargo.toml")).parse().expect("Cargo.toml is TOML");
    let sections = ["dependencies", "dev-dependencies", "build-dependencies"];
    let tables = sections.iter().filter_map(|section| manifest.get(*section)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn crates_depend_in_one_direction_only() {
    let forbidden: [(&str, &[&str]); 7] = [
        (
            "kernels",
            &[
                "bowshot-engine",
                "bowshot-flight-server",
                "bowshot-datasets",
                "bowshot-sql-tests",
                "datafusion",
                "datafusion-",
                "arrow-flight",
                "tonic",
            ],
        ),
        ("engine", &["bowshot-flight-server", "bowshot-datasets", "bowshot-sql-tests", "datafusion-substrait"]),
        (
            "engine/substrait",
            &["bowshot-flight-server", "bowshot-kernels", "bowshot-datasets", "bowshot-sql-tests", "tonic", "arrow-flight"],
        ),
        ("datasets", &["bowshot-engine", "bowshot-flight-server", "bowshot-kernels", "bowshot-sql-tests", "datafusion"]),
        ("flight-server", &["bowshot-sql-tests", "bowshot-kernels", "bowshot-substrait"]),
        // Thin: what it would do itself is compiled last, after everything else.
        ("flight-server/program", &["bowshot-engine", "bowshot-kernels", "bowshot-sql-tests", "datafusion", "tokio", "tonic", "clap"]),
        (
            "benches/gpu",
            &[
                "bowshot-engine",
                "bowshot-flight-server",
                "bowshot-sql-tests",
                "bowshot-benches",
                "datafusion",
                "datafusion-",
                "arrow-flight",
                "tonic",
                "tokio",
            ],
        ),
    ];
    let mut problems = vec![];
    for (krate, names) in forbidden {
        let known = dependencies(krate);
        assert!(!known.is_empty(), "{krate} has no dependencies: the manifest was not understood");
        for dependency in known {
            // A name that ends in a dash stands for a family of crates.
            let wrong = names.iter().any(|name| dependency == *name || (name.ends_with('-') && dependency.starts_with(name)));
            if wrong {
                problems.push(format!("{krate} must not know {dependency}"));
            }
        }
    }
    assert_none(problems);
}

/// rustc proves for each method of an `#[async_trait]` anew that its future may change threads, and walks through every type that the method
/// captures: seconds a method where that is a session, a worker or an expression. `engine/src/port/flight.rs` shows the way out.
#[test]
fn async_trait_stands_only_where_methods_capture_little() {
    const SMALL: [&str; 3] = ["benches/src/flight.rs", "engine/src/port/flight.rs", "sql-tests/tests/sqllogictest.rs"];
    let users: Vec<String> = files(&["rs"])
        .into_iter()
        .filter(|path| read(path).lines().any(|line| line.trim_start().starts_with("#[") && line.contains("async_trait")))
        .map(|path| shown(&path))
        .collect();
    let new = users.iter().filter(|user| !SMALL.contains(&user.as_str()));
    let advice = "answer with a BoxFuture over what it owns, as engine/src/port/flight.rs and fragment/transport.rs do";
    assert_none(new.map(|user| format!("{user} has an #[async_trait]: {advice}")).collect());
    let gone = SMALL.iter().filter(|small| !users.contains(&small.to_string()));
    assert_none(gone.map(|small| format!("{small} has no #[async_trait] any more: take it off this list")).collect());
}

#[test]
fn every_shader_is_used_by_a_driver() {
    let drivers: Vec<String> = files(&["rs"]).iter().filter(|path| !path.ends_with("tidy.rs")).map(|path| read(path)).collect();
    let orphans = files(&["wgsl"]).into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.to_string();
        let used = drivers.iter().any(|driver| driver.contains(&name));
        (!used).then(|| format!("{}: no Rust file mentions it", shown(&path)))
    });
    assert_none(orphans.collect());
}

#[test]
fn the_readme_says_how_to_start_and_how_to_check() {
    let readme = read(&repository().join("README.md"));
    let missing = ["./demo", "./check"].into_iter().filter(|command| !readme.contains(command));
    assert_none(missing.map(|command| format!("README.md does not mention {command}")).collect());
}

#[test]
fn the_readme_is_read_in_one_sitting() {
    let lines = read(&repository().join("README.md")).lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines, more than {README_LINES_MAX}: details belong below docs/");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let broken = files(&["md"]).into_iter().flat_map(|page| {
        let text = read(&page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).map(str::to_string).collect::<Vec<_>>();
        let ours = targets.into_iter().filter(|target| !target.contains("://") && !target.contains(char::is_whitespace));
        ours.filter_map(|target| {
            let (path, place) = target.split_once('#').unwrap_or((&target, ""));
            let to = if path.is_empty() { page.clone() } else { page.parent()?.join(path) };
            let found = to.exists() && (place.is_empty() || read(&to).lines().any(|line| anchor(line).as_deref() == Some(place)));
            (!found).then(|| format!("{}: nothing is at {target}", shown(&page)))
        })
        .collect::<Vec<_>>()
    });
    assert_none(broken.collect());
}

/// The name that a heading of Markdown is linked by.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = heading.chars().filter(|sign| sign.is_alphanumeric() || matches!(sign, ' ' | '-' | '_'));
    Some(kept.map(|sign| if sign == ' ' { '-' } else { sign.to_ascii_lowercase() }).collect())
}

/// Batches and plans cross crate borders: two versions of a library would be two types.
#[test]
fn one_copy_of_arrow_and_datafusion() {
    let lock = read(&repository().join("Cargo.lock"));
    for library in ["arrow", "arrow-flight", "datafusion", "datafusion-distributed", "object_store", "parquet"] {
        let copies = lock.lines().filter(|line| *line == format!("name = \"{library}\"")).count();
        assert_eq!(copies, 1, "copies of {library} in Cargo.lock");
    }
}
