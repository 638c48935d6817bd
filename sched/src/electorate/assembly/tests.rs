use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn lineage(group: &str, epoch: u64) -> Lineage {
    Lineage { group: group.into(), epoch }
}

fn claim(group: &str, members: usize, part: Part) -> Claim {
    Claim { lineage: lineage(group, 1), members, part, quorum: true, could_act: true }
}

fn seen(peer: &str, group: Option<Claim>) -> Seen {
    Seen { peer: peer.into(), alive: true, connected: true, group }
}

fn mine(group: &str, members: usize) -> Mine {
    Mine {
        lineage: lineage(group, 1),
        members,
        muster: Muster::Together,
        apart_for_ms: 0,
        votes: true,
        acting: Some("a".into()),
        heard: true,
        holds: true,
        without_quorum_ms: 0,
    }
}

fn situation<'a>(
    me: &'a str,
    mine: Option<&'a Mine>,
    others: &'a [Seen],
    rules: &'a AssemblyRules,
) -> Situation<'a> {
    Situation { me, quiet_for_ms: 5_000, up_for_ms: 5_000, mine, others, contest: None, rules }
}

#[test]
fn the_lowest_id_founds_when_it_is_quiet() {
    let rules = AssemblyRules::default();
    let others = [seen("b", None), seen("c", None)];
    assert!(matches!(decide(&situation("a", None, &others, &rules)), Decision::Found { .. }));
    assert!(matches!(decide(&situation("bb", None, &others, &rules)), Decision::Wait { .. }));
    let loud = Situation { quiet_for_ms: 100, ..situation("a", None, &others, &rules) };
    assert!(matches!(decide(&loud), Decision::Wait { .. }));
    let mut dead = seen("0", None);
    dead.alive = false;
    assert!(matches!(decide(&situation("a", None, &[dead], &rules)), Decision::Found { .. }));
}

#[test]
fn a_group_that_is_there_is_followed() {
    let rules = AssemblyRules::default();
    let others =
        [seen("b", Some(claim("g", 2, Part::Follower))), seen("c", Some(claim("g", 2, Part::Leader)))];
    let Decision::Follow { peer, .. } = decide(&situation("a", None, &others, &rules)) else { panic!() };
    assert_eq!(peer, "c");
    assert!(matches!(decide(&situation("a", None, &others[..1], &rules)), Decision::Wait { .. }));
    let idle = [seen("c", Some(Claim { quorum: false, ..claim("g", 2, Part::Voter) }))];
    let decision = decide(&situation("a", None, &idle, &rules));
    assert!(
        matches!(decision, Decision::Follow { .. }),
        "a group without a quorum can still be read: {decision:?}"
    );
}

#[test]
fn the_smaller_group_then_the_higher_id_yields_when_it_stays_so() {
    let rules = AssemblyRules::default();
    let yields = |mine: &Mine, other: Claim, for_ms| {
        let contest = Contest { lineage: other.lineage.clone(), for_ms };
        let others = [seen("z", Some(other))];
        let situation = Situation { contest: Some(&contest), ..situation("a", Some(mine), &others, &rules) };
        matches!(decide(&situation), Decision::Yield { .. })
    };
    assert!(yields(&mine("g1", 1), claim("g2", 2, Part::Leader), 500));
    assert!(!yields(&mine("g1", 1), claim("g2", 2, Part::Leader), 400));
    assert!(!yields(&mine("g1", 2), claim("g2", 2, Part::Leader), 900));
    assert!(yields(&mine("g2", 2), claim("g1", 2, Part::Leader), 900));
    assert!(!yields(&mine("g1", 3), claim("g2", 2, Part::Leader), 900));
    let other_without = Claim { quorum: false, ..claim("g2", 9, Part::Voter) };
    assert!(!yields(&mine("g1", 3), other_without, 900), "a group that does not act wins nothing");
    let later = Claim { lineage: lineage("g1", 2), ..claim("g1", 1, Part::Leader) };
    assert!(yields(&mine("g1", 5), later.clone(), 0), "a newer founding of the same group wins at once");
    let waiting = Claim { quorum: false, ..later };
    assert!(yields(&mine("g1", 5), waiting.clone(), 0), "also while it waits for its members' leases");
    let told = Claim { part: Part::Follower, ..waiting };
    assert!(!yields(&mine("g1", 5), told, 0), "but only its voters can be followed");
}

