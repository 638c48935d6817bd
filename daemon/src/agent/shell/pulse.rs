//! Whether the engine still answers: one that is stuck keeps its event stream open and says nothing.

use super::Report;
use crate::agent::engine::Engine;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often it is asked; tests do not wait so long for nothing.
const EVERY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 5_000 });

/// Asks until it does not answer, and reports that.
pub async fn watch(engine: Arc<dyn Engine>, reports: mpsc::Sender<Report>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = engine.ping().await {
            // The loop that would hear it may have ended.
            let _ = reports.send(Report::Silent { engine, error }).await;
            return;
        }
    }
}
