use super::*;
use std::collections::BTreeSet;

fn many() -> impl Iterator<Item = (usize, Fitting, Step)> {
    [3, 5].into_iter().flat_map(|desktops| {
        (0..200).flat_map(move |seed| {
            let Plan { fitting, steps } = plan(&Seed::new(seed), desktops, Duration::from_secs(60));
            steps.into_iter().map(move |step| (desktops, fitting, step))
        })
    })
}

#[test]
fn the_same_seed_makes_the_same_plan() {
    let plan = |seed| plan(&Seed::new(seed), 5, Duration::from_secs(120));
    assert_eq!(plan(4), plan(4));
    assert_ne!(plan(4), plan(5));
}

#[test]
fn no_more_than_a_minority_is_taken_unless_all_are() {
    for (desktops, _, step) in many() {
        let taken: usize = step.faults.iter().map(|fault| fault.takes(desktops)).sum();
        assert!(taken <= minority(desktops) || step.faults == [Fault::KillAll], "{desktops}: {step:?}");
    }
}

#[test]
fn everybody_named_is_in_the_flock_and_in_one_group() {
    for (desktops, _, step) in many() {
        for fault in &step.faults {
            let named: Vec<Who> = match fault {
                Fault::Flap(who, _) => vec![*who],
                Fault::Cut(groups) => {
                    assert!(groups.iter().all(|group| !group.is_empty()), "{step:?}");
                    assert_eq!(groups.concat().len(), desktops, "{step:?}");
                    groups.concat()
                }
                Fault::OneWay(from, to) => {
                    assert!(!from.is_empty() && !to.is_empty(), "{step:?}");
                    from.iter().chain(to).copied().collect()
                }
                Fault::KillAll | Fault::Lossy(_) => vec![],
                other => {
                    assert!(!other.of().is_empty(), "{step:?}");
                    other.of()
                }
            };
            let distinct: BTreeSet<Who> = named.iter().copied().collect();
            assert_eq!(distinct.len(), named.len(), "{step:?}");
            let there = |who: &Who| matches!(who, Who::Leader) || *who < Who::Other(desktops - 1);
            assert!(named.iter().all(there), "{step:?}");
        }
    }
}

#[test]
fn two_faults_of_a_step_do_not_stand_in_each_others_way() {
    for (_, _, step) in many() {
        let [one, other] = step.faults.as_slice() else { continue };
        assert!(one.of().iter().all(|who| !other.of().contains(who)), "{step:?}");
        assert!(!(one.is_of_network() && other.is_of_network()), "the second would undo the first: {step:?}");
        let hindered = one.hinders_ending() || other.hinders_ending();
        let cut = one.is_of_network() || other.is_of_network();
        assert!(!(hindered && cut), "nobody could end what was cut off: {step:?}");
    }
}

#[test]
fn who_cannot_end_containers_is_not_gone_for_longer_than_others_wait() {
    let (mut long, most) = (0, Duration::from_millis(HOLDS_MS.1));
    for (_, _, step) in many() {
        let hindered = step.faults.iter().any(Fault::hinders_ending);
        assert!(!hindered || step.holds <= most, "{step:?}");
        long += usize::from(step.holds > most);
    }
    assert!(long > 100, "{long}");
}

#[test]
fn only_what_desktops_are_fitted_for_is_done_to_them() {
    for (_, fitting, step) in many() {
        for fault in &step.faults {
            let (clock, disk) = match fault {
                Fault::Clock(_, minutes) => {
                    assert!(*minutes != 0 && minutes.unsigned_abs() <= JUMP as u64, "{step:?}");
                    (true, false)
                }
                Fault::FullDisk(_) | Fault::ReadOnlyDisk(_) => (false, true),
                _ => (false, false),
            };
            assert!(fitting.own_clock || !clock, "{step:?}");
            assert!(fitting.own_disk || !disk, "{step:?}");
        }
    }
}

#[test]
fn every_kind_of_fault_occurs() {
    let kinds: BTreeSet<String> = many()
        .flat_map(|(desktops, _, step)| step.faults.into_iter().map(move |fault| (desktops, fault)))
        .map(|(desktops, fault)| match fault {
            Fault::Cut(groups) => {
                let inside = groups[1].contains(&Who::Leader);
                format!("cut into {} with the leader in the minority: {inside}", groups.len())
            }
            Fault::Kill(who) => format!("kill the leader: {}", who.contains(&Who::Leader)),
            Fault::PowerCut(who) => format!("cut power of the leader: {}", who.contains(&Who::Leader)),
            Fault::Sleep(who) => format!("the leader sleeps: {}", who.contains(&Who::Leader)),
            Fault::Readdress(who) => format!("other addresses for all: {}", who.len() == desktops),
            Fault::Clock(_, minutes) => format!("a clock goes back: {}", minutes < 0),
            other => format!("{other:?}").split('(').next().unwrap_or_default().to_owned(),
        })
        .collect();
    // Four cuts, and two each of kill, power cut, sleep, addresses and clocks; and all together, crash, leave, one way,
    // flap, loss, two of the disk, engine, processor.
    assert_eq!(kinds.len(), 24, "{kinds:?}");
    let fittings: BTreeSet<_> = many().map(|(_, fitting, _)| (fitting.own_clock, fitting.own_disk)).collect();
    assert_eq!(fittings.len(), 4, "every one is tried");
    assert!(many().any(|(_, _, step)| step.faults.len() == 2));
    assert!(many().any(|(_, _, step)| !step.whole) && many().any(|(_, _, step)| step.whole));
}
