//! What tasks tell the loop.

use super::link::Listing;
use super::pulls::Source;
use crate::agent::engine::{Engine, EngineError, Exit, Image};
use crate::agent::identity::{Observed, PodId};
use crate::agent::planner::{Health, PodNote};
use k8s_openapi::jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

pub enum Report {
    /// The engine answers, and this is what it has.
    Linked(Box<Listing>),
    Unreachable(EngineError),
    /// The engine that was linked does not answer any more.
    Silent {
        engine: Arc<dyn Engine>,
        error: EngineError,
    },
    Created {
        observed: Box<Observed>,
        image: String,
    },
    SandboxUp {
        id: String,
        ips: Vec<String>,
    },
    Started {
        id: String,
        at: Timestamp,
    },
    Ended {
        id: String,
        exit: Exit,
        message: String,
    },
    Gone {
        id: String,
    },
    /// It could not be removed: to be tried again after a while.
    Failed {
        id: String,
    },
    StopEnded {
        id: String,
        ok: bool,
    },
    Refused {
        uid: String,
        container: Option<String>,
        reason: &'static str,
        message: String,
    },
    /// All actions of a pod's plan are done.
    Done {
        uid: String,
    },
    /// Nothing of a deleted pod is left here.
    Forgotten {
        uid: String,
    },
    Note {
        pod: PodId,
        note: PodNote,
    },
    ImagesChanged,
    Images(Option<Vec<Image>>),
    PullProgress {
        image: String,
        current: u64,
        total: u64,
    },
    PullEnded {
        image: String,
        result: Result<Source, String>,
        /// What is here now, where that changed.
        images: Option<Vec<Image>>,
        took: Duration,
        with_waiting: Duration,
    },
    Probed {
        id: String,
        health: Health,
    },
}
