//! The benchmark over Mesa's software adapter, which every machine can have: answers and refusals, not times.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs the benchmark with the software adapter as the only one, whatever cards the machine has.
fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bowshot-benches-gpu"))
        .args(["--rows", "200000", "--row-group-rows", "65536", "--runs", "1"])
        .args(arguments)
        .env("VK_LOADER_DRIVERS_SELECT", "lvp_icd*")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn rows(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn answers_are_those_of_the_host_and_come_from_the_device() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("rows.json");
    let output = run(&["--allow-software", "--json", json.to_str().unwrap()]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("software adapter: for correctness only, not for timing"), "{stdout}");
    let rows = rows(&json);
    assert!(rows.iter().all(|row| row["suite"] == "gpu" && row["ok"] == true), "{rows:?}");
    let device = |query: &str| rows.iter().find(|row| row["query"] == query && row["engine"] == "device").cloned();
    for (query, row_bytes) in [("q1", 11), ("q6", 8), ("filter_count", 3), ("sum_quantity", 1), ("sum_price", 4), ("min_max_price", 5)] {
        let row = device(query).unwrap_or_else(|| panic!("{query} did not run on the device"));
        assert!(row["seconds"].as_f64().unwrap() > 0.0 && row["floor_multiple"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!((row["rows"].as_u64(), row["bytes"].as_u64()), (Some(200_000), Some(200_000 * row_bytes)), "{query}");
    }
    for cardinality in [1, 16, 1_024] {
        let row = device(&format!("groups_{cardinality}")).unwrap();
        assert!(row["seconds"].is_f64(), "{row}");
    }
    let uploads = rows.iter().filter(|row| row["mode"] == "first touch").count();
    assert_eq!(uploads, 1);
}

#[test]
fn a_software_adapter_is_refused_unless_asked_for() {
    let output = run(&[]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("only a software adapter") && stderr.contains("--allow-software"), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

#[test]
fn columns_that_do_not_fit_the_device_are_refused() {
    let output = run(&["--allow-software", "--device-memory", "1000000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--device-memory"), "{}", text(&output.stderr));
}

/// A peer that is not there is a line of the report, not an error.
#[test]
fn missing_peers_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let python = folder.path().join("python");
    std::fs::write(&python, "#!/bin/sh\necho '{\"missing\": \"no module of that name\"}'\n").unwrap();
    let mut permissions = std::fs::metadata(&python).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&python, permissions).unwrap();
    let output = run(&["--allow-software", "--python", python.to_str().unwrap()]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}\n{}", text(&output.stderr));
    for engine in ["duckdb", "polars"] {
        assert!(stdout.contains(&format!("{engine}: not importable here (no module of that name)")), "{stdout}");
    }
}
