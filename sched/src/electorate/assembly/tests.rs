use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn lineage(group: &str, epoch: u64) -> Lineage {
    Lineage { group: group.into(), epoch }
}

fn claim(group: &str, members: usize, part: Part) -> Claim {
    Claim { lineage: lineage(group, 1), members, part, leader: None, quorum: true }
}

fn seen(peer: &str, group: Option<Claim>) -> Seen {
    Seen { peer: peer.into(), alive: true, connected: true, group }
}

fn mine(group: &str, members: usize) -> Mine {
    Mine { lineage: lineage(group, 1), members, quorum: true, heard: true, holds: true, without_quorum_ms: 0 }
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
        let mine = Mine { quorum: false, heard: false, without_quorum_ms, ..mine("g1", 3) };
        decide(&Situation { contest: Some(&contest), ..situation("a", Some(&mine), &others, &rules) })
    };
    assert_eq!(decide_after(9_000), Decision::Stay);
    assert!(matches!(decide_after(10_000), Decision::Yield { .. }));
    let alone = Mine { quorum: false, heard: false, without_quorum_ms: 1_000_000, ..mine("g1", 3) };
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
        let mine = Mine { quorum: false, heard: false, holds, without_quorum_ms, ..mine("g1", 3) };
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
    /// Who belongs, as the leader of the node's group has written it down while it acted.
    roster: BTreeSet<String>,
    contest: Option<(Lineage, u64)>,
    known: Vec<String>,
    changed: u64,
    /// What it said about itself, when.
    said: Vec<(u64, Option<Claim>)>,
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

    fn heard(&self, i: usize, j: usize) -> Option<Seen> {
        let until = self.now.checked_sub(self.delays[&(i, j)])?;
        let (_, said) = self.nodes[j].said.iter().rev().find(|(at, _)| *at <= until)?;
        Some(Seen { peer: self.nodes[j].peer.clone(), alive: true, connected: true, group: said.clone() })
    }

    fn step(&mut self, i: usize, rules: &AssemblyRules) {
        let others: Vec<Seen> =
            (0..self.nodes.len()).filter(|j| *j != i).filter_map(|j| self.heard(i, j)).collect();
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
            let of_mine = |seen: &&Seen| seen.group.as_ref().is_some_and(|g| g.lineage == mine.lineage);
            let followers: BTreeSet<String> =
                others.iter().filter(of_mine).map(|seen| seen.peer.clone()).collect();
            let leader = others
                .iter()
                .filter(of_mine)
                .filter_map(|s| s.group.as_ref())
                .find(|g| g.part == Part::Leader);
            if node.leads {
                let there = 1 + node.roster.intersection(&followers).count();
                mine.quorum = there * 2 > node.roster.len();
                if mine.quorum {
                    node.roster = followers;
                    node.roster.insert(node.peer.clone());
                }
                mine.members = node.roster.len();
            } else {
                mine.quorum = leader.is_some_and(|leader| leader.quorum);
                if let Some(leader) = leader {
                    (mine.members, mine.holds) = (leader.members, true);
                }
            }
            mine.heard |= mine.quorum;
            mine.without_quorum_ms = if mine.quorum { 0 } else { mine.without_quorum_ms + TICK };
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
                let members = node.mine.as_ref().map_or(0, |mine| mine.members);
                let remembered = Mine { quorum: false, heard: false, holds: false, ..mine("", members) };
                node.mine = Some(Mine { lineage, ..remembered });
                node.leads = false;
            }
        }
        let part = if node.leads { Part::Leader } else { Part::Follower };
        let said = node.mine.as_ref().map(|mine| Claim {
            lineage: mine.lineage.clone(),
            members: mine.members,
            part,
            leader: None,
            quorum: mine.quorum,
        });
        node.said.push((now, said));
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
