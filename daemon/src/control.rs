//! What a daemon answers about itself, beside the Kubernetes API and behind the same door: `/gaggle/v1`.

mod evict;
mod status;

pub use status::{NodeStatus, StatusReport};

use crate::agent::Agent;
use crate::flock::{Flock, FlockStatus, images_by_node};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::{StreamExt, TryStreamExt};
use gaggle_gossip::membership::Member;
use gaggle_sched::state::{Propose, View};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

/// Lines of progress that wait for a slow reader; more are dropped.
const PROGRESS_LINES: usize = 64;

/// What a line begins with that says why the node could not leave properly.
pub const LEAVE_FAILED: &str = "error: ";

/// Somebody asked this node to leave, and reads what happens.
pub struct LeaveRequest {
    pub progress: mpsc::Sender<String>,
}

#[derive(Clone)]
pub struct ControlState {
    pub cluster: String,
    /// This node's name.
    pub node: String,
    pub flock: watch::Receiver<FlockStatus>,
    pub members: watch::Receiver<Arc<Vec<Member>>>,
    pub view: View,
    pub agent: Agent,
    pub propose: Arc<dyn Propose>,
    pub leave: mpsc::Sender<LeaveRequest>,
    pub recover: Flock,
}

/// The routes, to be put behind the API's authentication.
pub fn routes(state: ControlState) -> Router {
    Router::new()
        .route("/gaggle/v1/status", get(status))
        .route("/gaggle/v1/leave", post(leave))
        .route("/gaggle/v1/evict", post(evict::evict))
        .route("/gaggle/v1/recover", post(recover))
        .route("/gaggle/v1/images", get(images).post(load_image))
        .with_state(state)
}

async fn status(State(state): State<ControlState>) -> Json<StatusReport> {
    let flock = state.flock.borrow().clone();
    let members = state.members.borrow().clone();
    Json(state.view.read(|store| status::report(&state.cluster, &flock, &members, store)))
}

async fn leave(State(state): State<ControlState>) -> Response {
    let (progress, lines) = mpsc::channel(PROGRESS_LINES);
    if state.leave.try_send(LeaveRequest { progress }).is_err() {
        return (StatusCode::CONFLICT, "this node is leaving already\n").into_response();
    }
    let lines = ReceiverStream::new(lines).map(|line| Ok::<_, std::io::Error>(Bytes::from(line + "\n")));
    Body::from_stream(lines).into_response()
}

/// Goes on with those who are here, although they are less than half.
async fn recover(State(state): State<ControlState>) -> Response {
    match state.recover.recover().await {
        Ok(done) => Json(json!({"done": done})).into_response(),
        Err(why) => (StatusCode::CONFLICT, why).into_response(),
    }
}

/// Which desktops hold which images, as their gossip says.
async fn images(State(state): State<ControlState>) -> Response {
    let mut holders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (node, images) in images_by_node(&state.members.borrow()) {
        for image in images {
            holders.entry(image).or_default().push(node.clone());
        }
    }
    let images = holders.into_iter().map(|(name, nodes)| json!({"name": name, "nodes": nodes}));
    Json(json!({"images": images.collect::<Vec<_>>()})).into_response()
}

async fn load_image(State(state): State<ControlState>, body: Body) -> Response {
    let bytes = body.into_data_stream().map_ok(|bytes| bytes.to_vec()).map_err(std::io::Error::other).boxed();
    match state.agent.load_image(bytes).await {
        Ok(loaded) => Json(json!({"loaded": loaded})).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, format!("{error}\n")).into_response(),
    }
}
