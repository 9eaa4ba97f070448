//! Queries that differ in one measure alone, from small to large: what one step costs beside the step before.

use std::fmt::Write;

/// The queries, in order, and the rows that each reads.
pub struct Steps {
    pub queries: Vec<String>,
    pub rows: usize,
}

impl Steps {
    /// A table of nanoseconds a row with the ratio to the step before, and the greatest ratio of each engine; a step whose query or
    /// predecessor has no time is left out.
    pub fn table(&self, engines: &[&str], seconds: impl Fn(&str, &str) -> Option<f64>) -> String {
        let mut text = String::from("### steps (nanoseconds a row; in brackets: times the step before)\n\n");
        let mut greatest: Vec<Option<(f64, &str)>> = vec![None; engines.len()];
        let _ = writeln!(text, "| step | {} |", engines.join(" | "));
        let _ = writeln!(text, "|---|{}", "---|".repeat(engines.len()));
        for (at, query) in self.queries.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| &self.queries[before]);
            let cells = engines.iter().zip(&mut greatest).map(|(engine, greatest)| {
                let Some(own) = seconds(query, engine) else {
                    return String::new();
                };
                let nanoseconds = own / self.rows as f64 * 1e9;
                match before.and_then(|before| seconds(before, engine)).map(|before| own / before) {
                    None => format!("{nanoseconds:.2}"),
                    Some(ratio) => {
                        if greatest.is_none_or(|(most, _)| ratio > most) {
                            *greatest = Some((ratio, query));
                        }
                        format!("{nanoseconds:.2} ({ratio:.2})")
                    }
                }
            });
            let cells: Vec<String> = cells.collect();
            let _ = writeln!(text, "| {query} | {} |", cells.join(" | "));
        }
        let cells = greatest.iter().map(|greatest| greatest.map_or(String::new(), |(ratio, query)| format!("({ratio:.2}) at {query}")));
        let _ = writeln!(text, "| greatest | {} |", cells.collect::<Vec<_>>().join(" | "));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_step_before() {
        let steps = Steps { queries: vec!["k1".into(), "k2".into(), "k4".into()], rows: 1_000_000 };
        let times = [("k1", 0.001), ("k2", 0.003), ("k4", 0.0015)];
        let seconds = |query: &str, engine: &str| {
            let time = times.iter().find(|(name, _)| *name == query)?.1;
            (engine == "fast" || query != "k2").then_some(time)
        };
        let table = steps.table(&["fast", "gaps"], seconds);
        let lines: Vec<&str> = table.lines().skip(4).collect();
        assert_eq!(
            lines,
            ["| k1 | 1.00 | 1.00 |", "| k2 | 3.00 (3.00) |  |", "| k4 | 1.50 (0.50) | 1.50 |", "| greatest | (3.00) at k2 |  |"]
        );
    }
}
