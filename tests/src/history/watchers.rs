//! The watchers: each lists once and then follows every change, through whatever desktop chance names, going on from
//! the last revision that it was told wherever a stream ends.

use super::access::{Access, Failure};
use super::clients::{NOT_OURS, Stop, collection, listed, version};
use super::record::{Recorder, Told, Version};
use crate::seed::Seed;
use anyhow::{Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long one stream goes on: long enough to live through a fault, short enough to move between desktops.
const STREAM_S: u64 = 6;
/// A stream that is silent for so long beyond its end is broken.
const SILENCE: Duration = Duration::from_secs(STREAM_S + 4);
/// Between attempts while a desktop is down.
const RETRY: Duration = Duration::from_millis(50);

/// One watcher.
pub struct Watcher<'a> {
    access: &'a Access,
    recorder: &'a Recorder,
    number: usize,
    seed: Seed,
    /// The last revision that it was told; none before a list.
    told: Option<u64>,
}

impl<'a> Watcher<'a> {
    /// A watcher whose choices the seed alone makes.
    #[must_use]
    pub fn new(access: &'a Access, recorder: &'a Recorder, number: usize, seed: &Seed) -> Self {
        Self { access, recorder, number, seed: seed.part("watcher", number), told: None }
    }

    /// Follows until it has been told of the object of this name, or `stop` rings; whether it was told.
    pub fn run(&mut self, last: &str, stop: &Stop) -> bool {
        while self.recorder.has_room() {
            let desktop = 1 + self.seed.below(self.access.desktops());
            let turn = match self.told {
                None => self.list(desktop, last),
                Some(after) => self.follow(desktop, after, last),
            };
            match turn {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => self.note(desktop, Told::Ended { why: format!("{error:#}") }),
            }
            if stop.wait(RETRY) {
                return false;
            }
        }
        false
    }

    fn note(&self, desktop: usize, told: Told) {
        self.recorder.watched(self.number, desktop, told);
    }

    fn list(&mut self, desktop: usize, last: &str) -> Result<bool> {
        let answer = self.access.ask(desktop, "GET", &collection(), None).map_err(describe)?;
        let Some((revision, items)) = listed(&answer.body) else {
            bail!("listing: {} {}", answer.code, answer.body["message"]);
        };
        let over = items.contains_key(last);
        self.told = Some(revision);
        self.note(desktop, Told::Listed { revision, items });
        Ok(over)
    }

    fn follow(&mut self, desktop: usize, after: u64, last: &str) -> Result<bool> {
        let path = format!("{}?watch=true&resourceVersion={after}&timeoutSeconds={STREAM_S}", collection());
        let mut stream = self.access.watch(desktop, &path, SILENCE).map_err(describe)?;
        if stream.code == 200 {
            self.note(desktop, Told::Opened { after });
        }
        while let Some(line) = stream.line()? {
            if stream.code == 410 || (line["type"] == "ERROR" && line["object"]["code"] == 410) {
                self.told = None;
                self.note(desktop, Told::Expired);
                return Ok(false);
            }
            if stream.code != 200 {
                bail!("watching: {} {}", stream.code, line["message"]);
            }
            let (name, told) = event(&line)?;
            let over = name == last;
            if let Told::Added { version, .. }
            | Told::Modified { version, .. }
            | Told::Deleted { version, .. } = &told
            {
                self.told = Some(version.revision);
            }
            if name != NOT_OURS {
                self.note(desktop, told);
            }
            if over {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// An event as the API writes it, and the object that it is about.
fn event(line: &Value) -> Result<(String, Told)> {
    let object = &line["object"];
    let (Some(name), Some(version)) = (object["metadata"]["name"].as_str(), version(object)) else {
        bail!("an event about no object: {line}");
    };
    let name = name.to_owned();
    let told = |make: fn(String, Version) -> Told| (name.clone(), make(name.clone(), version.clone()));
    Ok(match line["type"].as_str() {
        Some("ADDED") => told(|name, version| Told::Added { name, version }),
        Some("MODIFIED") => told(|name, version| Told::Modified { name, version }),
        Some("DELETED") => told(|name, version| Told::Deleted { name, version }),
        _ => bail!("an event of an unknown type: {line}"),
    })
}

fn describe(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::NotSent(why) | Failure::NoAnswer(why) => anyhow::anyhow!(why),
    }
}

/// What one desktop holds, for the end of a history.
pub fn holds(access: &Access, desktop: usize) -> Result<BTreeMap<String, Version>> {
    let answer = access.ask(desktop, "GET", &collection(), None).map_err(describe)?;
    match listed(&answer.body) {
        Some((_, items)) => Ok(items),
        None => bail!("listing on d{desktop}: {} {}", answer.code, answer.body["message"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_are_read_by_their_type() {
        let object = json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "9"}});
        let (name, told) = event(&json!({"type": "DELETED", "object": object})).unwrap();
        assert_eq!(name, "a");
        assert!(matches!(told, Told::Deleted { version, .. } if version.revision == 9));
        assert!(event(&json!({"type": "ERROR", "object": object})).is_err());
        assert!(event(&json!({"type": "ADDED", "object": {}})).is_err());
    }
}
