//! The text that Prometheus reads, version 0.0.4, for figures that are read when it asks.

use bowshot_engine::coordinator::figures::{Figure, Kind};
use bowshot_engine::port::door::open_files_max;
use std::fmt::Write;
use std::fs;

/// Counters that the parts of the server keep, and what they mean.
pub const COUNTERS: [(&str, &str); 7] = [
    ("bowshot_queries_total", "Queries that have ended, by how."),
    ("bowshot_statements_planned_total", "Statements that were planned."),
    ("bowshot_bytes_scanned_total", "Bytes of files and cached columns that queries read."),
    ("bowshot_bytes_moved_total", "Bytes of rows that moved between nodes, and between regions."),
    ("bowshot_tasks_total", "Tasks whose kernels ran, by where."),
    ("bowshot_auth_failures_total", "Credentials of clients that were refused, by kind."),
    ("bowshot_nodes_refused_total", "Calls of nodes that were refused: wrong token, version, name or certificate."),
];
/// Gauges that they keep.
pub const GAUGES: [(&str, &str); 2] = [
    ("bowshot_queries_running", "Queries over stored tables that have a place (coordinator.query.max_concurrent)."),
    ("bowshot_queries_waiting", "Queries over stored tables that wait for a place."),
];
/// Durations that they measure.
pub const SUMMARIES: [(&str, &str); 2] = [
    ("bowshot_query_duration_seconds", "Time of queries from their arrival to their end."),
    ("bowshot_query_queued_seconds", "Time of that in which they waited for places."),
];

/// The text of figures; one without a series is left out.
pub fn text(figures: &[Figure]) -> String {
    let mut text = String::new();
    for figure in figures.iter().filter(|figure| !figure.series.is_empty()) {
        let kind = match figure.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Into a text nothing fails.
        let _ = write!(text, "# HELP {0} {1}\n# TYPE {0} {kind}\n", figure.name, figure.help);
        for (labels, value) in &figure.series {
            let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "{}{labels} {value}", figure.name);
        }
    }
    text
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// This process, under the names that Prometheus' own libraries give.
pub fn of_process() -> Vec<Figure> {
    let gauge = |name, help, value: Option<f64>| Figure {
        name,
        kind: Kind::Gauge,
        help,
        series: value.map(|value| (vec![], value)).into_iter().collect(),
    };
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    let open = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64);
    vec![
        Figure {
            name: "bowshot_build_info",
            kind: Kind::Gauge,
            help: "1, with the release as a label.",
            series: vec![(vec![("version", env!("CARGO_PKG_VERSION").to_string())], 1.0)],
        },
        gauge("process_resident_memory_bytes", "Memory of this process.", resident.map(|kib| kib * 1024.0)),
        gauge("process_open_fds", "Files that this process has open.", open),
        gauge("process_max_fds", "Files that it may open.", Some(open_files_max() as f64)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_text_with_escaped_labels() {
        let figure = |name, series| Figure { name, kind: Kind::Counter, help: "What it is.", series };
        let labels = vec![("node", "a\"b\\c\nd".to_string()), ("volume", "data".to_string())];
        let said = text(&[figure("one_total", vec![(labels, 1.5), (vec![], 2e10)]), figure("none_total", vec![])]);
        let wanted = "# HELP one_total What it is.\n# TYPE one_total counter\none_total{node=\"a\\\"b\\\\c\\nd\",volume=\"data\"} 1.5\none_total 20000000000\n";
        assert_eq!(said, wanted);
    }
}
