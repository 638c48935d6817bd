//! When a guard looks at the engine, when it kills, and when it is no longer needed: pure, times as arguments.
//!
//! All moments are of [`crate::boottime`].

use gaggle_sched::controller::identity::IDENTITY_HOLD;

const HOLD_MS: u64 = IDENTITY_HOLD.as_millis() as u64;
/// How much later than a living daemon the guard kills: its agent does so by itself, and reports what it did.
pub const DAEMON_FIRST_MS: u64 = 1_000;
/// How soon the engine is looked at again after something ran there, or it did not answer.
const LOOK_AGAIN_MS: u64 = 500;
/// The same once it has not answered, or not killed, for so long that it hardly will in time. An identity that cannot be
/// killed is guarded for as long as it runs.
const LOOK_SELDOM_MS: u64 = 5_000;
const SELDOM_AFTER_MS: u64 = 30_000;
/// A start that the daemon had asked for at its end may come true later: the engine is looked at for so long.
const STRAGGLERS_MS: u64 = 30_000;
/// The same after a daemon that ended in order, whose requests were answered or dropped.
const LAST_LOOK_AFTER_MS: u64 = 1_000;
/// An engine that does not answer for so long is given up by a guard whose daemon is gone.
const GIVEN_UP_AFTER_MS: u64 = 300_000;
/// The same while somebody waits for the guard's end: the machine is being switched off, perhaps.
const GIVEN_UP_IN_HASTE_MS: u64 = 10_000;

/// What has become of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// It runs, but its agent does not yet: nobody else heeds the hold.
    Starting,
    Lives,
    /// It ended in order and starts nothing more. Containers may run on.
    Left,
    /// It ended without a word.
    Died,
}

/// What a look at the engine showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Nothing,
    Running,
    /// The engine did not answer.
    Silence,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this moment, as far as is known.
    Rest { until_ms: u64 },
    /// See whether identities run.
    Look,
    /// See whether identities run, and kill them.
    Kill,
    /// Nothing is left to guard.
    End,
}

/// What a guard knows.
#[derive(Clone, Debug)]
pub struct Watch {
    heard_ms: u64,
    daemon: Daemon,
    /// Somebody waits for this guard's end.
    hurried: bool,
    /// Since when every look has shown nothing.
    clean_since_ms: Option<u64>,
    /// Since when no look has been answered.
    silent_since_ms: Option<u64>,
    /// Since when every look has shown something that runs although it must not.
    defied_since_ms: Option<u64>,
    look_at_ms: u64,
}

impl Watch {
    /// `heard_ms`: when an acting leader was heard last, as far as the daemon before noted it; 0 for never.
    pub fn new(heard_ms: u64) -> Self {
        let daemon = Daemon::Starting;
        Self {
            heard_ms,
            daemon,
            hurried: false,
            clean_since_ms: None,
            silent_since_ms: None,
            defied_since_ms: None,
            look_at_ms: 0,
        }
    }

    /// The daemon's agent heeds the hold, and a leader was heard at that moment.
    pub fn heard(&mut self, moment_ms: u64) {
        if self.daemon == Daemon::Starting {
            self.turn(Daemon::Lives);
        }
        if moment_ms > self.heard_ms {
            self.heard_ms = moment_ms;
            self.begin_anew();
        }
    }

    /// The daemon ends in order: it will start nothing more.
    pub fn farewell(&mut self) {
        self.turn(Daemon::Left);
    }

    /// The daemon's end of the pipe is closed.
    pub fn closed(&mut self) {
        if !self.is_orphan() {
            self.turn(Daemon::Died);
        }
    }

    /// A service manager wants all of the service to end, and may start nothing before it has: stragglers are left to the
    /// daemon that comes next.
    pub fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Whether the daemon is gone.
    pub fn is_orphan(&self) -> bool {
        matches!(self.daemon, Daemon::Left | Daemon::Died)
    }

