//! The way to the leader: its own queue when that is here, a request to its desktop when it is not.

mod courier;

use super::rpc::Rpc;
use super::{FlockStatus, PROPOSE};
use courier::Courier;
use gaggle_gossip::PeerId;
use gaggle_gossip::transport::Transport;
use gaggle_sched::raft::{Group, ProposeError, Role};
use gaggle_sched::state::{
    Applied, Key, Propose, Refused, Resource, Revision, Store, Txn, TxnId, Unavailable, View, Write,
};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The largest request: one object of the largest accepted body, and its intent change, beside what else was waiting.
pub const REQUEST_LIMIT: usize = 16 << 20;
/// The most transactions of one request.
const REQUEST_TXNS: usize = 256;
/// The largest answer.
const ANSWER_LIMIT: usize = 1 << 20;
/// How long one leader may take to answer.
const ANSWER: Duration = Duration::from_secs(6);
/// How long a write whose answer was lost is sent again, to whoever leads then, before its outcome stays unknown.
const DEADLINE: Duration = Duration::from_secs(12);
/// How long a write waits for a leader to be elected, before it is kept as intent.
const LEADERLESS: Duration = Duration::from_millis(2500);
/// A peer that did not lead is asked again after this, if nothing else is heard.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long one's own view may lag behind the commit that is being answered.
const CATCH_UP: Duration = Duration::from_secs(3);

/// What a follower sends to the leader: what its clients wrote while the requests before it were under way.
#[derive(Serialize, Deserialize)]
struct Request {
    /// Encoded each by itself, at most [`REQUEST_TXNS`].
    txns: Vec<ByteBuf>,
}

/// What the leader answers, for each transaction in its place.
#[derive(Debug, Serialize, Deserialize)]
struct Answers(Vec<Answer>);

/// What the leader answers to one transaction.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Ordered(Result<Applied, Refused>),
    /// Not ordered.
    NotLeader,
    Unavailable(Unavailable),
}

/// Brings transactions to whoever leads.
pub struct ToLeader {
    me: PeerId,
    view: View,
    courier: Courier,
    status: watch::Receiver<FlockStatus>,
    group: watch::Receiver<Option<Group>>,
}

impl ToLeader {
    pub(super) fn new(
        transport: Transport,
        view: View,
        status: watch::Receiver<FlockStatus>,
        group: watch::Receiver<Option<Group>>,
    ) -> Self {
        let me = transport.local();
        let courier = Courier::start(Rpc::new(transport, PROPOSE, ANSWER_LIMIT));
        Self { me, view, courier, status, group }
    }

    pub(super) fn me(&self) -> PeerId {
        self.me
    }

    async fn attempt(&self, txn: &Txn, leader: PeerId) -> Answer {
        if leader == self.me {
            let group = self.group.borrow().clone();
            return match group {
                Some(group) => order(&group, txn.clone()).await,
                None => Answer::NotLeader,
            };
        }
        match rmp_serde::to_vec_named(txn) {
            Ok(txn) => self.courier.bring(leader, txn).await,
            Err(error) => unknown(&error),
        }
    }
}

/// Whether it was ordered cannot be said.
fn unknown(why: &impl ToString) -> Answer {
    Answer::Unavailable(Unavailable::Unknown(why.to_string()))
}

#[async_trait::async_trait]
impl Propose for ToLeader {
    /// A transaction is sent until somebody who leads has answered: its id sees to it that it happens once. What stays
    /// unknown after [`DEADLINE`] is that of a leader that was lost and has no successor.
    async fn propose(&self, mut txn: Txn) -> Result<Result<Applied, Refused>, Unavailable> {
        let begun = Instant::now();
        txn.id.get_or_insert_with(|| TxnId(rand::random(), rand::random()));
        let mut status = self.status.clone();
        // Once a leader has been asked and did not answer, "not ordered" cannot be said any more.
        let mut lost: Option<String> = None;
        let mut no_quorum: Option<String> = None;
        loop {
            let leader = status.borrow_and_update().leader;
            if let Some(leader) = leader {
                let answer = tokio::select! {
                    answer = self.attempt(&txn, leader) => answer,
                    () = deposed(status.clone(), leader) => {
                        Answer::Unavailable(Unavailable::Unknown(format!("{leader} leads no more")))
                    }
                };
                match answer {
                    Answer::Ordered(Ok(applied)) => {
                        self.catch_up(applied.revision).await;
                        return Ok(Ok(applied));
                    }
                    Answer::Ordered(Err(refused)) => {
                        // What the leader saw and we do not yet: the caller tries again on a fresher view.
                        if let Refused::Conflict { current, .. } = &refused {
                            self.catch_up(*current).await;
                        }
                        return Ok(Err(refused));
                    }
                    Answer::Unavailable(Unavailable::Unknown(why)) => {
                        tracing::debug!(peer = %leader, why, "a write was not answered; it is sent again");
                        lost = Some(why);
                    }
                    // A leader that has just begun, or was held up, may be able to act in a moment.
                    Answer::Unavailable(Unavailable::NoQuorum(why)) => no_quorum = Some(why),
                    Answer::Unavailable(unavailable) if lost.is_none() => return Err(unavailable),
                    Answer::Unavailable(unavailable) => {
                        tracing::debug!(%unavailable, "a write is sent again")
                    }
                    Answer::NotLeader => tracing::debug!(peer = %leader, "not the leader (any more)"),
                }
            }
            let give_up = begun + if lost.is_some() { DEADLINE } else { LEADERLESS };
            // Who leads may be known to be another soon; the same one may be reached again sooner.
            match tokio::time::timeout(ASK_AGAIN, status.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(unavailable(lost, "this daemon is stopping")),
                Err(_) if Instant::now() < give_up => {}
                Err(_) => {
                    let why = no_quorum.unwrap_or_else(|| self.status.borrow().why.clone());
                    return Err(unavailable(lost, &why));
                }
            }
        }
    }
}

