//! Clients: they write registers, mostly as compare-and-set on what some machine shows them, and send again what was not
//! answered. Others watch, through one machine after the other.

use super::super::random::Random;
use super::judge::{Operation, Told, content, key, value_of};
use super::{NODES, World};
use gaggle_sched::raft::ProposeError;
use gaggle_sched::state::{Applied, Expect, Key, Refused, Revision, Txn, TxnId, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const CLIENTS: usize = 3;
const WATCHERS: usize = 2;
const REGISTERS: usize = 4;
/// How often a write is sent before its client says that it does not know.
const TRIES: u32 = 6;

pub struct Clients {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    pub fn start(world: &Arc<World>, mut random: Random) -> Self {
        let stop = CancellationToken::new();
        let next = Arc::new(AtomicU64::new(1));
        let tasks = (0..CLIENTS).map(|_| {
            let (world, next, stop, random) = (world.clone(), next.clone(), stop.clone(), random.split());
            tokio::spawn(client(world, next, stop, random))
        });
        let writers: Vec<_> = tasks.collect();
        let watchers = (0..WATCHERS).map(|number| {
            let (world, stop, random) = (world.clone(), stop.clone(), random.split());
            tokio::spawn(watcher(world, NODES + number, stop, random))
        });
        let tasks = writers.into_iter().chain(watchers).collect();
        Self { stop, tasks }
    }

    /// Each ends what it has begun.
    pub async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // A client does not panic, and nobody aborts it.
            let _ = task.await;
        }
    }
}

async fn client(world: Arc<World>, next: Arc<AtomicU64>, stop: CancellationToken, mut random: Random) {
    while !stop.is_cancelled() {
        let pause = Duration::from_micros(random.within(1_000, 400_000));
        tokio::time::sleep(pause).await;
        let key = key(random.below(REGISTERS));
        let reader = random.below(NODES);
        let view = world.machines[reader].lock().await.view.clone();
        let there = content(&view).into_iter().find(|(other, ..)| *other == key);
        let expect = match there {
            _ if random.permille(300) => Expect::Any,
            Some((_, revision, _)) => Expect::Revision(revision),
            None => Expect::Absent,
        };
        let value = next.fetch_add(1, Ordering::Relaxed);
        let txn = put(&key, value, expect.clone(), TxnId(1, value));
        let began = Instant::now();
        let told = send(&world, txn, &mut random).await;
        let ended = Instant::now();
        world.judge.did(Operation { key, value, expect, began, ended, told });
    }
}

/// Watches as the API serves it (`api::read::caught_up`, `api::watch`): with the revision that it was shown it goes to
/// another machine, which waits until it has got so far, and goes on from there or says that it cannot (410).
async fn watcher(world: Arc<World>, who: usize, stop: CancellationToken, mut random: Random) {
    let (mut seen, mut span) = (None, None);
    while !stop.is_cancelled() {
        let through = random.below(NODES);
        let view = world.machines[through].lock().await.view.clone();
        let mut bell = view.subscribe();
        let leaves = Instant::now() + Duration::from_micros(random.within(10_000, 3_000_000));
        if tokio::time::timeout_at(leaves, view.reached(seen.unwrap_or_default())).await.is_err() {
            continue;
        }
        let mut at = view.seen();
        if let Some(seen) = seen {
            at.revision = seen;
        } else {
            (seen, span) = (Some(at.revision), None);
        }
        loop {
            bell.mark_unchanged();
            match view.changes_after(at) {
                Ok(changes) => {
                    for change in changes {
                        let value = change.object.as_ref().and_then(|object| value_of(object.value()));
                        let of = *span.get_or_insert_with(|| world.judge.begin_span(who, at.revision));
                        world.judge.sees(who, Some(of), change.revision, &change.key, value);
                        at.revision = change.revision;
                        seen = Some(change.revision);
                    }
                }
                // It lists again, and is not shown anything older.
                Err(_) => {
                    let listed = view.seen();
                    world.judge.lists(who, through, seen, listed.revision);
                    (at, seen, span) = (listed, Some(listed.revision), None);
                }
            }
            let rung = tokio::time::timeout_at(leaves, bell.changed()).await;
            if !matches!(rung, Ok(Ok(()))) || stop.is_cancelled() {
                break;
            }
        }
    }
}

fn put(key: &Key, value: u64, expect: Expect, id: TxnId) -> Txn {
    let object = serde_json::json!({
        "metadata": {"name": key.name, "uid": key.name},
        "data": {"v": value.to_string()},
    });
    let write = Write::Put { key: key.clone(), value: object, expect, intent: None };
    Txn { id: Some(id), writes: vec![write] }
}

async fn send(world: &World, txn: Txn, random: &mut Random) -> Told {
    let mut maybe = false;
    for _ in 0..TRIES {
        match once(world, txn.clone(), random).await {
            Some(Ok(Ok(Applied { revision }))) => return Told::Acknowledged(revision),
            // Sent once only, or not at all before: else an earlier try may have done it, and this one found it done.
            Some(Ok(Err(refused))) if !maybe => {
                return Told::Refused(match refused {
                    Refused::Conflict { current, .. } => Some(current),
                    Refused::AlreadyExists(_) | Refused::NotFound(_) => None,
                });
            }
            Some(Ok(Err(_))) => return Told::Unknown,
            Some(Err(ProposeError::Unknown(_))) => maybe = true,
            Some(Err(_)) | None => {}
        }
        let pause = Duration::from_micros(random.within(20_000, 500_000));
        tokio::time::sleep(pause).await;
    }
    if maybe { Told::Unknown } else { Told::NotWritten }
}

type Answer = Result<Result<Applied, Refused>, ProposeError>;

async fn once(world: &World, txn: Txn, random: &mut Random) -> Option<Answer> {
    let leaders = world.leaders();
    let leader = *leaders.get(random.below(leaders.len().max(1)))?;
    let group = world.wires.group(leader)?;
    let closed = world.machines[leader].lock().await.gate.closed_times();
    let answer = group.propose(txn).await;
    let closed_before = closed.is_some() && closed == world.machines[leader].lock().await.gate.closed_times();
    if closed_before && matches!(answer, Ok(Ok(_))) {
        world.judge.violated(
            "a leader orders only while it may",
            format!("{} ordered behind its closed gate", super::name(leader)),
        );
    }
    Some(answer)
}

/// A write after everything: it must be taken.
pub async fn write_at_last(world: &World) -> Revision {
    let mut random = world.random(Random::split);
    let txn = put(&key(REGISTERS), u64::MAX, Expect::Any, TxnId(2, 0));
    loop {
        if let Told::Acknowledged(revision) = send(world, txn.clone(), &mut random).await {
            return revision;
        }
    }
}
