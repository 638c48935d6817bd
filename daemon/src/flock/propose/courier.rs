//! Brings transactions to another desktop's leader: what is waiting while requests are under way goes along in the next one,
//! as in the leader's own queue.

use super::super::rpc::{Rpc, RpcError};
use super::{ANSWER, Answer, Answers, REQUEST_TXNS, Request, unknown};
use futures::future::join_all;
use gaggle_gossip::PeerId;
use serde_bytes::ByteBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Transactions that wait for a request; whoever brings one more waits in turn.
const WAITING: usize = 1024;
/// Requests under way at once.
const UNDER_WAY: usize = 4;
/// While one is answered as fast as on a good network, the next waits for that: the more go together, the less each costs, and
/// the leader orders them one batch after the other anyway. On a slow network it goes after this.
const GOES_ALONE: Duration = Duration::from_millis(25);
/// One that is not answered by then does not hold up others any longer: its connection may be dead, and another one there.
const HOLDS_UP: Duration = Duration::from_millis(250);
/// Bytes of one request at most, unless a single transaction is larger.
const REQUEST_BYTES: usize = 1 << 20;

struct Parcel {
    leader: PeerId,
    txn: ByteBuf,
    answer: oneshot::Sender<Answer>,
}

/// The way to its task, which ends with it.
pub(super) struct Courier(mpsc::Sender<Parcel>);

impl Courier {
    pub fn start(rpc: Rpc) -> Self {
        let (sender, parcels) = mpsc::channel(WAITING);
        tokio::spawn(run(rpc, parcels));
        Self(sender)
    }

    /// Brings an encoded transaction to the leader.
    pub async fn bring(&self, leader: PeerId, txn: Vec<u8>) -> Answer {
        let (answer, answered) = oneshot::channel();
        if self.0.send(Parcel { leader, txn: txn.into(), answer }).await.is_err() {
            return Answer::NotLeader;
        }
        answered.await.unwrap_or_else(|_| unknown(&"this daemon is stopping"))
    }
}

async fn run(rpc: Rpc, mut parcels: mpsc::Receiver<Parcel>) {
    let mut held: Option<Parcel> = None;
    let (mut to, mut way) = (None, Way::new());
    loop {
        let mut first = match held.take() {
            Some(parcel) => parcel,
            None => match parcels.recv().await {
                Some(parcel) => parcel,
                None => return,
            },
        };
        // What goes to the leader before does not hold up what goes to this one.
        if to.replace(first.leader) != Some(first.leader) {
            way = Way::new();
        }
        let room = {
            let mut first = pin!(first.answer.closed());
            tokio::select! {
                room = way.room() => room,
                // Whoever waited for this one has turned to the next leader, and must not find it in the way.
                () = &mut first => None,
            }
        };
        let Some(room) = room else { continue };
        let (leader, together) = gather(first, &mut parcels, &mut held);
        if !together.is_empty() {
            tokio::spawn(deliver(rpc.clone(), leader, together, room));
        }
    }
}

/// The way to one leader.
struct Way {
    turn: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

/// What a request takes up of the way.
struct Room {
    /// Until it is answered, or [`GOES_ALONE`].
    turn: Option<OwnedSemaphorePermit>,
    /// Until it is answered, or [`HOLDS_UP`].
    place: Option<OwnedSemaphorePermit>,
}

impl Way {
    fn new() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), places: Arc::new(Semaphore::new(UNDER_WAY)) }
    }

    /// `None` never: nobody closes the way.
    async fn room(&self) -> Option<Room> {
        let turn = Some(Arc::clone(&self.turn).acquire_owned().await.ok()?);
        let place = Some(Arc::clone(&self.places).acquire_owned().await.ok()?);
        Some(Room { turn, place })
    }
}

