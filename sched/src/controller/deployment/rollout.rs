//! One step of a rollout: the new ReplicaSet up, the old ones down, within the strategy's bounds.

use super::super::owners::controller_of;
use super::super::pods;
use super::{Set, Work};
use crate::state::Key;
use k8s_openapi::api::core::v1::Pod;

impl Work<'_> {
    pub(super) fn recreate(&mut self) {
        let old: Vec<usize> = self.old().collect();
        let scaled: Vec<bool> = old.iter().map(|index| self.scale_to(*index, 0)).collect();
        if scaled.contains(&true) || old.iter().any(|index| self.has_unfinished_pods(&self.sets[*index])) {
            self.adopt_newest();
            return;
        }
        let desired = self.desired();
        self.ensure_newest(desired);
        if let Some(newest) = self.newest {
            self.scale_to(newest, desired);
        }
    }

    pub(super) fn roll(&mut self, surge: i32, unavailable: i32) {
        let wanted = self.newest_replicas(surge);
        self.ensure_newest(wanted);
        let Some(newest) = self.newest else { return };
        if self.scale_to(newest, wanted) {
            return;
        }
        self.shrink_old(newest, unavailable);
    }

    /// How many pods the new ReplicaSet may be asked for now.
    fn newest_replicas(&self, surge: i32) -> i32 {
        let current = self.newest.map_or(0, |newest| self.sets[newest].replicas);
        let desired = self.desired();
        if current >= desired {
            return desired;
        }
        // An old ReplicaSet that was told to shrink still has its pods until it has counted them down: making
        // new ones earlier would exceed the surge for a moment, on desktops that may have no room for it.
        let old: i32 =
            self.old().map(|index| self.sets[index].replicas.max(self.sets[index].existing())).sum();
        let room = desired + surge - old - current;
        current + room.clamp(0, desired - current)
    }

    fn shrink_old(&mut self, newest: usize, unavailable: i32) {
        if self.old().all(|index| self.sets[index].replicas == 0) {
            return;
        }
        let least = self.desired() - unavailable;
        let new = &self.sets[newest];
        let not_yet = new.replicas - new.available();
        let mut room = self.total() - least - not_yet;
        // Pods that do not serve anyway go first: a broken revision must not block the one that mends it.
        for index in self.old().collect::<Vec<_>>() {
            let set = &self.sets[index];
            let broken = (set.replicas - set.available()).clamp(0, room.max(0));
            if broken > 0 {
                room -= broken;
                let rest = set.replicas - broken;
                self.scale_to(index, rest);
            }
        }
        let available: i32 = self.sets.iter().map(Set::available).sum();
        let mut spare = (available - least).min(room);
        for index in self.old().collect::<Vec<_>>() {
            let count = self.sets[index].replicas.min(spare.max(0));
            if count > 0 {
                spare -= count;
                let rest = self.sets[index].replicas - count;
                self.scale_to(index, rest);
            }
        }
    }

    fn has_unfinished_pods(&self, set: &Set) -> bool {
        let uid = set.loaded.object.uid();
        self.store.owned_by(uid).any(|key: &Key| {
            let pod = self.store.get(key).and_then(|object| object.typed::<Pod>());
            pod.is_some_and(|pod| {
                controller_of(&pod.metadata).is_some_and(|owner| owner.uid == uid) && !pods::is_finished(&pod)
            })
        })
    }
}
