//! The real Raft part (`sched::raft`: openraft, its log, snapshots, elections, following) in virtual time, with
//! networks, disks and machines that fail by seed.
//!
//! Everything runs on one thread whose clock stands still while anything can be done. What happens, and when, is drawn from
//! the seed. Two things are not: which of the tasks that wait for one value tokio wakes first, and which branch it looks at
//! first where two are ready ([tokio offers to seed both only in its unstable parts]). So a seed gives the same faults at the
//! same moments, and nearly always, but not surely, the same run: a failure therefore says all that it knows at once.
//! Not modelled here: founding anew, leases and who may act ([`super::safety`] does); invitations and dropped parts follow
//! the daemon's rules, written again ([`machine`]).
//!
//! [tokio offers to seed both only in its unstable parts]: https://docs.rs/tokio/latest/tokio/runtime/struct.Builder.html

mod clients;
mod disk;
mod faults;
mod judge;
mod machine;
mod wires;

use super::random::Random;
use clients::Clients;
pub use faults::{Fault, What};
use gaggle_sched::raft::{GroupId, Role};
use judge::Judge;
pub use judge::{Stats, Violation};
use machine::Machine;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use wires::Wires;

/// Machines of a run, of which some vote.
const NODES: usize = 6;
/// After the last fault a write must be everywhere within this time.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a machine looks at its place in the group, as the daemon does.
const TICK: Duration = Duration::from_millis(100);

/// A rule that is bent, to see that the checks notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bend {
    #[default]
    None,
    /// The disk says that votes and entries are flushed, and they are not.
    LyingDisk,
    /// Leaders order although they may not.
    GateIgnored,
    /// Who gives up its part forgets the term.
    TermForgotten,
}

/// All that a run depends on.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub until: Duration,
    pub faults: Vec<Fault>,
    pub bend: Bend,
}

impl Plan {
    pub fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x4a47_0000);
        let until = Duration::from_millis(random.within(10_000, 40_000));
        Self { seed, until, faults: faults::draw(&mut random, NODES, until), bend: Bend::None }
    }
}

/// What a failure looks like.
#[derive(Clone, Debug)]
pub struct Failure {
    pub violation: Violation,
    /// What happened last.
    pub trace: Vec<String>,
}

/// What all parts of a run share.
struct World {
    bend: Bend,
    wires: Wires,
    judge: Judge,
    machines: Vec<Mutex<Machine>>,
    random: std::sync::Mutex<Random>,
}

impl World {
    fn random<T>(&self, draw: impl FnOnce(&mut Random) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Who leads, as the leaders say themselves; there may be several.
    fn leaders(&self) -> Vec<usize> {
        let leads = |node: &usize| {
            let group = self.wires.group(*node);
            group.is_some_and(|group| group.status().borrow().role == Role::Leader)
        };
        (0..NODES).filter(leads).collect()
    }
}

/// Runs a plan.
///
/// # Errors
/// When something was violated.
pub fn run(plan: &Plan) -> Result<Stats, Box<Failure>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime needs nothing but memory");
    runtime.block_on(play(plan))
}

fn group_id(seed: u64) -> GroupId {
    GroupId::from_random(seed.to_be_bytes())
}

async fn play(plan: &Plan) -> Result<Stats, Box<Failure>> {
    let mut random = Random::new(plan.seed);
    let (wires, invitations) = Wires::new(NODES, random.split());
    let machines = (0..NODES).map(|node| Mutex::new(Machine::new(node, plan, random.split())));
    let world = Arc::new(World {
        bend: plan.bend,
        wires,
        judge: Judge::new(),
        machines: machines.collect(),
        random: std::sync::Mutex::new(random.split()),
    });
    machine::found(&world, 0, group_id(plan.seed)).await;
    machine::live(&world, invitations);
    let clients = Clients::start(&world, random.split());
    let began = Instant::now();
    for fault in &plan.faults {
        tokio::time::sleep_until(began + fault.at).await;
        if world.judge.failed() {
            break;
        }
        faults::begin(&world, fault).await;
    }
    tokio::time::sleep_until(began + plan.until).await;
    faults::heal(&world).await;
    clients.stop().await;
    comes_together(&world).await;
    world.judge.close();
    world.judge.result()
}

/// One leads, and what is written now is seen by all.
async fn comes_together(world: &Arc<World>) {
    if world.judge.failed() {
        return;
    }
    let all_see = async {
        let last = clients::write_at_last(world).await;
        for node in 0..NODES {
            let view = world.machines[node].lock().await.view.clone();
            while view.revision() < last {
                tokio::time::sleep(TICK).await;
            }
        }
    };
    if tokio::time::timeout(PATIENCE, all_see).await.is_err() {
        let mut text = String::new();
        for node in 0..NODES {
            let machine = world.machines[node].lock().await;
            text.push_str(&format!("\n    {}: {}", name(node), machine.describe()));
        }
        world.judge.violated("the group goes on after the last fault", text);
    }
    // Those who watch the views have seen it as well.
    tokio::time::sleep(TICK).await;
    let mut contents = Vec::new();
    for node in 0..NODES {
        contents.push((node, judge::content(&world.machines[node].lock().await.view)));
    }
    world.judge.all_see(&contents);
}

/// A failed plan, for people.
pub fn report(plan: &Plan, failure: &Failure, lines: usize) -> String {
    let Violation { rule, what, at } = &failure.violation;
    let mut text =
        format!("seed {} violates: {rule}\n  at {} ms: {what}\nfaults:\n", plan.seed, at.as_millis());
    for fault in plan.faults.iter().filter(|fault| fault.at <= *at) {
        text.push_str(&format!(
            "  at {} ms for {} ms: {:?}\n",
            fault.at.as_millis(),
            fault.lasts.as_millis(),
            fault.what
        ));
    }
    text.push_str("what happened last:\n");
    for line in failure.trace.iter().skip(failure.trace.len().saturating_sub(lines)) {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

fn name(node: usize) -> String {
    char::from(b'a' + node as u8).to_string()
}

fn index(peer: &str) -> usize {
    peer.bytes().next().map_or(0, |byte| usize::from(byte - b'a'))
}