/// What is waiting for the same leader, up to the bounds; one that does not fit any more is held for the next request.
fn gather(
    first: Parcel,
    parcels: &mut mpsc::Receiver<Parcel>,
    held: &mut Option<Parcel>,
) -> (PeerId, Vec<Parcel>) {
    let (leader, mut bytes) = (first.leader, first.txn.len());
    let mut together = vec![first];
    while together.len() < REQUEST_TXNS {
        let Ok(parcel) = parcels.try_recv() else { break };
        if parcel.leader != leader || bytes + parcel.txn.len() > REQUEST_BYTES {
            *held = Some(parcel);
            break;
        }
        bytes += parcel.txn.len();
        together.push(parcel);
    }
    // Nobody waits for those whose leader was deposed meanwhile: they are on their way to the next one.
    together.retain(|parcel| !parcel.answer.is_closed());
    (leader, together)
}

async fn deliver(rpc: Rpc, leader: PeerId, together: Vec<Parcel>, mut room: Room) {
    let (txns, mut waiting): (Vec<_>, Vec<_>) =
        together.into_iter().map(|parcel| (parcel.txn, parcel.answer)).unzip();
    let count = waiting.len();
    let asked = async {
        match rmp_serde::to_vec_named(&Request { txns }) {
            Ok(request) => ask(&rpc, leader, request, count).await,
            Err(error) => all(count, || unknown(&error)),
        }
    };
    let mut asked = pin!(asked);
    let answers = {
        let mut nobody_waits = pin!(join_all(waiting.iter_mut().map(oneshot::Sender::closed)));
        let mut alone = pin!(tokio::time::sleep(GOES_ALONE));
        let mut long = pin!(tokio::time::sleep(HOLDS_UP));
        loop {
            tokio::select! {
                answers = &mut asked => break answers,
                _ = &mut nobody_waits => return,
                () = &mut alone, if room.turn.is_some() => drop(room.turn.take()),
                () = &mut long, if room.place.is_some() => drop(room.place.take()),
            }
        }
    };
    for (waiting, answer) in waiting.into_iter().zip(answers) {
        // Whoever does not wait any more does not hear it.
        let _ = waiting.send(answer);
    }
}

fn all(count: usize, answer: impl Fn() -> Answer) -> Vec<Answer> {
    (0..count).map(|_| answer()).collect()
}

