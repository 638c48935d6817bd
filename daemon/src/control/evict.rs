//! `POST /gaggle/v1/evict?node=NAME`: removes a node for good, dead or alive.

use super::ControlState;
use crate::flock::FlockStatus;
use crate::flock::eviction::{self, Eviction, NotNow};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use gaggle_gossip::membership::Member;
use gaggle_sched::controller::node;
use gaggle_sched::state::{Resource, Store};
use serde::Deserialize;
use serde_json::json;

/// How often the transaction is made anew because something in it has moved on: pods of a living node report on and on.
const ATTEMPTS: usize = 10;

#[derive(Deserialize)]
pub(super) struct Params {
    node: String,
}

/// Why somebody is not evicted, for people.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    code: StatusCode,
    why: String,
}

impl Refusal {
    fn new(code: StatusCode, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }
}

impl From<NotNow> for Refusal {
    fn from(why: NotNow) -> Self {
        let code = match why {
            NotNow::DoesNotAct(_) => StatusCode::SERVICE_UNAVAILABLE,
            NotNow::NeedsIt(_) => StatusCode::CONFLICT,
        };
        Self::new(code, why.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, self.why + "\n").into_response()
    }
}

pub(super) async fn evict(State(state): State<ControlState>, Query(params): Query<Params>) -> Response {
    match attempt(&state, &params.node).await {
        Ok((name, peer)) => Json(json!({"evicted": name, "id": peer})).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn attempt(state: &ControlState, node: &str) -> Result<(String, String), Refusal> {
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let (flock, members) = (state.flock.borrow().clone(), state.members.borrow().clone());
        let (name, peer, eviction) = state.view.read(|store| plan(store, &flock, &members, node))?;
        match state.propose.propose(eviction.txn).await {
            Ok(Ok(_)) => {
                eviction::tell(&state.view, &*state.propose, &eviction.events, &state.node).await;
                return Ok((name, peer));
            }
            Ok(Err(refused)) => last = Some(refused),
            Err(unavailable) => {
                let why = format!(
                    "{node} may not have been evicted: {unavailable}. Look at `gaggle status` and try again"
                );
                return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why));
            }
        }
    }
    let why = last.map_or_else(String::new, |refused| format!(" ({refused})"));
    let why = format!("{node} was not evicted: the cluster's state kept changing meanwhile{why}; try again");
    Err(Refusal::new(StatusCode::CONFLICT, why))
}

/// The name and peer id of the node, and what its eviction is.
fn plan(
    store: &Store,
    flock: &FlockStatus,
    members: &[Member],
    node: &str,
) -> Result<(String, String, Eviction), Refusal> {
    eviction::acts(flock)?;
    let (name, peer) = find(store, members, node)?;
    let eviction = Eviction::of(store, flock, members, (&name, &peer), &crate::app::now())?;
    Ok((name, peer, eviction))
}

