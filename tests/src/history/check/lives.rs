//! Whether containers of an identity, which runs at most once in the whole flock, were alive at the same time.
//!
//! Each container writes down again and again that it is there. One that is silent for long was not running: its
//! desktop slept. When that wakes up, it runs on until its agent has looked at a clock; so much is granted.

use super::Violation;
use std::collections::BTreeMap;

/// A container that says nothing for so long did not run. Far more than the pauses of one on a busy machine, and less
/// than the time after which an identity is made again elsewhere.
const SILENT_S: f64 = 5.0;
/// How long one may go on that wakes up on a desktop that slept.
const WAKES_S: f64 = 3.0;

/// A time in which a container ran without a pause.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stretch {
    pub from_s: f64,
    pub to_s: f64,
    /// Whether it ran before, and was silent in between.
    pub woke: bool,
}

/// The stretches of each container of one identity.
pub type Lives = BTreeMap<String, Vec<Stretch>>;

/// Puts together what containers wrote, one line each time: which container, and the machine's clock in seconds. `None`
/// for what is no such line.
#[must_use]
pub fn lives(text: &str) -> Option<Lives> {
    let mut lives = Lives::new();
    for line in text.lines() {
        let (container, at_s) = line.split_once(' ')?;
        let at_s: f64 = at_s.parse().ok()?;
        let stretches = lives.entry(container.to_owned()).or_default();
        let fresh = |woke| Stretch { from_s: at_s, to_s: at_s, woke };
        match stretches.last_mut() {
            None => stretches.push(fresh(false)),
            Some(last) if at_s - last.to_s > SILENT_S => stretches.push(fresh(true)),
            Some(last) => last.to_s = at_s,
        }
    }
    Some(lives)
}

/// Two containers of one identity that ran at the same time.
#[must_use]
pub fn check(identities: &BTreeMap<String, Lives>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, lives) in identities {
        let stretches = lives.iter().flat_map(|(container, all)| all.iter().map(move |one| (container, one)));
        let mut stretches: Vec<_> = stretches.filter(|(_, one)| !is_waking(one)).collect();
        stretches.sort_by(|(_, one), (_, other)| one.from_s.total_cmp(&other.from_s));
        // The one that goes on longest among those that began before.
        let mut before: Option<(&String, &Stretch)> = None;
        for (container, stretch) in stretches {
            if let Some((other, earlier)) = before
                && other != container
                && earlier.to_s >= stretch.from_s
            {
                let what = format!(
                    "{name} ran twice at once: {other} until {} s, {container} from {} s",
                    earlier.to_s, stretch.from_s
                );
                violations.push(Violation::new(what, []));
            }
            if before.is_none_or(|(_, earlier)| earlier.to_s < stretch.to_s) {
                before = Some((container, stretch));
            }
        }
    }
    violations
}

fn is_waking(stretch: &Stretch) -> bool {
    stretch.woke && stretch.to_s - stretch.from_s < WAKES_S
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Containers that say five times a second that they are there, from second to second.
    fn wrong(said: &[(&str, f64, f64)]) -> String {
        let mut lines: Vec<(f64, String)> = Vec::new();
        for (container, from_s, to_s) in said {
            let mut at_s = *from_s;
            while at_s <= *to_s {
                lines.push((at_s, format!("{container} {at_s:.2}\n")));
                at_s += 0.2;
            }
        }
        lines.sort_by(|one, other| one.0.total_cmp(&other.0));
        let text: String = lines.into_iter().map(|(_, line)| line).collect();
        let identities = BTreeMap::from([("db-0".to_owned(), lives(&text).unwrap())]);
        check(&identities).into_iter().map(|violation| violation.what).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn one_after_the_other_is_fine_and_both_at_once_is_seen() {
        assert_eq!(wrong(&[("a", 0.0, 10.0), ("b", 12.0, 20.0), ("c", 20.5, 30.0)]), "");
        assert!(wrong(&[("a", 0.0, 10.0), ("b", 9.0, 20.0)]).contains("ran twice at once"));
        assert!(wrong(&[("a", 0.0, 30.0), ("b", 9.0, 10.0)]).contains("b from 9"), "one within the other");
        let third = wrong(&[("a", 0.0, 30.0), ("b", 40.0, 41.0), ("c", 40.5, 50.0)]);
        assert!(third.contains("b until"), "{third}");
    }

    #[test]
    fn who_wakes_up_may_look_at_a_clock_and_no_more() {
        assert_eq!(wrong(&[("a", 0.0, 10.0), ("b", 24.0, 60.0), ("a", 40.0, 42.0)]), "");
        assert!(wrong(&[("a", 0.0, 10.0), ("b", 24.0, 60.0), ("a", 40.0, 44.0)]).contains("ran twice"));
        assert!(wrong(&[("a", 0.0, 60.0), ("b", 24.0, 25.0)]).contains("ran twice"), "a never slept");
        assert_eq!(lives("a 1\na\n"), None);
    }
}