#[test]
fn a_remembered_group_is_waited_for() {
    let rules = AssemblyRules::default();
    let contest = Contest { lineage: lineage("g2", 1), for_ms: 9_000 };
    let others = [seen("z", Some(claim("g2", 9, Part::Leader)))];
    let decide_after = |without_quorum_ms| {
        let mine = Mine { acting: None, heard: false, without_quorum_ms, ..mine("g1", 3) };
        decide(&Situation { contest: Some(&contest), ..situation("a", Some(&mine), &others, &rules) })
    };
    assert_eq!(decide_after(9_000), Decision::Stay);
    assert!(matches!(decide_after(10_000), Decision::Yield { .. }));
    let alone = Mine { acting: None, heard: false, without_quorum_ms: 1_000_000, ..mine("g1", 3) };
    assert_eq!(
        decide(&situation("a", Some(&alone), &[], &rules)),
        Decision::Stay,
        "it never founds another one"
    );
}

#[test]
fn a_group_of_which_nothing_came_is_not_waited_for_where_another_one_can_be_followed() {
    let rules = AssemblyRules::default();
    let waits = Claim { quorum: false, ..claim("g2", 3, Part::Leader) };
    let decide_with = |holds, without_quorum_ms, others: &[Seen]| {
        let mine = Mine { acting: None, heard: false, holds, without_quorum_ms, ..mine("g1", 3) };
        decide(&situation("a", Some(&mine), others, &rules))
    };
    let others = [
        seen("z", Some(waits.clone())),
        seen("y", Some(Claim { quorum: false, ..claim("g1", 3, Part::Follower) })),
    ];
    assert!(
        matches!(decide_with(false, 10_000, &others), Decision::Yield { to, .. } if to == lineage("g2", 1))
    );
    assert_eq!(decide_with(false, 9_000, &others), Decision::Stay, "its voters may be on their way");
    assert_eq!(decide_with(true, 100_000, &others), Decision::Stay, "what it holds may be the newest");
    let voter =
        [seen("z", Some(waits)), seen("y", Some(Claim { quorum: false, ..claim("g1", 3, Part::Voter) }))];
    assert_eq!(decide_with(false, 100_000, &voter), Decision::Stay, "somebody there knows more");
    assert_eq!(decide_with(false, 100_000, &others[1..]), Decision::Stay, "there is nobody to follow");
}

#[test]
fn the_leaders_count_is_what_a_group_is_compared_by_also_by_its_followers() {
    let rules = AssemblyRules::default();
    let contest = Contest { lineage: lineage("g2", 1), for_ms: 900 };
    let stale = mine("g1", 1);
    let yields = |others: &[Seen]| {
        let situation = Situation { contest: Some(&contest), ..situation("a", Some(&stale), others, &rules) };
        matches!(decide(&situation), Decision::Yield { .. })
    };
    let other = seen("z", Some(claim("g2", 2, Part::Leader)));
    assert!(yields(std::slice::from_ref(&other)));
    assert!(!yields(&[other, seen("y", Some(claim("g1", 3, Part::Leader)))]));
}

#[test]
fn a_leader_yields_before_those_who_hear_it() {
    let rules = AssemblyRules::default();
    let yields = |led_by: Option<&str>, leader: Claim, for_ms| {
        let mine = Mine { acting: led_by.map(Into::into), votes: false, ..mine("g2", 1) };
        let contest = Contest { lineage: lineage("g1", 1), for_ms };
        let others = [seen("z", Some(claim("g1", 1, Part::Leader))), seen("l", Some(leader))];
        let situation = Situation { contest: Some(&contest), ..situation("a", Some(&mine), &others, &rules) };
        matches!(decide(&situation), Decision::Yield { .. })
    };
    let leads = || claim("g2", 1, Part::Leader);
    assert!(yields(Some("a"), leads(), 500), "the leader itself");
    assert!(!yields(Some("l"), leads(), 2_900), "it may count more than it has said yet");
    assert!(yields(Some("l"), leads(), 3_000), "it may not see what this node sees");
    assert!(yields(Some("l"), claim("g1", 1, Part::Follower), 500), "it has yielded");
    assert!(yields(None, leads(), 500), "nobody leads");
}

