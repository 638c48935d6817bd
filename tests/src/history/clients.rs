//! The clients: each writes and reads through whatever desktop chance names, and has every request and its outcome
//! recorded.
//!
//! Three kinds of objects, for three kinds of promises:
//! - `register-N`: few, contended, one field; created, compared and set, compared and deleted by everybody. What was
//!   ordered must have happened in one order.
//! - `log-GENERATION-N`: append-only; everybody merges fields of their own into them and nobody takes any away. A field that was
//!   acknowledged, ordered or kept, is there for ever.
//! - `thing-CLIENT-N`: one client's own; made, changed, perhaps deleted and perhaps made anew. What was acknowledged
//!   last is what is there at the end.

use super::access::{Access, Answer, Failure};
use super::record::{Action, Fields, Outcome, Recorder, Version};
use crate::seed::Seed;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Where all of it is; a namespace of its own keeps other objects out of lists and watches.
pub const NAMESPACE: &str = "history";
/// Objects of the contended kinds.
const REGISTERS: usize = 3;
const LOGS: usize = 2;
/// How many fields a client adds to one generation of logs, so that no object, and with it the history, grows
/// beyond all bounds.
const GENERATION: usize = 12;
/// How many things a client makes at most: the cluster's own size is not what is tried here.
const THINGS: usize = 600;
/// How fast a client can use up generations at most, for how many have to be made beforehand.
const GENERATIONS_PER_MINUTE: usize = 12;
/// Between two requests of one client.
const THINKS_MS: (u64, u64) = (10, 120);
/// What the product says to a write that it could not order.
const KEPT: &str = "kept as intent";

/// Ends a run for everybody who waits on it.
#[derive(Debug, Default)]
pub struct Stop {
    stopped: Mutex<bool>,
    rung: Condvar,
}

impl Stop {
    /// From now on.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.rung.notify_all();
    }

    /// Waits so long, or until the end of the run; whether that has come.
    pub fn wait(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.rung.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How many generations of logs a run of so long needs.
#[must_use]
pub fn generations(run: Duration) -> usize {
    1 + usize::try_from(run.as_secs()).unwrap_or(usize::MAX / 60) * GENERATIONS_PER_MINUTE / 60
}

/// Makes what clients share, before anything goes wrong.
pub fn prepare(access: &Access, generations: usize) -> anyhow::Result<()> {
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let mut made = vec![("/api/v1/namespaces".to_owned(), space)];
    let logs = (0..generations).flat_map(|generation| (0..LOGS).map(move |log| log_name(generation, log)));
    made.extend(logs.map(|name| (collection(), body(&name, &Fields::new(), None))));
    for (path, object) in made {
        let answer = access.ask(1, "POST", &path, Some(("application/json", &object)));
        let created = matches!(&answer, Ok(Answer { code: 201, warnings, .. }) if warnings.is_empty());
        anyhow::ensure!(created, "preparing {}: {answer:?}", object["metadata"]["name"]);
    }
    Ok(())
}

/// The path of all `ConfigMap`s of the run.
#[must_use]
pub fn collection() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

fn log_name(generation: usize, log: usize) -> String {
    format!("log-{generation}-{log}")
}

fn body(name: &str, fields: &Fields, expects: Option<&Version>) -> Value {
    let kind = name.split('-').next();
    let mut metadata = json!({ "name": name, "labels": { "kind": kind } });
    if let Some(version) = expects {
        metadata["resourceVersion"] = version.revision.to_string().into();
    }
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": fields})
}

/// Tries, when all is whole again, whether every contended object can still be written: an object that answers every
/// write with a conflict loses nothing that was acknowledged, and is of no use.
///
/// # Errors
/// Names the first that cannot.
pub fn probe(access: &Access, recorder: &Recorder, number: usize, deadline: Duration) -> anyhow::Result<()> {
    let seed = Seed::new(0);
    let mut client = Client::new(access, recorder, number, &seed, 1);
    let registers = (0..REGISTERS).map(|register| format!("register-{register}"));
    for name in registers.chain((0..LOGS).map(|log| log_name(0, log))) {
        crate::bench::poll(deadline, &format!("a write of {name} to be ordered"), || {
            let value = client.value();
            let outcome = match (client.perform(Action::Get { name: name.clone(), at_least: None }), &name) {
                (Outcome::Found { .. }, name) if name.starts_with("log") => {
                    let fields = Fields::from([(value, "1".to_owned())]);
                    client.perform(Action::Merge { name: name.clone(), fields })
                }
                (Outcome::Found { version }, name) => {
                    let fields = Fields::from([("value".to_owned(), value)]);
                    client.perform(Action::Replace { name: name.clone(), expects: version, fields })
                }
                (Outcome::Absent, name) => {
                    let fields = Fields::from([("value".to_owned(), value)]);
                    client.perform(Action::Create { name: name.clone(), fields })
                }
                (other, _) => other,
            };
            anyhow::ensure!(matches!(outcome, Outcome::Ordered { .. }), "the last one was {outcome:?}");
            Ok(Some(()))
        })?;
    }
    Ok(())
}

/// One client.
pub struct Client<'a> {
    access: &'a Access,
    recorder: &'a Recorder,
    number: usize,
    seed: Seed,
    /// The newest revision that this client has been shown: no answer may be older.
    session: u64,
    thing: Thing,
    generations: usize,
    appended: usize,
    /// Makes every value one of its kind.
    written: usize,
}

