//! Figures for people: bytes, times, and the line under a result.

use bowshot_engine::QuerySummary;
use std::time::Duration;

/// Bytes in powers of ten, with about three digits: `41.2 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    if count < 1_000 {
        return format!("{count} B");
    }
    let mut value = count as f64;
    let mut unit = 0;
    // 999.5 would print as 1000.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    let decimals = if value < 99.95 { 1 } else { 0 };
    let number = format!("{value:.decimals$}");
    let number = number.strip_suffix(".0").unwrap_or(&number);
    format!("{number} {}", UNITS[unit])
}

/// A time: `12 ms`, `1.82 s`, `2 min 05 s`, `1 h 02 min`.
pub fn duration(time: Duration) -> String {
    let milliseconds = time.as_millis();
    // Rounded first, so that 59.996 s becomes a minute and not 60.00 s.
    let hundredths = (milliseconds + 5) / 10;
    if milliseconds < 1_000 {
        return format!("{milliseconds} ms");
    }
    if hundredths < 6_000 {
        return format!("{}.{:02} s", hundredths / 100, hundredths % 100);
    }
    let seconds = (milliseconds + 500) / 1_000;
    match seconds {
        0..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// `1 row`, `4 rows`, `12 345 rows`.
pub fn rows(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        let left = digits.len() - position;
        if position > 0 && left.is_multiple_of(3) && digits.len() > 4 {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    format!("{grouped} {}", if count == 1 { "row" } else { "rows" })
}

/// The line under a result: rows and time as the shell saw them, the rest from the server.
pub fn footer(row_count: u64, elapsed: Duration, summary: Option<&QuerySummary>, query_id: Option<&str>) -> String {
    let mut parts = vec![rows(row_count), duration(elapsed)];
    if let Some(summary) = summary {
        parts.push(format!("scanned {}", bytes(summary.bytes_scanned)));
        parts.push(moved(summary));
        parts.extend(tasks(summary));
    }
    parts.extend(query_id.map(|id| format!("query {id}")));
    parts.join(" · ")
}

/// What moved between nodes, and how much of it crossed a region's border.
pub fn moved(summary: &QuerySummary) -> String {
    let across = match summary.bytes_moved_across_regions {
        0 => String::new(),
        count => format!(" (across regions {})", bytes(count)),
    };
    format!("moved {}{across}", bytes(summary.bytes_moved))
}

fn tasks(summary: &QuerySummary) -> Option<String> {
    let all = summary.tasks;
    match (summary.tasks_on_device, summary.tasks_on_host_kernel) {
        _ if all == 0 => None,
        (0, 0) => Some(format!("{all} {}", if all == 1 { "task" } else { "tasks" })),
        (0, host) => Some(format!("{host}/{all} tasks on host kernel")),
        (device, 0) => Some(format!("{device}/{all} tasks on device")),
        (device, host) => Some(format!("{device}/{all} tasks on device, {host} on host kernel")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits_or_fewer() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1 kB"),
            (1_234, "1.2 kB"),
            (400_000, "400 kB"),
            (999_600, "1 MB"),
            (12_000_000, "12 MB"),
            (41_234_000_000, "41.2 GB"),
            (u64::MAX, "18447 PB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times_change_units() {
        for (milliseconds, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_820, "1.82 s"),
            (59_994, "59.99 s"),
            (59_996, "1 min 00 s"),
            (125_000, "2 min 05 s"),
            (3_720_000, "1 h 02 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn rows_are_grouped_and_counted() {
        assert_eq!(rows(1), "1 row");
        assert_eq!(rows(1234), "1234 rows");
        assert_eq!(rows(12_345), "12 345 rows");
        assert_eq!(rows(6_001_215), "6 001 215 rows");
    }

    #[test]
    fn the_footer_tells_what_moved_and_where_it_ran() {
        let summary = QuerySummary {
            query_id: uuid::Uuid::nil(),
            rows: 4,
            elapsed_ms: 1_820,
            bytes_scanned: 41_200_000_000,
            bytes_moved: 12_000_000,
            bytes_moved_across_regions: 400_000,
            tasks: 9,
            tasks_on_device: 7,
            ..Default::default()
        };
        assert_eq!(
            footer(4, Duration::from_millis(1_820), Some(&summary), Some("01J")),
            "4 rows · 1.82 s · scanned 41.2 GB · moved 12 MB (across regions 400 kB) · 7/9 tasks on device · query 01J"
        );
        assert_eq!(footer(0, Duration::from_millis(3), None, None), "0 rows · 3 ms");
    }
}