/// The name and peer id of a node of the roster, by either of them, or of a member that never got onto it.
fn find(store: &Store, members: &[Member], node: &str) -> Result<(String, String), Refusal> {
    let listed = store.list(&Resource::fixed("nodes"), None);
    let mut listed =
        listed.filter_map(|(key, object)| Some((key.name, object.annotation(node::PEER)?.to_owned())));
    if let Some(found) = listed.find(|(name, peer)| name == node || peer == node) {
        return Ok(found);
    }
    let heard = members
        .iter()
        .filter_map(|member| Some((member.node.as_ref()?.name.clone(), member.peer.to_string())));
    let mut heard = heard.filter(|(name, peer)| name == node || peer == node);
    match (heard.next(), heard.next()) {
        (Some(found), None) => Ok(found),
        (Some(_), Some(_)) => {
            let why = format!(
                "several desktops call themselves {node}: name the one to evict by its id (gaggle status -o json)"
            );
            Err(Refusal::new(StatusCode::CONFLICT, why))
        }
        (None, _) => {
            let why = format!("there is no node {node:?}: `gaggle status` lists them");
            Err(Refusal::new(StatusCode::NOT_FOUND, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_gossip::PeerId;
    use gaggle_gossip::membership::NodeFacts;
    use gaggle_sched::electorate::roster::Roster;
    use gaggle_sched::state::{Expect, Key, Txn, Write};
    use std::sync::Arc;
    use std::time::Instant;

    fn member(name: &str, alive: bool) -> Member {
        Member {
            peer: PeerId::random(),
            generation: 1,
            alive,
            connected: alive,
            node: Some(NodeFacts { name: name.into(), ..NodeFacts::default() }),
            group: None,
            images: Arc::default(),
            since: Instant::now(),
        }
    }

    fn acting(voters: &[&Member]) -> FlockStatus {
        let voters = voters.iter().map(|member| member.peer).collect();
        FlockStatus { quorum: true, current: true, voters, ..FlockStatus::default() }
    }

    /// A store with a Node for each member, and a pod on each.
    fn store(members: &[&Member]) -> Store {
        let mut store = Store::default();
        for member in members {
            let name = &member.node.as_ref().unwrap().name;
            let put = |resource, namespace: &str, name: &str, value| Write::Put {
                key: Key::new(Resource::fixed(resource), namespace, name),
                value,
                expect: Expect::Any,
                intent: None,
            };
            let annotations = json!({node::PEER: member.peer.to_string()});
            let node =
                json!({"metadata": {"name": name, "uid": format!("n-{name}"), "annotations": annotations}});
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "w", "controller": true});
            let pod = json!({
                "metadata": {
                    "name": name, "namespace": "default", "uid": format!("p-{name}"), "ownerReferences": [owner],
                },
                "spec": {"nodeName": name, "containers": []}, "status": {"phase": "Running"},
            });
            let writes = vec![put("nodes", "", name, node), put("pods", "default", name, pod)];
            store.apply(&Txn::from(writes)).unwrap();
        }
        store
    }

    #[test]
    fn one_transaction_remembers_the_key_and_removes_node_and_pods() {
        let members = [member("ada", true), member("bob", false), member("cyd", true)];
        let [ada, bob, cyd] = &members;
        let mut store = store(&[ada, bob, cyd]);
        let (.., eviction) = plan(&store, &acting(&[ada, bob, cyd]), &members, "bob").unwrap();
        store.apply(&eviction.txn).unwrap();
        let (roster, _) = Roster::of(&store).unwrap();
        assert_eq!(roster.evicted.get(&bob.peer.to_string()).map(String::as_str), Some("bob"));
        let names = |resource| {
            store.list(&Resource::fixed(resource), None).map(|(key, _)| key.name).collect::<Vec<_>>()
        };
        assert_eq!(
            (names("nodes"), names("pods")),
            (vec!["ada".into(), "cyd".into()], vec!["ada".into(), "cyd".into()])
        );
        let again = plan(&store, &acting(&[ada, cyd]), &members[..1], "bob").unwrap_err();
        assert_eq!((again.code, again.why.contains("no node \"bob\"")), (StatusCode::NOT_FOUND, true));
    }

    #[test]
    fn a_flock_that_does_not_act_evicts_nobody_and_says_so() {
        let members = [member("ada", true), member("bob", false)];
        let status =
            FlockStatus { quorum: false, why: "waiting for enough of the voters".into(), ..acting(&[]) };
        let refusal = plan(&store(&[&members[0], &members[1]]), &status, &members, "bob").unwrap_err();
        assert_eq!(refusal.code, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refusal.why.contains("waiting for enough of the voters"), "{}", refusal.why);
    }

    #[test]
    fn nobody_is_evicted_whom_the_others_need_to_act() {
        let members = [member("ada", true), member("bob", true), member("cyd", false)];
        let [ada, bob, cyd] = &members;
        let mut store = store(&[ada, bob, cyd]);
        let mut belong = |peers: &[&Member]| {
            let members = peers.iter().map(|member| member.peer.to_string()).collect();
            let value = Roster { members, ..Roster::default() }.object();
            let write = Write::Put { key: Roster::key(), value, expect: Expect::Any, intent: None };
            store.apply(&write.into()).unwrap();
            let refusal = plan(&store, &acting(&[ada]), &members_of(peers), "bob").err();
            refusal.map(|refusal| (refusal.code, refusal.why))
        };
        fn members_of(peers: &[&Member]) -> Vec<Member> {
            peers.iter().map(|peer| (*peer).clone()).collect()
        }
        let (code, why) = belong(&[ada, bob, cyd]).unwrap();
        assert_eq!(code, StatusCode::CONFLICT);
        assert!(why.contains("only 1 of 3 desktops") && why.contains("gaggle down"), "{why}");
        assert!(belong(&[ada, bob]).unwrap().1.contains("only 1 of 2"));
        assert_eq!(belong(&[ada]), None, "it does not belong");
    }

    #[test]
    fn a_vote_is_taken_only_from_a_flock_that_can_spare_it() {
        let members = [member("ada", true), member("bob", true), member("cyd", false)];
        let [ada, bob, cyd] = &members;
        let store = store(&[ada, bob, cyd]);
        let evict = |voters: &[&Member], node| plan(&store, &acting(voters), &members, node).map(|_| ());
        assert_eq!(evict(&[ada, bob, cyd], "cyd"), Ok(()), "the dead one is not needed");
        let needed = evict(&[ada, bob, cyd], "bob").unwrap_err();
        assert!(needed.why.contains("only 1 of 3 voters"), "{}", needed.why);
        let only = evict(&[bob], "bob").unwrap_err();
        assert!(only.why.contains("gaggle down"), "{}", only.why);
        assert_eq!(evict(&[ada], "bob"), Ok(()));
        assert_eq!(evict(&[ada], &bob.peer.to_string()), Ok(()), "by its id");
    }
}
