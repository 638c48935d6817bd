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
    let input = Input { now_ms: 60_000, me, voters: &voters, candidates, rules: &rules };
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
            let input = Input { now_ms: 200_000, me: "p00", voters: &voters, candidates: &flock, rules: &rules };
            let Some(change) = next_change(&input) else { break };
            let new = change.voters;
            prop_assert!(answering(&voters, &flock) * 2 > voters.len(), "old set lost: {voters:?}");
            prop_assert!(answering(&new, &flock) * 2 > new.len(), "new set lost: {new:?}");
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
        while let Some(change) = next_change(&Input { now_ms: 60_000, me: "p00", voters: &voters, candidates: &flock, rules: &rules }) {
            prop_assert!(change.voters.contains("p00"));
            voters = change.voters;
        }
        prop_assert_eq!(voters.len(), size_for(members, 7));
    }
}
