//! Replacing the pods of an old template: so many at a time, the old one first or the new one first.

use super::super::bounds::{Rounding, resolve};
use super::super::loaded::Loaded;
use super::super::pods;
use super::{Hosting, Place, Work};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What a node has of the two templates; pods on their way out do not count.
enum Stage<'a> {
    /// No pod yet, or again.
    Empty,
    /// More than one of a kind: the node is still being set right.
    Unsettled,
    Old(&'a Loaded<Pod>),
    New(&'a Loaded<Pod>),
    Both {
        old: &'a Loaded<Pod>,
        new: &'a Loaded<Pod>,
    },
}

impl Work<'_> {
    fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    /// How many nodes may lack their daemon, and how many may have two.
    fn bounds(&self, desired: i32) -> (usize, usize) {
        let strategy = self.spec.update_strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.clone()).unwrap_or_default();
        let count = |bound: Option<IntOrString>, default: i32| {
            let bound = bound.unwrap_or(IntOrString::Int(default));
            usize::try_from(resolve(&bound, desired, Rounding::Up)).unwrap_or(0)
        };
        let (unavailable, surge) = (count(rolling.max_unavailable, 1), count(rolling.max_surge, 0));
        // With neither, the roll-out could never move.
        if surge == 0 { (unavailable.max(1), 0) } else { (unavailable, surge) }
    }

    pub(super) fn surges(&self) -> bool {
        self.is_rolling() && self.bounds(i32::MAX).1 > 0
    }

    pub(super) fn roll(&mut self, places: &[Place]) {
        if !self.is_rolling() {
            return;
        }
        let wanted: Vec<&Place> = places.iter().filter(|place| place.hosting == Hosting::Wanted).collect();
        let (unavailable, surge) = self.bounds(i32::try_from(wanted.len()).unwrap_or(i32::MAX));
        if surge > 0 {
            self.roll_new_first(&wanted, surge)
        } else {
            self.roll_old_first(&wanted, unavailable)
        }
    }

    fn roll_old_first(&mut self, places: &[&Place], allowed: usize) {
        let (mut lacking, mut replaceable, mut candidates) = (0, Vec::new(), Vec::new());
        for place in places {
            match self.stage(place) {
                Stage::Empty | Stage::Unsettled | Stage::Both { .. } => lacking += 1,
                Stage::New(pod) => lacking += usize::from(!self.serves(pod)),
                // One that does not serve is no loss.
                Stage::Old(pod) if !self.serves(pod) => replaceable.push(pod),
                Stage::Old(pod) => candidates.push(pod),
            }
        }
        let left = allowed.saturating_sub(lacking + replaceable.len());
        for pod in replaceable.into_iter().chain(candidates.into_iter().take(left)) {
            self.delete(pod);
        }
    }

    fn roll_new_first(&mut self, places: &[&Place], allowed: usize) {
        let (mut doubled, mut at_once, mut candidates) = (0, Vec::new(), Vec::new());
        for place in places {
            match self.stage(place) {
                Stage::Unsettled => doubled += 1,
                Stage::Empty | Stage::New(_) => {}
                Stage::Old(pod) if !self.serves(pod) => at_once.push(*place),
                Stage::Old(_) => candidates.push(*place),
                Stage::Both { old, new } if self.serves(new) => self.delete(old),
                Stage::Both { .. } => doubled += 1,
            }
        }
        let left = allowed.saturating_sub(doubled + at_once.len());
        for place in at_once.into_iter().chain(candidates.into_iter().take(left)) {
            if !self.give_birth(&place.node) {
                return;
            }
        }
    }

    fn stage<'a>(&self, place: &'a Place) -> Stage<'a> {
        let (mut old, mut new) = (None, None);
        for pod in place.pods.iter().filter(|pod| !pods::is_terminating(pod)) {
            let slot = if self.is_new(pod) { &mut new } else { &mut old };
            if slot.replace(pod).is_some() {
                return Stage::Unsettled;
            }
        }
        match (old, new) {
            (None, None) => Stage::Empty,
            (Some(old), None) => Stage::Old(old),
            (None, Some(new)) => Stage::New(new),
            (Some(old), Some(new)) => Stage::Both { old, new },
        }
    }
}
