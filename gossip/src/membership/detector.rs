//! Who is alive: whose heartbeat has grown lately enough.
//!
//! Pure: time is an argument. Three things make it honest.
//!
//! **Its clock counts only time in which this node looked.** A node that is suspended, frozen or starved of its processor
//! hears nobody, which says nothing about the others; between two looks the clock moves on by at most one step. A
//! desktop that wakes therefore takes nobody for dead before it has listened for as long as usual.
//!
//! **It knows slow nodes.** The longest recent gap between a node's heartbeats is remembered (and forgotten by half
//! every so often), and a node is given a multiple of it. A desktop under load is slow for minutes, not once.
//!
//! **A broken connection is a second witness.** Who is not connected is waited for half as long: its process ended, or
//! its network is gone, and only hearsay speaks for it. Neither witness is believed alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;

/// A node may be silent for this many times its longest recent gap.
const SLOW: f64 = 2.5;
/// ... but never for longer than this many times the usual patience.
const SLOWEST: u32 = 4;
/// After this much time the memory of a gap has halved, in seconds.
const GAP_HALVES: f64 = 20.0;
/// News of a dead node that must arrive before it lives again. One may be old news that was still on its way.
const REVIVES: u32 = 2;

/// What was heard of one node.
#[derive(Debug)]
struct Heard {
    generation: u64,
    heartbeat: u64,
    /// When the heartbeat grew for the last time, by the detector's clock.
    at: Duration,
    /// The longest gap between two heartbeats, half forgotten with time, in seconds.
    gap: f64,
    /// How often the heartbeat grew since the node was found, or found dead.
    news: u32,
    alive: bool,
}

/// What is seen of a node at a look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    pub(super) peer: PeerId,
    pub(super) generation: u64,
    pub(super) heartbeat: u64,
    pub(super) connected: bool,
}

#[derive(Debug, Default)]
pub(super) struct Detector {
    /// How long this node has looked, in all.
    clock: Duration,
    looked: Option<Instant>,
    peers: BTreeMap<PeerId, Heard>,
}

impl Detector {
    /// A look at what was heard. However long ago the last one was, at most `step` of it counts.
    pub(super) fn look(&mut self, now: Instant, step: Duration) {
        let passed = self.looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.clock += passed.min(step);
        self.looked = Some(now);
    }

    /// Whether a node is alive, given the patience that the flock's size asks for.
    pub(super) fn judge(&mut self, beat: Beat, patience: Duration) -> bool {
        let clock = self.clock;
        let heard = self.peers.entry(beat.peer).or_insert_with(|| Heard::new(&beat, clock));
        if beat.generation != heard.generation {
            *heard = Heard::new(&beat, clock);
        } else if beat.heartbeat > heard.heartbeat {
            heard.grow(beat.heartbeat, clock);
        }
        let silence = clock.saturating_sub(heard.at);
        let enough_news = beat.connected || heard.news >= REVIVES;
        let alive = silence <= heard.patience(beat.connected, patience)
            && (heard.alive || enough_news && heard.news > 0);
        if heard.alive && !alive {
            heard.news = 0;
        }
        heard.alive = alive;
        alive
    }

    /// Forgets whom gossip has forgotten.
    pub(super) fn retain(&mut self, known: impl Fn(&PeerId) -> bool) {
        self.peers.retain(|peer, _| known(peer));
    }
}

impl Heard {
    /// A first heartbeat counts as none, unless the node itself is there to tell it: it may be old.
    fn new(beat: &Beat, clock: Duration) -> Self {
        let news = u32::from(beat.connected);
        Self {
            generation: beat.generation,
            heartbeat: beat.heartbeat,
            at: clock,
            gap: 0.0,
            news,
            alive: false,
        }
    }

    fn grow(&mut self, heartbeat: u64, clock: Duration) {
        let gap = clock.saturating_sub(self.at).as_secs_f64();
        let kept = self.gap * 0.5f64.powf(gap / GAP_HALVES);
        // The silence of the dead is no slowness.
        self.gap = if self.alive { kept.max(gap) } else { kept };
        self.heartbeat = heartbeat;
        self.at = clock;
        self.news = self.news.saturating_add(1);
    }

