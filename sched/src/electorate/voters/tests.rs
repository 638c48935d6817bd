use super::super::{Steadiness, SteadinessRules};
use super::*;
use proptest::prelude::*;

fn live(peer: &str, started_ms: u64) -> Candidate {
    Candidate {
        peer: peer.into(),
        alive: true,
        connected: true,
        leaving: false,
        lost: false,
        started_ms,
        steady: true,
        dead_for_ms: 0,
    }
}

fn dead(peer: &str, dead_for_ms: u64) -> Candidate {
    Candidate { alive: false, connected: false, dead_for_ms, ..live(peer, 0) }
}

fn leaving(peer: &str) -> Candidate {
    Candidate { leaving: true, ..live(peer, 0) }
}

fn lost(peer: &str) -> Candidate {
    Candidate { lost: true, ..live(peer, 0) }
}

fn set(peers: &str) -> BTreeSet<String> {
    peers.split_whitespace().map(str::to_owned).collect()
}

fn next(me: &str, voters: &str, candidates: &[Candidate]) -> Option<BTreeSet<String>> {
    let (voters, rules) = (set(voters), VoterRules::default());
    let input = Input { now_ms: 60_000, me, voters: &voters, candidates, swapped_ms: 0, rules: &rules };
    next_change(&input).map(|change| change.voters)
}

#[test]
fn sizes() {
    let sizes: Vec<usize> = (0..=9).map(|n| size_for(n, 7)).collect();
    assert_eq!(sizes, [1, 1, 1, 3, 3, 5, 5, 7, 7, 7]);
    assert_eq!(size_for(9, 3), 3);
    assert_eq!(size_for(9, 4), 3, "an even bound means the odd one below");
}

#[test]
fn it_grows_with_the_living() {
    let two = [live("a", 0), live("b", 0)];
    assert_eq!(next("a", "a", &two), None, "two voters survive no more than one does");
    let three = [live("a", 0), live("b", 0), live("c", 0)];
    assert_eq!(next("a", "a", &three), Some(set("a b c")));
    let five = [live("a", 0), live("b", 0), live("c", 0), live("d", 0), live("e", 0)];
    assert_eq!(next("a", "a b c", &five), Some(set("a b c d e")));
    assert_eq!(next("a", "a b c d e", &five), None);
}

#[test]
fn the_steady_and_the_old_vote_first() {
    let battery = Candidate { steady: false, ..live("b", 0) };
    let members = [live("a", 0), battery, live("c", 900), live("d", 100)];
    assert_eq!(next("a", "a", &members), Some(set("a c d")));
    let fresh = [live("a", 0), live("b", 59_900), live("c", 0)];
    assert_eq!(next("a", "a", &fresh), None, "a node that just came up has to stay up for a moment");
}

#[test]
fn a_dead_voter_is_replaced_after_the_grace() {
    let members = |for_ms| [live("a", 0), live("b", 0), dead("c", for_ms), live("d", 0)];
    assert_eq!(next("a", "a b c", &members(1_000)), None);
    assert_eq!(next("a", "a b c", &members(2_000)), Some(set("a b d")));
    let no_spare = [live("a", 0), live("b", 0), dead("c", 60_000)];
    assert_eq!(next("a", "a b c", &no_spare), None, "deaths do not shrink the electorate");
}

#[test]
fn leaving_shrinks_it() {
    assert_eq!(next("a", "a b c", &[live("a", 0), live("b", 0), leaving("c")]), Some(set("a")));
    let spare = [live("a", 0), live("b", 0), leaving("c"), live("d", 0)];
    assert_eq!(next("a", "a b c", &spare), Some(set("a b d")));
    assert_eq!(next("a", "a b c", &[live("a", 0), live("b", 0)]), Some(set("a")), "c left the roster");
}

