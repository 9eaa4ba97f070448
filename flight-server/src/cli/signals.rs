//! What tells a process to stop: SIGTERM, SIGINT, or the end of the process that started it.

use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// After this time a process whose parent is gone ends whatever it is doing.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// Completes when the process is told to stop. With `with_parent`, the end of standard input says so too: the parent
/// holds its other end, and the system closes that however the parent dies.
pub async fn stop(with_parent: bool) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "SIGTERM cannot be watched");
                std::future::pending::<()>().await;
            }
        }
    };
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "SIGINT cannot be watched");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = terminated => tracing::info!("stopping: SIGTERM"),
        () = interrupted => tracing::info!("stopping: SIGINT"),
        () = parent_gone(), if with_parent => {
            tracing::info!("stopping: the parent process is gone");
            #[expect(clippy::disallowed_methods, reason = "the last resort against an orphan that does not end by itself")]
            std::thread::spawn(|| {
                std::thread::sleep(ORPHAN_GRACE);
                std::process::exit(1);
            });
        }
    }
}

async fn parent_gone() {
    let mut input = tokio::io::stdin();
    let mut ignored = [0_u8; 64];
    while let Ok(bytes) = input.read(&mut ignored).await {
        if bytes == 0 {
            return;
        }
    }
}