#[test]
fn members_that_are_scattered_over_groups_that_cannot_act_gather_in_the_one_that_ranks_first() {
    let rules = AssemblyRules::default();
    let waits = |group: &str, members, part| Claim { quorum: false, ..claim(group, members, part) };
    let decide_with = |mine: Mine, others: &[Seen]| decide(&situation("a", Some(&mine), others, &rules));
    let scattered = |group, members, votes| Mine {
        muster: Muster::Scattered,
        apart_for_ms: 10_000,
        votes,
        acting: None,
        without_quorum_ms: 20_000,
        ..mine(group, members)
    };
    // The only one who belongs to g2 left for g1, one of two who belong to g1 for g2.
    let left =
        [seen("d", Some(waits("g2", 1, Part::Follower))), seen("e", Some(waits("g1", 2, Part::Leader)))];
    let decision = decide_with(scattered("g2", 1, false), &left);
    assert!(matches!(&decision, Decision::Yield { to, .. } if *to == lineage("g1", 1)), "{decision:?}");
    let soon = Mine { apart_for_ms: 9_900, ..scattered("g2", 1, false) };
    assert_eq!(decide_with(soon, &left), Decision::Stay, "what they say may be old");
    let whole = Mine { muster: Muster::Together, apart_for_ms: 0, ..scattered("g2", 3, false) };
    assert_eq!(decide_with(whole, &left), Decision::Stay, "more than half of it may be back in a moment");
    let decision = decide_with(scattered("g1", 2, true), &left[..1]);
    assert_eq!(decision, Decision::Stay, "of this one more may be hoped: it has a voter");
    let decision = decide_with(scattered("g2", 1, true), &left);
    assert!(
        matches!(decision, Decision::Yield { .. }),
        "both have a voter, the other one is larger: {decision:?}"
    );
    // Of two of a size the lower id stays, and whoever is in the other goes there: never both.
    let both = |group, part| [seen("d", Some(waits(group, 2, part)))];
    for (voter, part) in [(true, Part::Leader), (false, Part::Follower)] {
        let decision = decide_with(scattered("g2", 2, voter), &both("g1", part));
        assert!(matches!(decision, Decision::Yield { .. }), "{decision:?}");
        assert_eq!(decide_with(scattered("g1", 2, voter), &both("g2", part)), Decision::Stay);
    }
    let decision = decide_with(scattered("g1", 2, false), &both("g2", Part::Leader));
    assert!(matches!(decision, Decision::Yield { .. }), "nobody can lead it any more: {decision:?}");
    let of_the_absent = [seen("e", Some(Claim { could_act: false, ..waits("g1", 9, Part::Voter) }))];
    assert_eq!(
        decide_with(scattered("g2", 1, false), &of_the_absent),
        Decision::Stay,
        "it could not act either"
    );
}

#[test]
fn who_waits_for_a_group_that_is_not_here_goes_to_one_that_could_act_with_its_help() {
    let rules = AssemblyRules::default();
    let decide_with = |mine: Mine, others: &[Seen]| decide(&situation("a", Some(&mine), others, &rules));
    let waits = |could_act, apart_for_ms| {
        let mine = Mine { muster: Muster::Few, apart_for_ms, acting: None, ..mine("g1", 9) };
        let claim = Claim { quorum: false, could_act, ..claim("g2", 2, Part::Follower) };
        decide_with(mine, &[seen("b", Some(claim))])
    };
    let went = waits(true, 10_000);
    assert!(matches!(&went, Decision::Yield { to, .. } if *to == lineage("g2", 1)), "{went:?}");
    assert_eq!(waits(true, 9_900), Decision::Stay, "its own may be switched on a little later");
    assert_eq!(waits(false, 60_000), Decision::Stay, "neither can act: both wait");
}