    fn patience(&self, connected: bool, usual: Duration) -> Duration {
        let least = if connected { usual } else { usual / 2 };
        Duration::from_secs_f64(self.gap * SLOW).clamp(least, usual * SLOWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(2);

    /// A detector that looks at one node ten times a second.
    struct Watch {
        detector: Detector,
        peer: PeerId,
        now: Instant,
        heartbeat: u64,
    }

    impl Watch {
        fn new() -> Self {
            Self { detector: Detector::default(), peer: PeerId::random(), now: Instant::now(), heartbeat: 1 }
        }

        fn judge(&mut self, connected: bool) -> bool {
            let Self { peer, heartbeat, .. } = *self;
            self.detector.look(self.now, STEP);
            self.detector.judge(Beat { peer, generation: 1, heartbeat, connected }, PATIENCE)
        }

        /// Looks for so many milliseconds; the heartbeat grows every `every` of them (0: never). Returns for how many
        /// of the looks the node was alive.
        fn watch(&mut self, millis: u64, every: u64, connected: bool) -> Vec<bool> {
            let looks = (1..=millis / 100).map(|look| {
                self.now += Duration::from_millis(100);
                if every > 0 && (look * 100).is_multiple_of(every) {
                    self.heartbeat += 1;
                }
                self.judge(connected)
            });
            looks.collect()
        }
    }

    fn lived(looks: &[bool]) -> usize {
        looks.iter().take_while(|alive| **alive).count()
    }

    #[test]
    fn who_falls_silent_is_dead_after_the_patience_and_sooner_when_its_connection_broke() {
        for (connected, tenths) in [(true, 20), (false, 10)] {
            let mut watch = Watch::new();
            assert!(watch.watch(5_000, 200, true).iter().all(|alive| *alive));
            let looks = watch.watch(5_000, 0, connected);
            assert_eq!(lived(&looks), tenths, "{looks:?}");
            assert!(looks[tenths..].iter().all(|alive| !alive), "dead is dead");
        }
    }

    #[test]
    fn a_node_that_did_not_look_takes_nobody_for_dead() {
        let mut watch = Watch::new();
        watch.watch(5_000, 200, true);
        // Suspended for an hour: what the others said meanwhile has not been read yet.
        watch.now += Duration::from_secs(3600);
        assert_eq!(lived(&watch.watch(1_500, 0, true)), 15, "not before it has listened for its patience");
        watch.heartbeat += 1;
        assert!(watch.watch(1_900, 0, true).iter().all(|alive| *alive));
        // Starved: it looks every three seconds, and hears a heartbeat at every third look.
        for look in 1..30 {
            watch.now += Duration::from_secs(3);
            watch.heartbeat += u64::from(look % 3 == 0);
            assert!(watch.judge(true), "{look}");
        }
    }

    #[test]
    fn a_slow_node_is_given_time_and_loses_the_credit_when_it_is_well() {
        let mut watch = Watch::new();
        watch.watch(5_000, 200, true);
        // Starved: a heartbeat every 1.8 s and then one after 4 s.
        assert!(watch.watch(18_000, 1_800, true).iter().all(|alive| *alive));
        assert!(watch.watch(4_000, 4_000, true).iter().all(|alive| *alive), "it was known to be slow");
        assert_eq!(lived(&watch.watch(20_000, 0, true)), 80, "even a slow one is dead at some time");
        let mut watch = Watch::new();
        watch.watch(18_000, 1_800, true);
        watch.watch(60_000, 200, true);
        assert_eq!(lived(&watch.watch(5_000, 0, true)), 20, "well for a minute");
    }

    #[test]
    fn the_last_words_of_the_dead_do_not_revive_them() {
        let mut watch = Watch::new();
        watch.watch(5_000, 200, true);
        watch.watch(3_000, 0, false);
        watch.heartbeat += 1;
        assert!(!watch.judge(false), "old news by way of a third");
        assert!(!watch.watch(1_000, 0, false).iter().any(|alive| *alive));
        watch.heartbeat += 1;
        assert!(watch.judge(false), "it speaks again");
        assert_eq!(lived(&watch.watch(3_000, 0, false)), 10);
        assert!(!watch.judge(true), "a connection alone says nothing");
        watch.heartbeat += 1;
        assert!(watch.judge(true), "one heartbeat over its own connection does");
    }

    #[test]
    fn who_was_never_heard_to_speak_is_not_alive_unless_it_is_here_itself() {
        let mut watch = Watch::new();
        assert!(!watch.judge(false), "a name that somebody remembers");
        let mut here = Watch::new();
        assert!(here.judge(true));
        here.detector.retain(|_| false);
        assert!(!here.judge(false), "forgotten");
    }

    #[test]
    fn a_new_run_begins_anew() {
        let mut watch = Watch::new();
        watch.watch(5_000, 200, true);
        watch.watch(5_000, 0, false);
        let beat = Beat { peer: watch.peer, generation: 2, heartbeat: 1, connected: true };
        assert!(watch.detector.judge(beat, PATIENCE), "restarted, and its heartbeat begins low");
    }
}
