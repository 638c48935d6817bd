//! A machine: its disk, and while it is on a view, a part in the group or a stream that it follows.
//!
//! When it accepts an invitation and whom it follows are the daemon's rules (`flock::shell`), written again without what
//! surrounds them there: a change there belongs here, too.

use super::super::random::Random;
use super::disk::{Disk, End, Mount};
use super::wires::Invitation;
use super::{Bend, NODES, Plan, TICK, World, name};
use gaggle_sched::electorate::{Own, Tenure, TenureRules, Theirs};
use gaggle_sched::raft::{
    Gate, Group, GroupConfig, GroupId, Retention, Role, Status, Storage, Timings, follow,
};
use gaggle_sched::state::{Store, View};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What was heard is old after this.
const STALE: Duration = Duration::from_millis(2_500);
/// How long a part may know less than the leader that asks for leases.
const PASSED_AFTER: Duration = Duration::from_millis(500);
/// As long as a voter without a leader that hears a quorum is followed where another one has one.
const LEADERLESS: Duration = Duration::from_secs(3);
const TENURE: TenureRules = TenureRules { voted_out_after_ms: 500, never_voted_after_ms: 15_000 };
/// Bytes on the way in a follow stream.
const PIPE_BYTES: usize = 64 << 10;

/// Whether a leader may order now, and how often it was forbidden.
#[derive(Debug, Default)]
pub struct Permit {
    closed: AtomicBool,
    times: AtomicU64,
}

