//! The progress line: nothing for half a second, then one line on standard error that is gone at the end.

use super::client::Client;
use crate::figures;
use crate::limits;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A progress line that lives as long as this value.
pub struct Progress {
    task: JoinHandle<()>,
    query_id: watch::Sender<Option<String>>,
    bar: ProgressBar,
}

impl Progress {
    /// Starts the line of a statement sent now.
    pub fn start(client: Client) -> Self {
        let (query_id, known_id) = watch::channel(None);
        let bar = ProgressBar::hidden();
        let task = tokio::spawn(draw(client, known_id, bar.clone()));
        Self { task, query_id, bar }
    }

    /// Tells the line which query to ask about.
    pub fn of_query(&self, query_id: Option<&str>) {
        self.query_id.send_replace(query_id.map(str::to_string));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.bar.finish_and_clear();
    }
}

async fn draw(mut client: Client, query_id: watch::Receiver<Option<String>>, bar: ProgressBar) {
    let started = Instant::now();
    tokio::time::sleep(limits::PROGRESS_AFTER).await;
    bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    loop {
        let known = query_id.borrow().clone();
        let summary = match &known {
            Some(query_id) => client.progress(query_id).await,
            None => None,
        };
        let mut parts = vec![figures::duration(started.elapsed())];
        if let Some(summary) = summary {
            if summary.rows > 0 {
                parts.push(figures::rows(summary.rows));
            }
            parts.push(format!("scanned {}", figures::bytes(summary.bytes_scanned)));
            parts.push(figures::moved(&summary));
        }
        bar.set_message(parts.join(" · "));
        bar.tick();
        tokio::time::sleep(limits::PROGRESS_EVERY).await;
    }
}
