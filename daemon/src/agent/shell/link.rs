//! Finding the engine, and finding out what it has: tried again until it answers.

use super::work::Hands;
use super::{Limits, Report};
use crate::agent::PodTokens;
use crate::agent::engine::{Engine, EngineError, Facts, Image, PAUSE_IMAGE, RunState, pause_image};
use crate::agent::hold::Hold;
use crate::agent::identity::{Observed, Owner};
use crate::agent::planner::ImageIndex;
use futures::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Makes a connection to the engine.
pub type Connector = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Engine>, EngineError>> + Send + Sync>;

/// An engine restarts in about a second; one that is not installed is not asked more often than this.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

pub struct Listing {
    pub engine: Arc<dyn Engine>,
    pub facts: Facts,
    pub containers: Vec<Observed>,
    pub images: Vec<Image>,
}

pub async fn link(
    connect: Connector,
    owner: Owner,
    dir: PathBuf,
    limits: Arc<Limits>,
    hold: Hold,
    tokens: Arc<dyn PodTokens>,
    reports: mpsc::Sender<Report>,
) {
    let mut wait = FIRST_WAIT;
    loop {
        match list(&connect, &owner, &dir, &limits, &hold, &tokens, &reports).await {
            Ok(listing) => {
                let _ = reports.send(Report::Linked(Box::new(listing))).await;
                return;
            }
            Err(error) => {
                if reports.send(Report::Unreachable(error)).await.is_err() {
                    return;
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn list(
    connect: &Connector,
    owner: &Owner,
    dir: &std::path::Path,
    limits: &Arc<Limits>,
    hold: &Hold,
    tokens: &Arc<dyn PodTokens>,
    reports: &mpsc::Sender<Report>,
) -> Result<Listing, EngineError> {
    let engine = connect().await?;
    let facts = engine.facts().await?;
    let mut images = engine.images().await?;
    if ImageIndex::new(&images).find(PAUSE_IMAGE).is_none() {
        engine.import(PAUSE_IMAGE, pause_image(&facts.arch)?, "/pause").await?;
        images = engine.images().await?;
    }
    let hands = Hands {
        engine: engine.clone(),
        owner: owner.clone(),
        reports: reports.clone(),
        limits: limits.clone(),
        hold: hold.clone(),
        tokens: tokens.clone(),
    };
    let mut containers = Vec::new();
    for found in engine.list(&owner.labels()).await? {
        let Some(mut observed) = owner.recognise(found) else { continue };
        if let RunState::Exited(exit) = observed.state.clone() {
            let dir = dir.join("pods").join(&observed.pod.uid);
            observed.message = hands.last_words(&observed, &exit, dir).await;
        }
        containers.push(observed);
    }
    Ok(Listing { engine, facts, containers, images })
}