/// The object that a client works on alone.
#[derive(Default)]
struct Thing {
    number: usize,
    changes: usize,
    /// Its last acknowledged version.
    version: Option<Version>,
    /// Nobody knows, or not yet, what it is: it is left as it is.
    abandoned: bool,
}

impl<'a> Client<'a> {
    /// A client whose choices the seed alone makes.
    #[must_use]
    pub fn new(
        access: &'a Access,
        recorder: &'a Recorder,
        number: usize,
        seed: &Seed,
        generations: usize,
    ) -> Self {
        let seed = seed.part("client", number);
        let thing = Thing::default();
        Self { access, recorder, number, seed, session: 0, thing, generations, appended: 0, written: 0 }
    }

    /// Works until the run ends.
    pub fn run(&mut self, stop: &Stop) {
        while !stop.wait(self.seed.between(THINKS_MS.0, THINKS_MS.1)) && self.recorder.has_room() {
            match self.seed.below(10) {
                0..=3 => self.register(),
                4..=6 => self.append(),
                7..=8 => self.thing(),
                _ => self.list(),
            }
        }
    }

    fn list(&mut self) {
        let at_least = self.at_least();
        self.perform(Action::List { at_least });
    }

    /// Most reads go on from what the client has seen; some do not care, as kubectl's.
    fn at_least(&mut self) -> Option<u64> {
        (self.session > 0 && !self.seed.percent(20)).then_some(self.session)
    }

    fn value(&mut self) -> String {
        self.written += 1;
        format!("c{}-{}", self.number, self.written)
    }

    /// Reads a register and sets it if nobody has done so meanwhile.
    fn register(&mut self) {
        let name = format!("register-{}", self.seed.below(REGISTERS));
        let at_least = self.at_least();
        match self.perform(Action::Get { name: name.clone(), at_least }) {
            Outcome::Absent => {
                let fields = Fields::from([("value".to_owned(), self.value())]);
                self.perform(Action::Create { name, fields });
            }
            Outcome::Found { version } if self.seed.percent(8) => {
                self.perform(Action::Delete { name, expects: version });
            }
            Outcome::Found { version } => {
                let fields = Fields::from([("value".to_owned(), self.value())]);
                self.perform(Action::Replace { name, expects: version, fields });
            }
            _ => {}
        }
    }

    fn append(&mut self) {
        let generation = (self.appended / GENERATION).min(self.generations - 1);
        let name = log_name(generation, self.seed.below(LOGS));
        if self.appended < self.generations * GENERATION && !self.seed.percent(25) {
            self.appended += 1;
            let value = self.value();
            self.perform(Action::Merge { name, fields: Fields::from([(value, "1".to_owned())]) });
        } else {
            let at_least = self.at_least();
            self.perform(Action::Get { name, at_least });
        }
    }

