//! The network between the groups: late, lossy, doubled, cut in any shape; frames outlive whoever sent them.

use super::super::clock::Micros;
use super::super::network;
use super::super::random::Random;
use gaggle_sched::raft::{Group, Network};
use gaggle_sched::state::View;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// What is lost is missed after a while: the transport below gives up.
const GIVES_UP: (u64, u64) = (100_000, 600_000);
/// Invitations that wait.
const INVITATIONS: usize = 256;

/// Frames of a leader reach a machine that has no part in the group.
#[derive(Clone, Copy, Debug)]
pub struct Invitation {
    pub from: usize,
    pub to: usize,
}

/// All wires.
#[derive(Clone)]
pub struct Wires {
    shared: Arc<Mutex<State>>,
    invitations: mpsc::Sender<Invitation>,
}

struct State {
    network: network::Network,
    random: Random,
    groups: BTreeMap<usize, (u64, Group, View)>,
}

impl Wires {
    pub fn new(nodes: usize, mut random: Random) -> (Self, mpsc::Receiver<Invitation>) {
        let (invitations, invited) = mpsc::channel(INVITATIONS);
        let network = network::Network::new(nodes, random.split());
        let state = State { network, random, groups: BTreeMap::new() };
        (Self { shared: Arc::new(Mutex::new(state)), invitations }, invited)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what passes.
    pub fn bend<T>(&self, bend: impl FnOnce(&mut network::Network) -> T) -> T {
        bend(&mut self.lock().network)
    }

    pub fn passes(&self, one: usize, other: usize) -> bool {
        let state = self.lock();
        !state.network.is_cut(one, other) && !state.network.is_cut(other, one)
    }

    /// A life of a machine begins or ends to take frames.
    pub fn plug(&self, node: usize, life: u64, group: &Group, view: &View) {
        self.lock().groups.insert(node, (life, group.clone(), view.clone()));
    }

    pub fn unplug(&self, node: usize) {
        self.lock().groups.remove(&node);
    }

    pub fn part(&self, node: usize) -> Option<(u64, Group, View)> {
        self.lock().groups.get(&node).cloned()
    }

    pub fn group(&self, node: usize) -> Option<Group> {
        self.part(node).map(|(_, group, _)| group)
    }

    pub fn life(&self, node: usize) -> Option<u64> {
        self.part(node).map(|(life, ..)| life)
    }

    pub fn port(&self, me: usize) -> Arc<dyn Network> {
        Arc::new(Port { wires: self.clone(), me })
    }

    fn arrivals(&self, from: usize, to: usize) -> Vec<Duration> {
        let arrivals = self.lock().network.arrivals(from, to).collect::<Vec<Micros>>();
        arrivals.into_iter().map(Duration::from_micros).collect()
    }

    fn gives_up(&self) -> Duration {
        Duration::from_micros(self.lock().random.within(GIVES_UP.0, GIVES_UP.1))
    }

    /// What becomes of a frame when it arrives.
    async fn deliver(&self, from: usize, to: usize, frame: &[u8]) -> Option<Vec<u8>> {
        if self.lock().network.is_cut(from, to) {
            return None;
        }
        let Some((life, group, _)) = self.part(to) else {
            // Whoever is full is asked again with the next frame.
            let _ = self.invitations.try_send(Invitation { from, to });
            return None;
        };
        let reply = group.receive(&super::name(from), frame).await;
        // A machine that ended meanwhile has said nothing.
        (self.life(to) == Some(life)).then_some(reply)
    }
}

struct Port {
    wires: Wires,
    me: usize,
}

#[async_trait::async_trait]
impl Network for Port {
    async fn call(&self, to: &str, frame: Vec<u8>) -> Result<Vec<u8>, String> {
        let (wires, from, to) = (self.wires.clone(), self.me, super::index(to));
        let (answer, answered) = oneshot::channel();
        let mut answer = Some(answer);
        for after in wires.arrivals(from, to) {
            let (wires, frame, answer) = (wires.clone(), frame.clone(), answer.take());
            // Whoever asked may give up; the frame arrives all the same.
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let reply = wires.deliver(from, to, &frame).await;
                let (Some(reply), Some(answer)) = (reply, answer) else { return };
                if let Some(back) = wires.arrivals(to, from).first() {
                    tokio::time::sleep(*back).await;
                    if !wires.lock().network.is_cut(to, from) {
                        let _ = answer.send(reply);
                    }
                }
            });
        }
        drop(answer);
        match answered.await {
            Ok(reply) => Ok(reply),
            Err(_) => {
                tokio::time::sleep(wires.gives_up()).await;
                Err("there is no answer".into())
            }
        }
    }
}
