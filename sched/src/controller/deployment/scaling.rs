//! Scaling a Deployment whose template has not changed, or in the middle of a rollout: in proportion.

use super::revisions::DESIRED;
use super::strategy::Strategy;
use super::{Set, Work};

impl Work<'_> {
    /// Whether `spec.replicas` has changed since the ReplicaSets were last scaled.
    pub(super) fn is_scaling_event(&self) -> bool {
        let asked = |set: &Set| set.annotations.get(DESIRED).and_then(|desired| desired.parse::<i32>().ok());
        let active = self.sets.iter().filter(|set| set.replicas > 0);
        active.filter_map(asked).any(|asked| asked != self.desired())
    }

    pub(super) fn scale(&mut self) {
        let desired = self.desired();
        let active: Vec<usize> =
            (0..self.sets.len()).filter(|index| self.sets[*index].replicas > 0).collect();
        match active.as_slice() {
            [] => {
                if let Some(index) = self.newest.or_else(|| self.sets.len().checked_sub(1)) {
                    self.scale_to(index, desired);
                }
            }
            [only] => {
                self.scale_to(*only, desired);
            }
            _ if self.is_saturated() => {
                for index in self.old().collect::<Vec<_>>() {
                    self.scale_to(index, 0);
                }
            }
            _ => {
                if let Strategy::RollingUpdate { surge, .. } = self.strategy() {
                    self.scale_in_proportion(active, surge);
                }
            }
        }
    }

    /// The new ReplicaSet has all the pods that are wanted, and they serve.
    fn is_saturated(&self) -> bool {
        let desired = self.desired();
        self.newest.is_some_and(|newest| {
            let set = &self.sets[newest];
            let asked = set.annotations.get(DESIRED).and_then(|desired| desired.parse::<i32>().ok());
            set.replicas == desired && asked == Some(desired) && set.available() == desired
        })
    }

    fn scale_in_proportion(&mut self, mut active: Vec<usize>, surge: i32) {
        let desired = self.desired();
        let allowed = if desired > 0 { desired + surge } else { 0 };
        let total: i32 = active.iter().map(|index| self.sets[*index].replicas).sum();
        let to_add = allowed - total;
        // The largest takes what rounding leaves; among equals the newer when growing, the older when shrinking.
        active.sort_by_key(|index| {
            let size = -i64::from(self.sets[*index].replicas);
            let age = i64::try_from(*index).unwrap_or(i64::MAX);
            (size, if to_add > 0 { -age } else { age })
        });
        let mut targets: Vec<i32> = Vec::new();
        let mut added = 0;
        for index in &active {
            let set = &self.sets[*index];
            let share = share(set, total, allowed);
            let left = to_add - added;
            let share = if to_add > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
            added += share;
            targets.push(set.replicas + share);
        }
        if let Some(first) = targets.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (index, target) in active.into_iter().zip(targets) {
            self.scale_to(index, target.max(0));
        }
    }
}

/// What a ReplicaSet of `total` pods in all gets more (or fewer) when all may have `allowed`.
fn share(set: &Set, total: i32, allowed: i32) -> i32 {
    if total == 0 {
        return 0;
    }
    let (replicas, total, allowed) = (i64::from(set.replicas), i64::from(total), i64::from(allowed));
    // Rounded to the nearest.
    let scaled = (2 * replicas * allowed + total) / (2 * total);
    i32::try_from(scaled - replicas).unwrap_or(0)
}