    /// Whether identities must not run.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.due_ms()
    }

    /// What a look at `now_ms` showed.
    pub fn looked(&mut self, now_ms: u64, found: Found) {
        let since = |known: Option<u64>| Some(known.unwrap_or(now_ms));
        let defied = found == Found::Running && self.is_over(now_ms);
        self.defied_since_ms = if defied { since(self.defied_since_ms) } else { None };
        match found {
            Found::Nothing => {
                (self.clean_since_ms, self.silent_since_ms) = (since(self.clean_since_ms), None)
            }
            Found::Running => (self.clean_since_ms, self.silent_since_ms) = (None, None),
            Found::Silence => {
                (self.clean_since_ms, self.silent_since_ms) = (None, since(self.silent_since_ms))
            }
        }
        let in_vain_since_ms = self.silent_since_ms.or(self.defied_since_ms);
        let seldom = in_vain_since_ms.is_some_and(|since| now_ms.saturating_sub(since) >= SELDOM_AFTER_MS);
        self.look_at_ms = now_ms + if seldom { LOOK_SELDOM_MS } else { LOOK_AGAIN_MS };
    }

    pub fn next(&self, now_ms: u64) -> Step {
        let lasts =
            |since: Option<u64>, ms: u64| since.is_some_and(|since| now_ms.saturating_sub(since) >= ms);
        let patience_ms = if self.hurried { GIVEN_UP_IN_HASTE_MS } else { GIVEN_UP_AFTER_MS };
        if self.is_orphan() && lasts(self.silent_since_ms, patience_ms) {
            return Step::End;
        }
        let (over, looks) = (self.is_over(now_ms), now_ms >= self.look_at_ms);
        let daemon = if self.hurried && self.is_orphan() { Daemon::Left } else { self.daemon };
        match daemon {
            Daemon::Left if lasts(self.clean_since_ms, LAST_LOOK_AFTER_MS) => Step::End,
            Daemon::Died if over && lasts(self.clean_since_ms, STRAGGLERS_MS) => Step::End,
            // It has seen that nothing runs, and only a daemon starts something, which would say so first.
            Daemon::Starting | Daemon::Lives if over && lasts(self.clean_since_ms, STRAGGLERS_MS) => {
                Step::Rest { until_ms: u64::MAX }
            }
            _ if over && looks => Step::Kill,
            Daemon::Left if looks => Step::Look,
            Daemon::Left => Step::Rest { until_ms: self.look_at_ms.min(self.due_ms().max(now_ms + 1)) },
            _ if over => Step::Rest { until_ms: self.look_at_ms },
            _ => Step::Rest { until_ms: self.due_ms() },
        }
    }

    fn due_ms(&self) -> u64 {
        let patience = if self.daemon == Daemon::Lives { DAEMON_FIRST_MS } else { 0 };
        self.heard_ms.saturating_add(HOLD_MS + patience)
    }

    fn turn(&mut self, daemon: Daemon) {
        self.daemon = daemon;
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        (self.clean_since_ms, self.silent_since_ms, self.defied_since_ms) = (None, None, None);
        self.look_at_ms = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gaggle_sched::controller::identity::IDENTITY_FREED_AFTER;

    const HEARD: u64 = 100_000;
    const DUE: u64 = HEARD + HOLD_MS;

    fn living() -> Watch {
        let mut watch = Watch::new(0);
        watch.heard(HEARD);
        watch
    }

    #[test]
    fn what_cannot_be_killed_is_tried_less_often_and_never_given_up() {
        let mut watch = living();
        watch.closed();
        for (now_ms, again_ms) in [
            (DUE, LOOK_AGAIN_MS),
            (DUE + SELDOM_AFTER_MS, LOOK_SELDOM_MS),
            (DUE + 100 * GIVEN_UP_AFTER_MS, LOOK_SELDOM_MS),
        ] {
            assert_eq!(watch.next(now_ms), Step::Kill);
            watch.looked(now_ms, Found::Running);
            assert_eq!(watch.next(now_ms), Step::Rest { until_ms: now_ms + again_ms });
        }
    }

    #[test]
    fn it_sleeps_for_as_long_as_the_flock_is_heard() {
        let mut watch = living();
        for later in [0, 4_000, 8_000] {
            watch.heard(HEARD + later);
            let until_ms = HEARD + later + HOLD_MS + DAEMON_FIRST_MS;
            assert_eq!(watch.next(HEARD + later), Step::Rest { until_ms });
        }
        watch.heard(HEARD);
        assert!(!watch.is_over(DUE + 8_000), "an older moment changes nothing");
    }

    #[test]
    fn a_dead_daemon_is_not_waited_for_and_a_stuck_one_hardly() {
        let mut watch = living();
        assert_eq!(watch.next(DUE + DAEMON_FIRST_MS), Step::Kill, "it lives, and says nothing");
        watch.closed();
        assert_eq!(watch.next(HEARD + 1), Step::Rest { until_ms: DUE });
        assert_eq!(watch.next(DUE), Step::Kill);
        let freed = HEARD + IDENTITY_FREED_AFTER.as_millis() as u64;
        assert!(DUE + DAEMON_FIRST_MS + 2_500 < freed, "the engine needs time to kill, too");
    }

    #[test]
    fn until_the_agent_runs_the_guard_goes_by_what_was_noted() {
        let mut watch = Watch::new(HEARD);
        assert_eq!(watch.next(HEARD + 1), Step::Rest { until_ms: DUE });
        assert_eq!(watch.next(DUE), Step::Kill);
        assert_eq!(Watch::new(0).next(DUE), Step::Kill, "nothing noted: nothing may run");
        watch.heard(0);
        assert_eq!(
            watch.next(DUE),
            Step::Rest { until_ms: DUE + DAEMON_FIRST_MS },
            "now the agent sees to it first"
        );
    }

    #[test]
    fn it_kills_until_nothing_has_run_for_long() {
        let mut watch = living();
        watch.closed();
        watch.looked(DUE, Found::Running);
        assert_eq!(watch.next(DUE), Step::Rest { until_ms: DUE + LOOK_AGAIN_MS });
        let mut now_ms = DUE + LOOK_AGAIN_MS;
        for found in [Found::Nothing, Found::Running, Found::Nothing] {
            assert_eq!(watch.next(now_ms), Step::Kill);
            watch.looked(now_ms, found);
            now_ms += LOOK_AGAIN_MS;
        }
        let clean_ms = now_ms - LOOK_AGAIN_MS;
        assert_eq!(watch.next(clean_ms + STRAGGLERS_MS - 1), Step::Kill);
        assert_eq!(watch.next(clean_ms + STRAGGLERS_MS), Step::End);
    }

    #[test]
    fn a_living_daemon_that_hears_nobody_costs_no_looks_for_ever() {
        let mut watch = living();
        let over_ms = DUE + DAEMON_FIRST_MS;
        watch.looked(over_ms, Found::Nothing);
        assert_eq!(watch.next(over_ms + LOOK_AGAIN_MS), Step::Kill);
        watch.looked(over_ms + STRAGGLERS_MS, Found::Nothing);
        assert_eq!(watch.next(over_ms + STRAGGLERS_MS), Step::Rest { until_ms: u64::MAX });
        watch.heard(over_ms + STRAGGLERS_MS);
        let until_ms = over_ms + STRAGGLERS_MS + HOLD_MS + DAEMON_FIRST_MS;
        assert_eq!(watch.next(over_ms + STRAGGLERS_MS), Step::Rest { until_ms });
    }

    #[test]
    fn after_a_farewell_it_ends_at_once_or_as_soon_as_what_runs_is_killed() {
        let mut watch = living();
        watch.farewell();
        watch.closed();
        assert_eq!(watch.next(HEARD), Step::Look);
        watch.looked(HEARD, Found::Nothing);
        assert_eq!(watch.next(HEARD + LAST_LOOK_AFTER_MS), Step::End);

        let mut watch = living();
        watch.farewell();
        watch.looked(HEARD, Found::Running);
        assert_eq!(watch.next(HEARD), Step::Rest { until_ms: HEARD + LOOK_AGAIN_MS });
        assert_eq!(watch.next(DUE), Step::Kill);
        watch.looked(DUE, Found::Running);
        watch.looked(DUE + LOOK_AGAIN_MS, Found::Nothing);
        assert_eq!(watch.next(DUE + LOOK_AGAIN_MS + LAST_LOOK_AFTER_MS), Step::End);
    }

    #[test]
    fn a_guard_that_is_waited_for_does_its_work_and_no_more() {
        let mut watch = living();
        watch.hurry();
        assert_eq!(watch.next(DUE), Step::Rest { until_ms: DUE + DAEMON_FIRST_MS }, "its daemon lives");
        watch.closed();
        assert_eq!(watch.next(HEARD), Step::Look);
        watch.looked(HEARD, Found::Running);
        assert_eq!(watch.next(DUE), Step::Kill);
        watch.looked(DUE, Found::Nothing);
        assert_eq!(watch.next(DUE + LAST_LOOK_AFTER_MS), Step::End);
    }

    #[test]
    fn an_engine_that_does_not_answer_is_asked_long_enough_and_not_for_ever() {
        let mut watch = living();
        watch.closed();
        let mut now_ms = DUE;
        let mut looks = 0;
        while watch.next(now_ms) != Step::End {
            match watch.next(now_ms) {
                Step::Rest { until_ms } => now_ms = until_ms,
                _ => {
                    looks += 1;
                    watch.looked(now_ms, Found::Silence);
                }
            }
        }
        assert!(now_ms - DUE >= GIVEN_UP_AFTER_MS && (60..200).contains(&looks), "{looks} looks");
        let mut watch = living();
        watch.hurry();
        watch.closed();
        watch.looked(DUE, Found::Silence);
        assert_eq!(watch.next(DUE + GIVEN_UP_IN_HASTE_MS), Step::End);
    }
}