#[test]
fn a_leader_that_leaves_goes_last() {
    let members = [leaving("a"), live("b", 0), leaving("c"), live("d", 0), live("e", 0)];
    assert_eq!(next("a", "a b c", &members), Some(set("a b d")), "others first");
    assert_eq!(next("a", "a b d", &members[..]), Some(set("b d e")));
    assert_eq!(next("a", "a", &[leaving("a"), live("b", 0)]), Some(set("b")));
    assert_eq!(next("a", "a", &[leaving("a")]), None, "there is nobody to hand over to");
    let shrinking = next("a", "a b c", &[leaving("a"), live("b", 0), live("c", 5)]);
    assert_eq!(shrinking, Some(set("b")), "the leader is one of the two who go");
}

#[test]
fn a_change_that_could_not_be_carried_is_not_proposed() {
    let members = [live("a", 0), dead("b", 9_000), dead("c", 9_000), live("d", 0)];
    assert_eq!(next("a", "a b c", &members), None, "one of three is no quorum of the old set");
    let cut = Candidate { connected: false, ..live("b", 0) };
    let members = [live("a", 0), cut, dead("c", 9_000), live("d", 0)];
    assert_eq!(next("a", "a b c", &members), None);
}

#[test]
fn a_voter_without_its_log_goes_out_at_once_and_comes_back_as_a_newcomer() {
    let spare = [live("a", 0), live("b", 0), lost("c"), live("d", 0)];
    assert_eq!(next("a", "a b c", &spare), Some(set("a b d")), "no grace: it does not vote in any case");
    let no_spare = [live("a", 0), live("b", 0), lost("c")];
    assert_eq!(next("a", "a b c", &no_spare), Some(set("a b")), "it must not be counted");
    assert_eq!(next("a", "a b", &no_spare), None, "it is not taken back while it says that it is counted");
    assert_eq!(next("a", "a b", &[live("a", 0), live("b", 0), live("c", 0)]), Some(set("a b c")));
    let two = [live("a", 0), lost("b"), lost("c"), live("d", 0), live("e", 0)];
    assert_eq!(next("a", "a b c d e", &two), Some(set("a c d e")));
    assert_eq!(next("a", "a c d e", &two), Some(set("a d e")));
    assert_eq!(next("a", "a b c", &[live("a", 0), lost("b"), lost("c")]), None, "one of three is no quorum");
}

fn unsteady(peer: &str) -> Candidate {
    Candidate { steady: false, ..live(peer, 0) }
}

/// The swap that is due at this time after the last one.
fn swap_after(ms: u64, voters: &str, candidates: &[Candidate]) -> Option<BTreeSet<String>> {
    let (voters, rules) = (set(voters), VoterRules::default());
    let input = Input {
        now_ms: 1_000_000 + ms,
        me: "a",
        voters: &voters,
        candidates,
        swapped_ms: 1_000_000,
        rules: &rules,
    };
    next_change(&input).map(|change| change.voters)
}

#[test]
fn a_voter_that_is_in_use_gives_its_vote_to_one_that_is_not_but_seldom() {
    let members = [live("a", 0), unsteady("b"), live("c", 0), live("d", 0)];
    assert_eq!(swap_after(299_999, "a b c", &members), None, "no hurry");
    assert_eq!(swap_after(300_000, "a b c", &members), Some(set("a c d")));
    assert_eq!(swap_after(300_000, "a c d", &members), None, "and there it rests");
    let no_better = [live("a", 0), unsteady("b"), live("c", 0), unsteady("d")];
    assert_eq!(swap_after(300_000, "a b c", &no_better), None, "an unsteady one is no improvement");
    let fresh = [live("a", 0), unsteady("b"), live("c", 0), live("d", 1_250_000)];
    assert_eq!(swap_after(300_000, "a b c", &fresh), None, "it has not shown that it stays up");
}

#[test]
fn the_leader_goes_last_and_nobody_goes_while_a_voter_is_missing() {
    let members = [unsteady("a"), unsteady("b"), live("c", 0), live("d", 0), live("e", 0)];
    let all = swap_after(300_000, "a b c d e", &members);
    assert_eq!(all, None, "everybody votes");
    let members = [unsteady("a"), unsteady("b"), live("c", 0), live("d", 0)];
    assert_eq!(swap_after(300_000, "a b c", &members), Some(set("a c d")));
    let members = [unsteady("a"), live("b", 0), live("c", 0), live("d", 0)];
    assert_eq!(swap_after(300_000, "a b c", &members), Some(set("b c d")), "a laptop's leader too");
    let members = [live("a", 0), unsteady("b"), dead("c", 100), live("d", 0)];
    assert_eq!(swap_after(300_000, "a b c", &members), None, "c may be back in a moment");
    let cut = Candidate { connected: false, ..live("c", 0) };
    let members = [live("a", 0), unsteady("b"), cut, live("d", 0)];
    assert_eq!(swap_after(300_000, "a b c", &members), None);
}

