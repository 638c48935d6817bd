//! Which of the nodes that can run a pod should: each concern gives 0 to 100, weighed as Kubernetes weighs them.

use super::cluster::Machine;
use super::demand::Demand;
use super::filter;

const TOP: i64 = 100;
const TAINT_WEIGHT: i64 = 3;
const AFFINITY_WEIGHT: i64 = 2;
/// Pods of one owner belong on different desktops: one of them may be switched off at any time.
const SPREAD_WEIGHT: i64 = 2;
const LEAST_ALLOCATED_WEIGHT: i64 = 1;
const BALANCE_WEIGHT: i64 = 1;
const IMAGE_WEIGHT: i64 = 1;

/// The best of the candidates (indexes into `machines`); among equals the least used, then an order that is
/// fixed for the pod but differs between pods.
pub(super) fn best(demand: &Demand, machines: &[Machine], candidates: &[usize]) -> Option<usize> {
    let of = |measure: &dyn Fn(&Machine) -> i64| -> Vec<i64> {
        candidates.iter().map(|index| measure(&machines[*index])).collect()
    };
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let preferred = of(&|machine| filter::preference(demand, machine));
    let unwanted = of(&|machine| count(filter::intolerable_preferences(demand, machine)));
    let siblings = of(&|machine| count(siblings(demand, machine)));
    let most = |values: &[i64]| values.iter().copied().max().unwrap_or(0).max(1);
    let (most_preferred, most_unwanted, most_siblings) = (most(&preferred), most(&unwanted), most(&siblings));
    let scored = candidates.iter().enumerate().map(|(place, index)| {
        let machine = &machines[*index];
        let score = AFFINITY_WEIGHT * (TOP * preferred[place] / most_preferred)
            + TAINT_WEIGHT * (TOP - TOP * unwanted[place] / most_unwanted)
            + SPREAD_WEIGHT * (TOP - TOP * siblings[place] / most_siblings)
            + LEAST_ALLOCATED_WEIGHT * least_allocated(demand, machine)
            + BALANCE_WEIGHT * balance(demand, machine)
            + IMAGE_WEIGHT * image_locality(demand, machine);
        (score, std::cmp::Reverse(machine.pods.len()), turn(demand, machine), *index)
    });
    scored.max().map(|(.., index)| index)
}

/// Pods of the same controller that are there already.
fn siblings(demand: &Demand, machine: &Machine) -> usize {
    let Some(owner) = &demand.controller_uid else { return 0 };
    machine.pods.iter().filter(|pod| pod.controller_uid.as_ref() == Some(owner)).count()
}

/// The share of processors and memory, in percent, that would be used.
fn usage(demand: &Demand, machine: &Machine) -> (i64, i64) {
    let share = |used: i64, more: i64, name: &str| {
        let offered = machine.offers.get(name).copied().unwrap_or(0);
        let used = i128::from(used) + i128::from(more);
        let percent =
            if offered > 0 { used * i128::from(TOP) / i128::from(offered) } else { i128::from(TOP) };
        i64::try_from(percent).unwrap_or(TOP).clamp(0, TOP)
    };
    (
        share(machine.assumed_cpu, demand.assumed_cpu, "cpu"),
        share(machine.assumed_memory, demand.assumed_memory, "memory"),
    )
}

fn least_allocated(demand: &Demand, machine: &Machine) -> i64 {
    let (cpu, memory) = usage(demand, machine);
    TOP - (cpu + memory) / 2
}

/// Full marks when processors and memory are used up alike: neither is then left over without the other.
fn balance(demand: &Demand, machine: &Machine) -> i64 {
    let (cpu, memory) = usage(demand, machine);
    TOP - (cpu - memory).abs()
}

/// The share of the pod's images that need no pull.
fn image_locality(demand: &Demand, machine: &Machine) -> i64 {
    let there = demand.images.iter().filter(|image| has_image(machine, image)).count();
    let all = demand.images.len().max(1);
    i64::try_from(there * 100 / all).unwrap_or(0)
}

/// `busybox` in a manifest is `busybox:latest` to an engine.
fn has_image(machine: &Machine, image: &str) -> bool {
    let tagged = image.contains('@') || image.rsplit('/').next().is_some_and(|name| name.contains(':'));
    machine.images.contains(image) || (!tagged && machine.images.contains(&format!("{image}:latest")))
}

/// Spreads equal choices over the nodes without chance: FNV-1a of pod and node.
fn turn(demand: &Demand, machine: &Machine) -> u64 {
    let uid = demand.pod.metadata.uid.as_deref().unwrap_or_default();
    let bytes = uid.bytes().chain(machine.name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