/// An answer for each of `count` transactions.
async fn ask(rpc: &Rpc, leader: PeerId, request: Vec<u8>, count: usize) -> Vec<Answer> {
    match rpc.call(leader, request, ANSWER).await {
        Ok(bytes) => match rmp_serde::from_slice(&bytes) {
            Ok(Answers(answers)) if answers.len() == count => answers,
            Ok(_) => all(count, || unknown(&"the answer is to another request")),
            Err(error) => all(count, || unknown(&error)),
        },
        Err(RpcError::NotSent { .. }) => all(count, || Answer::NotLeader),
        Err(error @ RpcError::NoAnswer { .. }) => all(count, || unknown(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::PROPOSE;
    use super::super::ANSWER_LIMIT;
    use super::*;
    use crate::flock::rpc::serve;
    use gaggle_gossip::transport::MemoryHub;
    use gaggle_sched::state::{Applied, Revision};
    use std::sync::Mutex;
    use tokio::sync::watch;

    /// A leader's desktop that answers each transaction with the number in it, once the gate is open; and what it was
    /// asked, request by request.
    fn leader(hub: &MemoryHub, gate: watch::Receiver<bool>) -> (PeerId, Arc<Mutex<Vec<usize>>>) {
        let peer = PeerId::random();
        let transport = hub.transport(peer);
        let asked: Arc<Mutex<Vec<usize>>> = Arc::default();
        let acceptor = transport.accept(PROPOSE, 16).unwrap();
        let noted = asked.clone();
        tokio::spawn(async move {
            let _transport = transport;
            serve(acceptor, 1 << 20, move |_, request| {
                let (noted, mut gate) = (noted.clone(), gate.clone());
                async move {
                    let Request { txns } = rmp_serde::from_slice(&request).unwrap();
                    noted.lock().unwrap().push(txns.len());
                    gate.wait_for(|open| *open).await.unwrap();
                    let answers = txns.iter().map(|txn| {
                        let number: u64 = rmp_serde::from_slice(txn).unwrap();
                        Answer::Ordered(Ok(Applied { revision: Revision(number) }))
                    });
                    rmp_serde::to_vec_named(&Answers(answers.collect())).unwrap()
                }
            })
            .await;
        });
        (peer, asked)
    }

    async fn bring(courier: &Courier, to: PeerId, number: u64) -> Revision {
        match courier.bring(to, rmp_serde::to_vec(&number).unwrap()).await {
            Answer::Ordered(Ok(applied)) => applied.revision,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_goes_together_and_each_gets_its_own_answer() {
        let hub = MemoryHub::new();
        let (gate, opened) = watch::channel(false);
        let (leader, asked) = leader(&hub, opened);
        let courier = Courier::start(Rpc::new(hub.transport(PeerId::random()), PROPOSE, ANSWER_LIMIT));
        let all = join_all((0..600).map(|number| bring(&courier, leader, number)));
        let open = async {
            // Those that are held up make room after a while, so that nothing waits for ever.
            while asked.lock().unwrap().iter().sum::<usize>() < 600 {
                tokio::time::sleep(HOLDS_UP).await;
            }
            gate.send_replace(true);
        };
        let (revisions, ()) = tokio::join!(all, open);
        assert_eq!(revisions, (0..600).map(Revision).collect::<Vec<_>>());
        let asked = asked.lock().unwrap();
        assert!(asked.len() <= 2 * UNDER_WAY, "{asked:?}");
        assert!(asked.iter().all(|count| *count <= REQUEST_TXNS), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_is_soon_answered_all_that_come_wait_and_go_together() {
        let hub = MemoryHub::new();
        let (gate, opened) = watch::channel(false);
        let (leader, asked) = leader(&hub, opened);
        let courier = Courier::start(Rpc::new(hub.transport(PeerId::random()), PROPOSE, ANSWER_LIMIT));
        let first = bring(&courier, leader, 0);
        let others = async {
            while asked.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            join_all((1..=50).map(|number| bring(&courier, leader, number))).await
        };
        let open = async {
            tokio::time::sleep(GOES_ALONE / 2).await;
            gate.send_replace(true);
        };
        let began = tokio::time::Instant::now();
        let (first, others, ()) = tokio::join!(first, others, open);
        assert_eq!((first, others), (Revision(0), (1..=50).map(Revision).collect()));
        assert_eq!(*asked.lock().unwrap(), [1, 50]);
        assert!(began.elapsed() < GOES_ALONE, "they waited for longer than for the first one's answer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_does_not_answer_holds_up_nobody_who_asks_the_next() {
        let hub = MemoryHub::new();
        let (_shut, shut) = watch::channel(false);
        let (_open, open) = watch::channel(true);
        let ((stuck, asked), (next, _)) = (leader(&hub, shut), leader(&hub, open));
        let courier = Courier::start(Rpc::new(hub.transport(PeerId::random()), PROPOSE, ANSWER_LIMIT));
        // More than there are places for.
        let many = (UNDER_WAY as u64 + 1) * REQUEST_TXNS as u64;
        let held_up = async {
            tokio::select! {
                _ = join_all((0..many).map(|number| bring(&courier, stuck, number))) => panic!("nobody answers these"),
                () = tokio::time::sleep(HOLDS_UP / 2) => {}
            }
        };
        held_up.await;
        assert_eq!(asked.lock().unwrap().len(), UNDER_WAY);
        let began = tokio::time::Instant::now();
        assert_eq!(bring(&courier, next, 7).await, Revision(7));
        assert!(began.elapsed() < HOLDS_UP / 2, "it waited for the one before");
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_desktop_that_is_not_there_it_is_said_that_nothing_was_sent() {
        let hub = MemoryHub::new();
        let courier = Courier::start(Rpc::new(hub.transport(PeerId::random()), PROPOSE, ANSWER_LIMIT));
        assert!(matches!(courier.bring(PeerId::random(), vec![1]).await, Answer::NotLeader));
    }
}