/// A flock that changes: (alive, connected, leaving, steady, lost, started, dead for) of each member.
fn flock() -> impl Strategy<Value = Vec<Candidate>> {
    let member = (any::<[bool; 4]>(), proptest::bool::weighted(0.1), 0..100_000u64, 0..5_000u64);
    proptest::collection::vec(member, 1..12).prop_map(|members| {
        let candidates = members.into_iter().enumerate();
        let candidate =
            |(n, ([dead, cut, leaving, steady], lost, started_ms, for_ms)): (usize, ([bool; 4], _, _, _))| {
                let alive = !(dead && cut);
                Candidate {
                    peer: format!("p{n:02}"),
                    alive,
                    connected: alive && !(cut && steady),
                    leaving: leaving && dead,
                    lost,
                    started_ms,
                    steady,
                    dead_for_ms: if alive { 0 } else { for_ms },
                }
            };
        candidates.map(candidate).collect()
    })
}

fn answering(set: &BTreeSet<String>, flock: &[Candidate]) -> usize {
    set.iter().filter(|peer| flock.iter().any(|c| c.peer == **peer && c.answers())).count()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn changes_keep_the_quorum_and_end_odd(mut flock in flock(), picks in any::<u16>()) {
        flock[0] = live("p00", 0);
        flock[0].leaving = picks & 1 == 1;
        let mut voters: BTreeSet<String> =
            flock.iter().enumerate().filter(|(n, _)| *n == 0 || picks >> n & 1 == 1).map(|(_, c)| c.peer.clone()).collect();
        let rules = VoterRules::default();
        let started = voters.len();
        let mut steps = 0;
        while voters.contains("p00") {
            let input = Input { now_ms: 200_000, me: "p00", voters: &voters, candidates: &flock, swapped_ms: 0, rules: &rules };
            let Some(change) = next_change(&input) else { break };
            let new = change.voters;
            prop_assert!(answering(&voters, &flock) * 2 > voters.len(), "old set lost: {voters:?}");
            prop_assert!(answering(&new, &flock) * 2 > new.len(), "new set lost: {new:?}");
            prop_assert!(change.need == Need::Due || new.len() == voters.len(), "steadiness is no reason for another size");
            prop_assert!(new.len() % 2 == 1 || flock.iter().any(|c| c.lost), "even at rest: {new:?}");
            prop_assert!(new.difference(&voters).count() <= 2 && voters.difference(&new).count() <= 2);
            prop_assert!(new.difference(&voters).all(|p| flock.iter().any(|c| c.peer == *p && c.answers() && !c.leaving)));
            voters = new;
            steps += 1;
            prop_assert!(steps <= started + flock.len() + 4, "it does not come to rest");
        }
    }

    #[test]
    fn a_healthy_flock_gets_its_size(members in 1..12usize) {
        let flock: Vec<Candidate> = (0..members).map(|n| live(&format!("p{n:02}"), n as u64)).collect();
        let mut voters = set("p00");
        let rules = VoterRules::default();
        while let Some(change) = next_change(&Input { now_ms: 60_000, me: "p00", voters: &voters, candidates: &flock, swapped_ms: 0, rules: &rules }) {
            prop_assert!(change.voters.contains("p00"));
            voters = change.voters;
        }
        prop_assert_eq!(voters.len(), size_for(members, 7));
    }

    /// Nine desktops are restarted, in any order and overlapping as it happens: for each in turn how many steps until the
    /// next one goes down, and how many it stays away.
    #[test]
    fn nine_desktops_restarted_in_any_order_have_seven_voters_again(
        order in Just((0..9usize).collect::<Vec<_>>()).prop_shuffle(),
        waits in proptest::collection::vec((0..6u64, 1..12u64), 9),
    ) {
        const STEP_MS: u64 = 500;
        let rules = VoterRules::default();
        let name = |n: usize| format!("p{n}");
        let mut down_at = 0;
        let absences: Vec<(usize, u64, u64)> = order.iter().zip(&waits).map(|(node, (wait, away))| {
            down_at += wait;
            (*node, down_at, down_at + away)
        }).collect();
        let mut voters: BTreeSet<String> = (0..7).map(name).collect();
        for step in 0..down_at + 40 {
            let now_ms = 1_000_000 + step * STEP_MS;
            let flock: Vec<Candidate> = absences.iter().map(|(node, from, until)| match (from..until).contains(&&step) {
                true => dead(&name(*node), (step - from) * STEP_MS),
                false => live(&name(*node), if step >= *until { 1_000_000 + until * STEP_MS } else { 0 }),
            }).collect();
            prop_assert!(voters.len() % 2 == 1);
            // Without a quorum nobody leads; any voter that is there may lead with one.
            if answering(&voters, &flock) * 2 <= voters.len() {
                continue;
            }
            let Some(me) = flock.iter().find(|c| c.alive && voters.contains(&c.peer)) else { continue };
            let input = Input { now_ms, me: &me.peer, voters: &voters, candidates: &flock, swapped_ms: now_ms, rules: &rules };
            let Some(change) = next_change(&input) else { continue };
            prop_assert!(answering(&change.voters, &flock) * 2 > change.voters.len(), "its own change cost the quorum");
            prop_assert!(change.voters.difference(&voters).count() <= 2);
            voters = change.voters;
        }
        prop_assert_eq!(voters.len(), 7);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 32, ..ProptestConfig::default() })]
    /// Owners come and go, laptops are plugged in and out: a leader notes it all, and swaps now and then.
    #[test]
    fn owners_who_come_and_go_move_votes_seldom_and_never_for_ever(
        said in proptest::collection::vec((0..9usize, any::<bool>(), 1..120u64), 0..40),
    ) {
        const STEP_S: u64 = 10;
        let rules = VoterRules::default();
        let steadiness_rules = SteadinessRules::default();
        let mut flock: Vec<Candidate> = (0..9).map(|n| live(&format!("p{n}"), 0)).collect();
        let mut voters: BTreeSet<String> = flock.iter().take(7).map(|c| c.peer.clone()).collect();
        let (mut calm, mut steadiness) = ([true; 9], Steadiness::default());
        let (mut now_ms, mut swapped_ms, mut swaps, mut last_swap) = (100_000, 100_000, 0, 0);
        // At the end nothing changes any more for two hours.
        let end = std::iter::once((9, true, 7_200 / STEP_S));
        for (node, says, steps) in said.into_iter().chain(end) {
            if let Some(calm) = calm.get_mut(node) {
                *calm = says;
            }
            for _ in 0..steps {
                now_ms += STEP_S * 1_000;
                for (candidate, calm) in flock.iter_mut().zip(calm) {
                    candidate.steady = steadiness.note(&candidate.peer, calm, now_ms, &steadiness_rules);
                }
                let me = voters.first().unwrap().clone();
                let input = Input { now_ms, me: &me, voters: &voters, candidates: &flock, swapped_ms, rules: &rules };
                let Some(change) = next_change(&input) else { continue };
                prop_assert_eq!(change.need, Need::Steadier);
                prop_assert_eq!(change.voters.len(), 7);
                prop_assert_eq!(change.voters.difference(&voters).count(), 1, "one at a time");
                (voters, swapped_ms, swaps, last_swap) = (change.voters, now_ms, swaps + 1, now_ms);
            }
        }
        prop_assert!(swaps <= (now_ms - 100_000) / rules.swap_every_ms, "{swaps} swaps");
        prop_assert!(now_ms - last_swap >= 3_600_000, "still swapping an hour after the last change");
        let steady = flock.iter().filter(|c| c.steady).count();
        let voting = flock.iter().filter(|c| c.steady && voters.contains(&c.peer)).count();
        prop_assert_eq!(voting, steady.min(7), "the steady ones vote");
    }
}
