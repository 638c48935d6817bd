//! The answering side: what can be said at once, and what the shell has to decide.

use super::{Answer, FRAME_LIMIT, MAX_EPOCH, PRESENCE, Promises, Request};
use crate::flock::rpc::serve;
use gaggle_gossip::PeerId;
use gaggle_gossip::transport::Transport;
use gaggle_sched::raft::GroupId;
use gaggle_sched::state::Lineage;
use tokio::sync::{mpsc, oneshot};

/// Something that the shell, which owns this node's place in the group, is asked by a peer.
pub(in crate::flock) struct Errand {
    pub from: PeerId,
    pub request: Request,
    pub answer: oneshot::Sender<Answer>,
}

/// Serves peers until the transport ends. The shell hears of leaders of newer foundings, too.
pub(in crate::flock) async fn serve_presence(
    transport: Transport,
    promises: Promises,
    errands: mpsc::Sender<Errand>,
) {
    let acceptor = match transport.accept(PRESENCE, 256) {
        Ok(acceptor) => acceptor,
        Err(error) => return tracing::error!(%error, "leases cannot be given"),
    };
    serve(acceptor, FRAME_LIMIT, move |from, frame| {
        let (promises, errands) = (promises.clone(), errands.clone());
        async move {
            let answer = match rmp_serde::from_slice(&frame) {
                Ok(request) => answer(from, request, &promises, &errands).await,
                Err(error) => Answer::Unable(format!("the request does not decode: {error}")),
            };
            rmp_serde::to_vec_named(&answer).unwrap_or_default()
        }
    })
    .await;
}

async fn answer(
    from: PeerId,
    request: Request,
    promises: &Promises,
    errands: &mpsc::Sender<Errand>,
) -> Answer {
    if let Some(lineage) = lineage_of(&request).filter(|lineage| !is_plausible(lineage)) {
        return Answer::Unable(format!("there is no epoch {} of a group {:?}", lineage.epoch, lineage.group));
    }
    match &request {
        Request::Lease(ask) => {
            let answer = promises.lease(from, ask).await;
            if matches!(answer, Answer::NoLease(_)) {
                // A newer founding may be what this node should follow: the shell knows. Nobody waits for what it says.
                let (told, _) = oneshot::channel();
                let _ = errands.try_send(Errand { from, request, answer: told });
            }
            answer
        }
        Request::Preview(ask) => match promises.preview(from, ask).await {
            Ok(()) => Answer::Pledged,
            Err(no_pledge) => Answer::NoPledge(no_pledge),
        },
        Request::Pledge(ask) => match promises.preview(from, ask).await {
            // What is refused already costs nobody a look into the log.
            Err(no_pledge) => Answer::NoPledge(no_pledge),
            Ok(()) => hand_over(from, request, errands).await,
        },
        Request::Recover { .. } | Request::Join { .. } => hand_over(from, request, errands).await,
    }
}

async fn hand_over(from: PeerId, request: Request, errands: &mpsc::Sender<Errand>) -> Answer {
    let (answer, answered) = oneshot::channel();
    if errands.try_send(Errand { from, request, answer }).is_err() {
        return Answer::Unable("this node has too much to do".into());
    }
    answered.await.unwrap_or_else(|_| Answer::Unable("this node is stopping".into()))
}

fn lineage_of(request: &Request) -> Option<&Lineage> {
    match request {
        Request::Lease(ask) => Some(&ask.lineage),
        Request::Preview(ask) | Request::Pledge(ask) => Some(&ask.lineage),
        Request::Join { to, .. } => Some(to),
        Request::Recover { .. } => None,
    }
}

/// An epoch beyond the bound would be pledged for ever, and no founding could follow it.
fn is_plausible(lineage: &Lineage) -> bool {
    lineage.epoch <= MAX_EPOCH && lineage.group.parse::<GroupId>().is_ok()
}