fn unavailable(lost: Option<String>, why: &str) -> Unavailable {
    match lost {
        Some(lost) => Unavailable::Unknown(lost),
        None => Unavailable::NoQuorum(why.to_owned()),
    }
}

/// Returns when that peer is no longer known to lead: an answer would only come by chance.
async fn deposed(mut status: watch::Receiver<FlockStatus>, leader: PeerId) {
    if status.wait_for(|status| status.leader != Some(leader)).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl ToLeader {
    async fn catch_up(&self, revision: Revision) {
        if tokio::time::timeout(CATCH_UP, self.view.reached(revision)).await.is_err() {
            tracing::warn!(%revision, view = %self.view.revision(), "this desktop's view lags behind a write made through it");
        }
    }
}

async fn order(group: &Group, txn: Txn) -> Answer {
    if group.status().borrow().role != Role::Leader {
        return Answer::NotLeader;
    }
    match group.propose(txn).await {
        Ok(outcome) => Answer::Ordered(outcome),
        // A leader that does not act is none: perhaps in a moment, perhaps another.
        Err(ProposeError::NotLeader(_) | ProposeError::NotActing) => Answer::NotLeader,
        Err(error) => Answer::Unavailable(error.into()),
    }
}

/// The leader's side: orders what a desktop sends, if it may send it.
pub(super) async fn answer(from: PeerId, request: &[u8], group: Option<Group>, view: &View) -> Vec<u8> {
    let txns = match rmp_serde::from_slice(request) {
        Ok(Request { txns }) if txns.len() <= REQUEST_TXNS => txns,
        // Whoever asked finds too few answers.
        Ok(_) | Err(_) => Vec::new(),
    };
    let from = from.to_string();
    let answers = txns.iter().map(|txn| answer_one(&from, txn, group.as_ref(), view));
    let answers = Answers(futures::future::join_all(answers).await);
    rmp_serde::to_vec_named(&answers).unwrap_or_default()
}

async fn answer_one(from: &str, txn: &[u8], group: Option<&Group>, view: &View) -> Answer {
    let txn: Txn = match rmp_serde::from_slice(txn) {
        Ok(txn) => txn,
        Err(error) => return unknown(&error),
    };
    let Some(group) = group else { return Answer::NotLeader };
    if let Some(key) = view.read(|store| foreign_report(store, &txn, from)) {
        tracing::warn!(peer = %from, %key, "refused a status report about a pod of another desktop");
        return Answer::Ordered(Err(Refused::NotFound(key)));
    }
    order(group, txn).await
}

/// A report is accepted only from the desktop that it is about: the key of a pod that is reported by another.
fn foreign_report(store: &Store, txn: &Txn, from: &str) -> Option<Key> {
    txn.writes.iter().find_map(|write| {
        let Write::Status { key, .. } = write else { return None };
        if key.resource != Resource::fixed("pods") {
            return None;
        }
        let node = store.get(key)?.value().pointer("/spec/nodeName")?.as_str()?;
        let node = store.get(&Key::new(Resource::fixed("nodes"), "", node))?;
        (node.annotation("gaggle.dev/peer")? != from).then(|| key.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::state::Expect;
    use serde_json::json;

    #[test]
    fn only_the_bound_desktop_reports_on_a_pod() {
        let mut store = Store::default();
        let (pod, node) = (
            Key::new(Resource::fixed("pods"), "default", "a"),
            Key::new(Resource::fixed("nodes"), "", "ada"),
        );
        let put =
            |key: &Key, value| Write::Put { key: key.clone(), value, expect: Expect::Any, intent: None };
        let writes = vec![
            put(&pod, json!({"metadata": {"uid": "u"}, "spec": {"nodeName": "ada"}})),
            put(&node, json!({"metadata": {"annotations": {"gaggle.dev/peer": "peer-of-ada"}}})),
        ];
        store.apply(&Txn::from(writes)).unwrap();
        let report = Write::Status { key: pod.clone(), uid: "u".into(), status: json!({}), seen: None };
        let report = Txn::from(report);
        assert_eq!(foreign_report(&store, &report, "peer-of-ada"), None);
        assert_eq!(foreign_report(&store, &report, "peer-of-bob"), Some(pod));
    }
}