#[test]
fn a_group_is_scattered_that_lacks_those_who_are_here_and_left_it() {
    let of = |peers: &[&str]| peers.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let roster = Roster { members: of(&["a", "b", "c"]), ..Roster::default() };
    let gone = |peer| seen(peer, Some(claim("g2", 1, Part::Follower)));
    let stays = |peer| seen(peer, Some(claim("g1", 1, Part::Follower)));
    let muster = |roster: &Roster, others: &[Seen]| Muster::of("a", "g1", roster, others);
    assert_eq!(muster(&roster, &[gone("b"), stays("c")]), Muster::Together);
    assert_eq!(muster(&roster, &[gone("b")]), Muster::Scattered);
    assert_eq!(muster(&roster, &[gone("x"), seen("b", None)]), Muster::Few, "who left is a stranger");
    let mut silent = gone("b");
    silent.connected = false;
    assert_eq!(muster(&roster, &[silent]), Muster::Few, "nobody knows what it is of now");
    let joint = Roster { before: Some(of(&["a", "b"])), ..roster };
    assert_eq!(
        muster(&joint, &[gone("b"), stays("c")]),
        Muster::Scattered,
        "both halves of a change are needed"
    );
    assert_eq!(Muster::of("x", "g1", &joint, &[gone("a"), gone("b")]), Muster::Scattered, "all of it left");
}

/// A flock in virtual time: nodes start when they like, hear of each other late, and act on what they hear.
struct Sim {
    now: u64,
    nodes: Vec<Node>,
    /// How late node i hears of node j.
    delays: BTreeMap<(usize, usize), u64>,
    founded: u64,
}

struct Node {
    peer: String,
    starts: u64,
    mine: Option<Mine>,
    leads: bool,
    could_act: bool,
    /// Who belongs, as the leader of the node's group has written it down while it acted.
    roster: BTreeSet<String>,
    contest: Option<(Lineage, u64)>,
    known: Vec<String>,
    changed: u64,
    /// What it said about itself and of its roster, when.
    said: Vec<(u64, Option<Claim>, BTreeSet<String>)>,
}

const TICK: u64 = 50;

impl Sim {
    fn new(starts: &[u64], delays: &[u64]) -> Self {
        // Ids are in another order than starts.
        let node = |(n, starts): (usize, &u64)| Node {
            peer: format!("{:02}-{n}", (n * 37 + 11) % 97),
            starts: *starts,
            mine: None,
            leads: false,
            could_act: false,
            roster: BTreeSet::new(),
            contest: None,
            known: Vec::new(),
            changed: *starts,
            said: Vec::new(),
        };
        let nodes: Vec<Node> = starts.iter().enumerate().map(node).collect();
        let mut next = delays.iter().cycle();
        let mut map = BTreeMap::new();
        for i in 0..starts.len() {
            for j in 0..starts.len() {
                map.insert((i, j), *next.next().unwrap_or(&0));
            }
        }
        Self { now: 0, nodes, delays: map, founded: 0 }
    }

    fn heard(&self, i: usize, j: usize) -> Option<(Seen, BTreeSet<String>)> {
        let until = self.now.checked_sub(self.delays[&(i, j)])?;
        let (_, said, roster) = self.nodes[j].said.iter().rev().find(|(at, ..)| *at <= until)?;
        Some((seen(&self.nodes[j].peer, said.clone()), roster.clone()))
    }

