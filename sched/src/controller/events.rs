//! Events are for people, and go after an hour, or earlier when there are very many.

use super::{Controller, Plan};
use crate::controller::instant::elapsed;
use crate::state::{Change, Expect, Key, Object, Resource, Store, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use std::time::Duration;

const NAME: &str = "event-collector";
pub(super) const EVENTS: Resource = Resource::fixed("events");
/// How long an event is kept after it last happened (Kubernetes' default).
pub const EVENT_TTL: Duration = Duration::from_secs(3600);
/// Events kept in the whole cluster: a few megabytes of the state that every node holds.
pub const EVENT_LIMIT: usize = 5000;
/// How many more may gather before the oldest are swept: a sweep looks at all of them.
const SWEEP_SLACK: usize = 250;
/// Expired ones are swept together, this often.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Events deleted by one transaction.
const BATCH: usize = 250;

pub struct EventCollector;

/// All events together are one thing to reconcile.
fn sentinel() -> Key {
    Key::new(EVENTS, "", "")
}

impl Controller for EventCollector {
    fn name(&self) -> &'static str {
        NAME
    }

    fn concerned(&self, store: &Store, change: &Change) -> Vec<Key> {
        // Counting is cheap but not free: only every so many revisions, which bounds the overshoot.
        let born = change.key.resource == EVENTS && change.previous.is_none();
        let due = change.revision.0.is_multiple_of(SWEEP_SLACK as u64);
        let many = || store.list(&EVENTS, None).count() > EVENT_LIMIT + SWEEP_SLACK;
        if born && due && many() { vec![sentinel()] } else { Vec::new() }
    }

    fn all(&self, _: &Store) -> Vec<Key> {
        vec![sentinel()]
    }

    fn reconcile(&self, store: &Store, _: &Key, now: &Time) -> Plan {
        let mut events: Vec<(Option<Time>, Key, &str)> =
            store.list(&EVENTS, None).map(|(key, object)| (last_seen(object), key, object.uid())).collect();
        events.sort();
        let surplus = events.len().saturating_sub(EVENT_LIMIT);
        let over = events.iter().enumerate().filter(|(index, (seen, ..))| {
            *index < surplus || seen.as_ref().is_none_or(|seen| elapsed(now, seen) >= EVENT_TTL)
        });
        let writes: Vec<Write> = over
            .map(|(_, (_, key, uid))| {
                let expect = Expect::Uid((*uid).to_owned());
                Write::Delete { key: key.clone(), expect, intent: None }
            })
            .collect();
        let mut plan = Plan::default();
        writes.chunks(BATCH).for_each(|batch| plan.transaction(batch.to_vec()));
        plan.requeue(SWEEP_INTERVAL);
        plan
    }
}

/// When it last happened, by whichever of the fields its writer filled in.
fn last_seen(object: &Object) -> Option<Time> {
    let fields = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    fields.iter().find_map(|field| {
        let text = object.value().pointer(field).and_then(Value::as_str)?;
        text.parse().ok().map(Time)
    })
}