impl Permit {
    pub fn close(&self) {
        self.times.fetch_add(1, Ordering::SeqCst);
        self.closed.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// Which closing this is, while it is closed.
    pub fn closed_times(&self) -> Option<u64> {
        self.closed.load(Ordering::SeqCst).then(|| self.times.load(Ordering::SeqCst))
    }
}

struct Following {
    from: usize,
    life: u64,
    tasks: [JoinHandle<()>; 2],
}

impl Following {
    fn end(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

type Heard = Arc<Mutex<Option<(Status, Instant)>>>;

pub struct Machine {
    me: usize,
    group: GroupId,
    pub disk: Disk,
    pub view: View,
    pub gate: Arc<Permit>,
    pub on: bool,
    life: u64,
    part: Option<Group>,
    following: Option<Following>,
    heard: Heard,
    passed_since: Option<Instant>,
    /// Since when the voter that it follows has known no leader with a quorum.
    leaderless_since: Option<Instant>,
    /// Where its clock begins.
    began: Instant,
    tenure: Tenure,
    watches: Vec<JoinHandle<()>>,
}

impl Machine {
    pub fn new(me: usize, plan: &Plan, random: Random) -> Self {
        Self {
            me,
            group: super::group_id(plan.seed),
            disk: Disk::new(random, plan.bend == Bend::LyingDisk),
            view: View::default(),
            gate: Arc::default(),
            on: false,
            life: 0,
            part: None,
            following: None,
            heard: Heard::default(),
            passed_since: None,
            leaderless_since: None,
            began: Instant::now(),
            tenure: Tenure::default(),
            watches: Vec::new(),
        }
    }

    pub fn describe(&self) -> String {
        let status = self.part.as_ref().map(|group| group.status().borrow().clone());
        let heard = self.heard_status();
        format!("on {}, at {}, part {status:?}, hears {heard:?}", self.on, self.view.revision())
    }

    fn config(&self, world: &World, mount: Mount) -> GroupConfig {
        let gate = match world.bend {
            Bend::GateIgnored => Gate::default(),
            _ => {
                let permit = self.gate.clone();
                Gate::new(move |_, _| permit.closed_times().is_none())
            }
        };
        // A dozen entries, so that logs end and snapshots travel.
        let retention = Retention { log_bytes: 2 << 10, log_per_snapshot: 0, entries_kept: 3 };
        let storage: Arc<dyn Storage> = Arc::new(mount);
        GroupConfig { dir: dir(), storage, me: name(self.me), timings: Timings::lan(), retention, gate }
    }

    /// What its part says; it knows no leader while the others have gone on without it.
    fn own_status(&self) -> Option<Status> {
        let own = self.part.as_ref().map(|group| group.status().borrow().clone())?;
        let passed = self.passed_since.is_some_and(|since| since.elapsed() > PASSED_AFTER);
        Some(if passed { Status { leader: None, quorum: false, ..own } } else { own })
    }

    /// A leader of a later term that acts asks every machine for a lease: who was voted out together with its leader hears of
    /// it in this way only.
    fn note_passed(&mut self, world: &World) {
        let term = self.part.as_ref().map(|group| group.status().borrow().term);
        let leads = |node: &usize| {
            let status = world.wires.group(*node).map(|group| group.status().borrow().clone());
            status.is_some_and(|s| s.role == Role::Leader && s.quorum && Some(s.term) > term)
        };
        let reached = (0..NODES).filter(|node| *node != self.me && world.wires.passes(*node, self.me));
        let passed = term.is_some() && reached.into_iter().any(|node| leads(&node));
        self.passed_since = passed.then(|| self.passed_since.unwrap_or_else(Instant::now));
    }

    fn heard_status(&self) -> Option<Status> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.as_ref().filter(|(_, at)| at.elapsed() < STALE).map(|(status, _)| status.clone())
    }

    /// What is known of the group: from the own part if it hears a leader, else from the voter that is followed.
    fn known(&self) -> Option<Status> {
        let own = self.own_status().filter(|own| own.failed.is_none() && own.voters.contains(&name(self.me)));
        match own {
            Some(own) if own.leader.is_some() => Some(own),
            own => self.heard_status().or(own),
        }
    }

    fn take_part(&mut self, world: &Arc<World>, group: Group) {
        world.wires.plug(self.me, self.life, &group, &self.view);
        let (me, judge, mut status) = (self.me, world.judge.clone(), group.status());
        let watch = async move {
            loop {
                judge.hears(me, &status.borrow_and_update());
                if status.changed().await.is_err() {
                    return;
                }
            }
        };
        self.watches.push(tokio::spawn(watch));
        self.part = Some(group);
        self.tenure = Tenure::default();
    }

    /// Switches it on.
    async fn start(&mut self, world: &Arc<World>) {
        if self.on {
            return;
        }
        self.disk.power_on();
        let mount = self.disk.mount();
        self.life += 1;
        self.on = true;
        self.view = View::default();
        self.heard = Heard::default();
        world.judge.note(&name(self.me), || "is switched on".into());
        self.watches.push(tokio::spawn(world.judge.clone().watch(self.me, self.view.clone())));
        let config = self.config(world, mount.clone());
        match Group::resume(config, world.wires.port(self.me), self.view.clone()).await {
            Ok(Some(group)) => self.take_part(world, group),
            Ok(None) => {}
            // The power may go right then.
            Err(_) if mount.exists(Path::new("/")).is_err() => {}
            Err(error) => {
                let what = format!("{}: {error}: {:?}", name(self.me), std::error::Error::source(&error));
                world.judge.violated("what a crash leaves is whole", what);
            }
        }
    }

    /// It ends at once. What it still does reaches nobody.
    fn stop(&mut self, world: &World, how: End) {
        if !self.on {
            return;
        }
        self.disk.end(how);
        world.wires.unplug(self.me);
        self.on = false;
        world.judge.note(&name(self.me), || format!("ends: {how:?}"));
        self.watches.drain(..).for_each(|watch| watch.abort());
        if let Some(following) = self.following.take() {
            following.end();
        }
        if let Some(group) = self.part.take() {
            tokio::spawn(async move { group.stop().await });
        }
    }

    /// Frames arrive although this node has no part: the leader that it follows makes it a voter.
    async fn accept(&mut self, world: &Arc<World>, from: usize) {
        let Some(known) = self.known().filter(|_| self.on && self.part.is_none()) else { return };
        let me = name(self.me);
        if known.leader != Some(name(from)) || known.voters.contains(&me) {
            return;
        }
        let mount = self.disk.mount();
        if world.bend == Bend::TermForgotten {
            let _ = mount.remove(&dir().join("raft.left"));
        }
        let mut voters = known.voters.clone();
        voters.insert(name(from));
        let config = self.config(world, mount);
        let (port, view) = (world.wires.port(self.me), self.view.clone());
        let joined = Group::join(config, port, view, self.group.clone(), 1, voters).await;
        if let Ok(group) = joined {
            world.judge.note(&me, || format!("takes a part, invited by {}", name(from)));
            world.judge.count(|stats| stats.parts_taken += 1);
            self.take_part(world, group);
        }
    }

    async fn drop_part(&mut self, world: &World) {
        world.wires.unplug(self.me);
        if let Some(following) = self.following.take() {
            following.end();
        }
        if let Some(group) = self.part.take() {
            group.stop().await;
        }
        let storage: Arc<dyn Storage> = Arc::new(self.disk.mount());
        // Where the power goes meanwhile, the part is still there afterwards.
        if Group::forget(&storage, &dir()).is_ok() {
            world.judge.note(&name(self.me), || "drops its part".into());
            world.judge.count(|stats| stats.parts_dropped += 1);
        }
    }

    async fn tick(&mut self, world: &Arc<World>) {
        if !self.on {
            return;
        }
        self.note_passed(world);
        self.follow(world);
        let me = name(self.me);
        let heard = self.heard_status();
        if let (Some(group), Some(heard)) = (&self.part, &heard) {
            group.tell(heard.voters.clone());
        }
        let Some(own) = self.own_status() else { return };
        if let Some(why) = &own.failed {
            let broken = self.disk.mount().exists(Path::new("/")).is_err();
            if !broken {
                world.judge.violated("a group whose disk works does not fail", format!("{me}: {why}"));
            }
            return;
        }
        let theirs = heard
            .filter(|heard| heard.leader.is_some())
            .map(|heard| Theirs { names: heard.voters.contains(&me), applied: heard.applied });
        let (names, led) = (own.voters.contains(&me), own.leader.is_some());
        let learns = self.part.as_ref().is_some_and(Group::learns);
        let own = Own { names, learns, led, named_at: own.named_at };
        if self.tenure.is_over(own, theirs, &TENURE, self.began.elapsed().as_millis() as u64) {
            self.drop_part(world).await;
        }
    }

    /// A voter's own machine writes its view; everyone else's view follows a voter.
    fn follow(&mut self, world: &World) {
        let gone = |following: &mut Following| {
            !world.wires.passes(following.from, self.me)
                || world.wires.life(following.from) != Some(following.life)
                || following.tasks.iter().any(JoinHandle::is_finished)
        };
        if let Some(following) = self.following.take_if(gone) {
            following.end();
        }
        let leads =
            |own: Status| own.failed.is_none() && own.voters.contains(&name(self.me)) && own.leader.is_some();
        if self.own_status().is_some_and(leads) {
            if let Some(following) = self.following.take() {
                following.end();
            }
            return;
        }
        // Also where it has nothing new to say.
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let leaderless = self.following.is_some()
            && heard.is_some_and(|(status, _)| status.leader.is_none() || !status.quorum);
        self.leaderless_since = leaderless.then(|| self.leaderless_since.unwrap_or_else(Instant::now));
        let leaves = self.leaderless_since.is_some_and(|since| since.elapsed() >= LEADERLESS);
        let sources = (0..NODES).filter(|node| *node != self.me && world.wires.passes(*node, self.me));
        let sources = sources.filter_map(|node| {
            let status = world.wires.group(node)?.status().borrow().clone();
            (status.role != Role::Learner).then_some((
                status.quorum,
                status.role == Role::Leader,
                status.applied,
                node,
            ))
        });
        let mut sources: Vec<_> = sources.collect();
        sources.sort_unstable();
        if let Some(following) = &self.following {
            let better = sources.last().is_some_and(|(quorum, .., best)| *quorum && *best != following.from);
            if !leaves || !better {
                return;
            }
        }
        self.following.take().into_iter().for_each(Following::end);
        let any = world.random(|random| random.permille(300).then(|| random.below(sources.len().max(1))));
        let source = any.and_then(|any| sources.get(any)).or(sources.last());
        let Some((from, (life, group, theirs))) =
            source.and_then(|(.., node)| Some((*node, world.wires.part(*node)?)))
        else {
            return;
        };
        // While our own part holds the view we only listen.
        let view = if self.view.read(Store::is_owned) { View::default() } else { self.view.clone() };
        let (near, far) = duplex(PIPE_BYTES);
        let (heard, status) = (self.heard.clone(), group.status());
        let serve = tokio::spawn(async move {
            let _ = follow::serve(theirs, status, far).await;
        });
        let follow = tokio::spawn(async move {
            let hear = |status| {
                *heard.lock().unwrap_or_else(PoisonError::into_inner) = Some((status, Instant::now()));
            };
            let _ = follow::follow(view, near, hear).await;
        });
        self.following = Some(Following { from, life, tasks: [serve, follow] });
    }
}

fn dir() -> PathBuf {
    PathBuf::from("/raft")
}

/// The first machine founds the group; the others are switched on.
pub async fn found(world: &Arc<World>, founder: usize, id: GroupId) {
    for node in 0..NODES {
        world.machines[node].lock().await.start(world).await;
    }
    let mut machine = world.machines[founder].lock().await;
    let config = machine.config(world, machine.disk.mount());
    let (port, view) = (world.wires.port(founder), machine.view.clone());
    match Group::found(config, port, view, id, 1).await {
        Ok(group) => machine.take_part(world, group),
        Err(error) => world.judge.violated("a group can be founded", error.to_string()),
    }
}

/// Each machine does what it does, until the run ends.
pub fn live(world: &Arc<World>, mut invitations: mpsc::Receiver<Invitation>) {
    for node in 0..NODES {
        let (ticks, darkness) = (world.clone(), world.clone());
        tokio::spawn(async move {
            loop {
                ticks.machines[node].lock().await.tick(&ticks).await;
                tokio::time::sleep(TICK).await;
            }
        });
        tokio::spawn(async move {
            let disk = darkness.machines[node].lock().await.disk.clone();
            loop {
                disk.until_dark().await;
                end_for(&darkness, node, End::Power, darkness.random(|random| random.within(100, 4_000)))
                    .await;
            }
        });
    }
    let world = world.clone();
    tokio::spawn(async move {
        while let Some(Invitation { from, to }) = invitations.recv().await {
            world.machines[to].lock().await.accept(&world, from).await;
        }
    });
}

/// A machine ends, and is back after so many milliseconds.
pub async fn end_for(world: &Arc<World>, node: usize, how: End, ms: u64) {
    world.machines[node].lock().await.stop(world, how);
    let world = world.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        world.machines[node].lock().await.start(&world).await;
    });
}

/// Everybody is on.
pub async fn start_all(world: &Arc<World>) {
    for node in 0..NODES {
        world.machines[node].lock().await.start(world).await;
    }
}

/// A leader makes these the voters.
pub fn set_voters(world: &Arc<World>, voters: BTreeSet<usize>) {
    let Some(leader) = world.leaders().first().copied() else { return };
    let Some(group) = world.wires.group(leader) else { return };
    let judge = world.judge.clone();
    let voters: BTreeSet<String> = voters.into_iter().map(name).collect();
    tokio::spawn(async move {
        let changed = group.set_voters(voters.clone()).await;
        judge.note(&name(leader), || format!("made {voters:?} the voters: {changed:?}"));
        judge.count(|stats| stats.voter_changes += u64::from(changed.is_ok()));
    });
}