    /// The next step in the life of this client's own object.
    fn thing(&mut self) {
        if self.thing.abandoned && self.thing.number < THINGS {
            self.thing = Thing { number: self.thing.number + 1, ..Thing::default() };
        }
        if self.thing.abandoned {
            return self.list();
        }
        let name = format!("thing-{}-{}", self.number, self.thing.number);
        let value = self.value();
        let fields = Fields::from([(format!("field-{}", self.thing.changes), value)]);
        let action = match &self.thing.version {
            None => Action::Create { name, fields },
            Some(version) if self.thing.changes > 1 && self.seed.percent(40) => {
                Action::Delete { name, expects: version.clone() }
            }
            Some(_) => Action::Merge { name, fields },
        };
        let deletes = matches!(action, Action::Delete { .. });
        match self.perform(action) {
            // The same name again: another object, whatever the documents remember of the old one.
            Outcome::Ordered { .. } if deletes && self.seed.percent(60) => {
                self.thing = Thing { number: self.thing.number, ..Thing::default() };
            }
            Outcome::Ordered { version } if !deletes && self.thing.changes < 5 => {
                self.thing.changes += 1;
                self.thing.abandoned = version.is_none();
                self.thing.version = version;
            }
            // Not there yet for a desktop that lags: tried again later, through another one.
            Outcome::Refused { .. } => {}
            _ => self.thing.abandoned = true,
        }
    }

    fn perform(&mut self, action: Action) -> Outcome {
        let desktop = 1 + self.seed.below(self.access.desktops());
        let op = self.recorder.invoke(self.number, desktop, &action);
        let outcome = ask(self.access, desktop, &action);
        self.recorder.complete(op, &outcome);
        let seen = match &outcome {
            Outcome::Ordered { version } => version.as_ref().map_or(0, |version| version.revision),
            Outcome::Found { version } => version.revision,
            Outcome::Listed { revision, .. } => *revision,
            _ => 0,
        };
        self.session = match &outcome {
            // The group was founded anew without what this client was shown: it begins anew as well.
            Outcome::Refused { code: 410, .. } => 0,
            _ => self.session.max(seen),
        };
        outcome
    }
}

/// Carries one action out and says what came of it.
#[must_use]
pub fn ask(access: &Access, desktop: usize, action: &Action) -> Outcome {
    let at = |name: &str| format!("{}/{name}", collection());
    let since = |at_least: &Option<u64>| at_least.map_or(String::new(), |r| format!("?resourceVersion={r}"));
    let json = "application/json";
    let answer = match action {
        Action::Create { name, fields } => {
            access.ask(desktop, "POST", &collection(), Some((json, &body(name, fields, None))))
        }
        Action::Replace { name, expects, fields } => {
            access.ask(desktop, "PUT", &at(name), Some((json, &body(name, fields, Some(expects)))))
        }
        Action::Merge { name, fields } => {
            let patch = json!({ "data": fields });
            access.ask(desktop, "PATCH", &at(name), Some(("application/merge-patch+json", &patch)))
        }
        Action::Delete { name, expects } => {
            let preconditions =
                json!({"resourceVersion": expects.revision.to_string(), "uid": expects.uid.clone()});
            let options =
                json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions});
            access.ask(desktop, "DELETE", &at(name), Some((json, &options)))
        }
        Action::Get { name, at_least } => {
            access.ask(desktop, "GET", &format!("{}{}", at(name), since(at_least)), None)
        }
        Action::List { at_least } => {
            let since = at_least.map_or(String::new(), |r| format!("&resourceVersion={r}"));
            let path = format!("{}?labelSelector=kind%3Dregister{since}", collection());
            access.ask(desktop, "GET", &path, None)
        }
    };
    outcome(action, answer)
}