    fn step(&mut self, i: usize, rules: &AssemblyRules) {
        let heard: Vec<_> =
            (0..self.nodes.len()).filter(|j| *j != i).filter_map(|j| self.heard(i, j)).collect();
        let (others, rosters): (Vec<Seen>, Vec<BTreeSet<String>>) = heard.into_iter().unzip();
        let now = self.now;
        let node = &mut self.nodes[i];
        let peers: Vec<String> = others.iter().map(|seen| seen.peer.clone()).collect();
        if peers != node.known {
            node.known = peers;
            node.changed = now;
        }
        // A leader acts while more than half of its roster follow it; then it writes down who does. They copy what it
        // wrote, and hear of a quorum only from it.
        if let Some(mine) = &mut node.mine {
            let is_of =
                |seen: &Seen, lineage: &Lineage| seen.group.as_ref().is_some_and(|g| g.lineage == *lineage);
            let followers = others.iter().filter(|seen| is_of(seen, &mine.lineage));
            let followers: BTreeSet<String> = followers.map(|seen| seen.peer.clone()).collect();
            if node.leads {
                let there = 1 + node.roster.intersection(&followers).count();
                mine.acting = (there * 2 > node.roster.len()).then(|| node.peer.clone());
                if mine.acting.is_some() {
                    node.roster = followers;
                    node.roster.insert(node.peer.clone());
                }
            } else {
                let leads = |seen: &Seen| seen.group.as_ref().is_some_and(|g| g.part == Part::Leader);
                let mut told = others.iter().zip(&rosters);
                let leader = told.find(|(seen, _)| is_of(seen, &mine.lineage) && leads(seen));
                let acts = leader.filter(|(seen, _)| seen.group.as_ref().is_some_and(|group| group.quorum));
                mine.acting = acts.map(|(seen, _)| seen.peer.clone());
                if let Some((_, roster)) = leader {
                    mine.holds = true;
                    node.roster.clone_from(roster);
                }
            }
            mine.votes = node.leads;
            mine.members = node.roster.len();
            let roster = Roster { members: node.roster.clone(), ..Roster::default() };
            let muster = Muster::of(&node.peer, &mine.lineage.group, &roster, &others);
            node.could_act = mine.holds && muster != Muster::Few;
            (mine.muster, mine.apart_for_ms) = match muster {
                Muster::Together => (muster, 0),
                Muster::Scattered | Muster::Few => (muster, mine.apart_for_ms + TICK),
            };
            mine.heard |= mine.acting.is_some();
            mine.without_quorum_ms = if mine.acting.is_some() { 0 } else { mine.without_quorum_ms + TICK };
        }
        let base = Situation {
            me: &node.peer,
            quiet_for_ms: now - node.changed,
            up_for_ms: now - node.starts,
            mine: node.mine.as_ref(),
            others: &others,
            contest: None,
            rules,
        };
        node.contest = rival(&base).map(|to| match node.contest.take() {
            Some((lineage, since)) if lineage == to => (lineage, since),
            _ => (to, now),
        });
        let contest = node.contest.clone().map(|(lineage, since)| Contest { lineage, for_ms: now - since });
        match decide(&Situation { contest: contest.as_ref(), ..base }) {
            Decision::Wait { .. } | Decision::Stay => {}
            Decision::Found { .. } => {
                self.founded += 1;
                let group = format!("{:016x}", self.founded.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                node.mine = Some(Mine { lineage: lineage(&group, 1), ..mine("", 1) });
                node.roster = BTreeSet::from([node.peer.clone()]);
                node.leads = true;
            }
            Decision::Follow { lineage, .. } | Decision::Yield { to: lineage, .. } => {
                let members = node.roster.len();
                let remembered =
                    Mine { acting: None, votes: false, heard: false, holds: false, ..mine("", members) };
                node.mine = Some(Mine { lineage, ..remembered });
                node.leads = false;
            }
        }
        let part = if node.leads { Part::Leader } else { Part::Follower };
        let said = node.mine.as_ref().map(|mine| Claim {
            lineage: mine.lineage.clone(),
            members: mine.members,
            part,

            quorum: mine.acting.is_some(),
            could_act: node.could_act,
        });
        node.said.push((now, said, node.roster.clone()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]
    #[test]
    fn however_they_start_they_end_in_one_group(
        starts in proptest::collection::vec(0..3_000u64, 1..10),
        delays in proptest::collection::vec(0..900u64, 1..40),
    ) {
        let rules = AssemblyRules::default();
        let mut sim = Sim::new(&starts, &delays);
        while sim.now < 60_000 {
            for i in 0..sim.nodes.len() {
                if sim.now >= sim.nodes[i].starts {
                    sim.step(i, &rules);
                }
            }
            sim.now += TICK;
        }
        let groups: BTreeSet<_> = sim.nodes.iter().map(|n| n.mine.as_ref().map(|m| &m.lineage)).collect();
        prop_assert_eq!(groups.len(), 1, "{:?}", groups);
        prop_assert!(!groups.contains(&None));
        prop_assert_eq!(sim.nodes.iter().filter(|n| n.leads).count(), 1);
    }
}