/// What an answer means.
fn outcome(action: &Action, answer: Result<Answer, Failure>) -> Outcome {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Failure::NotSent(why)) => return Outcome::Refused { code: 0, why },
        Err(Failure::NoAnswer(why)) => return Outcome::Unknown { code: 0, why },
    };
    let kept = answer.warnings.iter().find(|warning| warning.contains(KEPT));
    let message = || answer.body["message"].as_str().unwrap_or_default().to_owned();
    match (answer.code, action) {
        (200..=299, Action::List { .. }) => listed(&answer.body).map_or_else(
            || Outcome::Unknown { code: 0, why: format!("a list that cannot be read: {}", answer.body) },
            |(revision, items)| Outcome::Listed { revision, items },
        ),
        (200..=299, Action::Get { .. }) => version(&answer.body).map_or_else(
            || Outcome::Unknown { code: 0, why: format!("an object that cannot be read: {}", answer.body) },
            |version| Outcome::Found { version },
        ),
        (200..=299, _) => match kept {
            Some(warning) => Outcome::Kept {
                warning: warning.clone(),
                uid: answer.body["metadata"]["uid"].as_str().map(str::to_owned),
            },
            // A deletion answers with a status, not with the object.
            None => Outcome::Ordered { version: version(&answer.body) },
        },
        (404, Action::Get { .. }) => Outcome::Absent,
        // 500 and 504 are said where a write may have happened.
        (code @ (500 | 504), _) => Outcome::Unknown { code, why: message() },
        (code, _) => Outcome::Refused { code, why: message() },
    }
}

/// An object as the API writes it.
#[must_use]
pub fn version(object: &Value) -> Option<Version> {
    let metadata = &object["metadata"];
    let fields = match &object["data"] {
        Value::Null => Fields::new(),
        data => serde_json::from_value(data.clone()).ok()?,
    };
    Some(Version {
        uid: metadata["uid"].as_str()?.to_owned(),
        revision: metadata["resourceVersion"].as_str()?.parse().ok()?,
        fields,
    })
}

/// What every namespace has without anybody's asking.
pub const NOT_OURS: &str = "kube-root-ca.crt";

/// A list as the API writes it, without what no client made.
#[must_use]
pub fn listed(list: &Value) -> Option<(u64, BTreeMap<String, Version>)> {
    let revision = list["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
    let items = list["items"].as_array()?.iter().map(|object| {
        let name = object["metadata"]["name"].as_str()?;
        Some((name.to_owned(), version(object)?))
    });
    let mut items: BTreeMap<_, _> = items.collect::<Option<_>>()?;
    items.remove(NOT_OURS);
    Some((revision, items))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(action: &Action, code: u16, warnings: &[&str]) -> Outcome {
        let body = json!({
            "metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}, "data": {"x": "1"}, "message": "m",
        });
        let warnings = warnings.iter().map(|&warning| warning.to_owned()).collect();
        outcome(action, Ok(Answer { code, warnings, body }))
    }

    #[test]
    fn every_answer_to_a_write_has_its_meaning() {
        let create = Action::Create { name: "a".into(), fields: Fields::new() };
        assert!(matches!(answered(&create, 201, &[]), Outcome::Ordered { version: Some(_) }));
        assert!(matches!(
            answered(&create, 201, &["299 gaggle \"something else\""]),
            Outcome::Ordered { .. }
        ));
        let kept = "299 gaggle \"no quorum: kept as intent on this desktop\"";
        assert!(matches!(answered(&create, 201, &[kept]), Outcome::Kept { .. }));
        assert!(matches!(answered(&create, 409, &[]), Outcome::Refused { code: 409, .. }));
        assert!(matches!(answered(&create, 503, &[]), Outcome::Refused { .. }));
        assert!(matches!(answered(&create, 504, &[]), Outcome::Unknown { .. }));
        let lost = Err(Failure::NoAnswer("cut".into()));
        assert!(matches!(outcome(&create, lost), Outcome::Unknown { .. }));
        let unsent = Err(Failure::NotSent("refused".into()));
        assert!(matches!(outcome(&create, unsent), Outcome::Refused { .. }));
    }

    #[test]
    fn a_read_finds_or_does_not_or_failed() {
        let get = Action::Get { name: "a".into(), at_least: None };
        let fields = Fields::from([("x".to_owned(), "1".to_owned())]);
        let version = Version { uid: "u".into(), revision: 7, fields };
        assert_eq!(answered(&get, 200, &[]), Outcome::Found { version });
        assert_eq!(answered(&get, 404, &[]), Outcome::Absent);
        assert!(matches!(answered(&get, 410, &[]), Outcome::Refused { code: 410, .. }));
    }

    #[test]
    fn the_end_is_heard_by_who_waits() {
        let stop = Stop::default();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| stop.wait(Duration::from_secs(600)));
            stop.stop();
            assert!(waiter.join().unwrap());
        });
        assert!(stop.wait(Duration::ZERO));
    }
}
