//! How often a node speaks, and how long it waits for another one, by the size of the flock.
//!
//! Pure. A greeting names every member, so what one costs grows with the flock, and with a fixed interval the
//! traffic of all would grow with its square, of each in proportion. Here **each node's greetings stay within a
//! fixed number of bytes a second**: up to about seventy-five members the interval is the shortest one, beyond that it
//! grows in proportion to the flock. How many rounds news needs to reach everybody grows only with the logarithm,
//! so a wait of a fixed number of rounds is honest at any size that fits into gossip's messages.
//!
//! | members | interval | wait, connected | seen by simulation: a change by all | a crash, median, all | a cut, median, all | sent a second |
//! |--------:|---------:|----------------:|----------------:|---------------:|---------------:|--------:|
//! |       3 |   200 ms |           2.0 s |          0.13 s |   1.3 s, 1.3 s |   2.0 s, 2.0 s |   4 KiB |
//! |       9 |   200 ms |           2.0 s |          0.20 s |   1.3 s, 1.4 s |   2.3 s, 2.4 s |  15 KiB |
//! |      60 |   200 ms |           2.0 s |          0.31 s |   1.4 s, 1.6 s |   2.3 s, 2.5 s | 101 KiB |
//! |     300 |   783 ms |           6.3 s |           1.8 s |   4.6 s, 6.3 s |   5.2 s, 5.4 s | 128 KiB |
//! |   1,000 |    2.6 s |          20.9 s |           6.8 s |    15 s,  23 s |    16 s,  21 s | 128 KiB |
//!
//! (`cargo run -p gaggle-gossip --features simulation --example thousand`; the transport's pings come on top.)

use std::time::Duration;

use super::pace::BYTES_PER_SECOND;
use super::place::DIGEST_BYTES;

/// Peers that a node speaks to in one interval.
const FANOUT: usize = 3;
/// Rounds without news of a node after which it is dead. News reaches all of a thousand in six to seven.
const ROUNDS: u32 = 8;
/// Looks at what gossip holds in one interval: what a round brought is acted on before the next one.
const LOOKS: u32 = 2;

/// What a node does at its present flock's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// In which a node speaks to three others.
    pub(super) interval: Duration,
    /// Between two turns to speak.
    pub(super) turn: Duration,
    /// Whom it speaks to at each: all three in a small flock, which wakes it up less often, or one, which spreads what a
    /// large flock has to say evenly.
    pub(super) at_once: usize,
    /// Between two looks at what was heard.
    pub(super) look: Duration,
    /// Silence after which a node that this one is connected to is dead, unless it is known to be slow.
    pub(super) patience: Duration,
}

/// `shortest` and `least` are the interval and the patience of a small flock; `members` are all that greetings name,
/// the dead and earlier runs included.
pub(super) fn rhythm(shortest: Duration, least: Duration, members: usize) -> Rhythm {
    let bytes = members.saturating_mul(DIGEST_BYTES).saturating_mul(FANOUT);
    let interval = Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND).max(shortest);
    let (turn, at_once) =
        if interval > shortest { (interval / FANOUT as u32, 1) } else { (interval, FANOUT) };
    Rhythm { interval, turn, at_once, look: interval / LOOKS, patience: (interval * ROUNDS).max(least) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lan(members: usize) -> Rhythm {
        rhythm(Duration::from_millis(200), Duration::from_secs(2), members)
    }

    #[test]
    fn a_lab_has_the_shortest_interval_and_a_campus_stays_within_its_bytes() {
        for members in [0, 1, 9, 60, 75] {
            assert_eq!(lan(members).interval, Duration::from_millis(200), "{members}");
            assert_eq!(lan(members).patience, Duration::from_secs(2));
        }
        for members in [76, 100, 300, 1_000, 1_100] {
            let Rhythm { turn, at_once, .. } = lan(members);
            let bytes = (at_once * members * DIGEST_BYTES) as f64 / turn.as_secs_f64();
            assert!(bytes <= BYTES_PER_SECOND * 1.001, "{members}: {bytes}");
        }
    }

    #[test]
    fn the_table_above_is_true() {
        let millis = |members| (lan(members).interval.as_millis(), lan(members).patience.as_millis() / 100);
        assert_eq!([millis(100), millis(300), millis(1_000)], [(260, 20), (782, 62), (2_609, 208)]);
    }

    #[test]
    fn it_never_gets_shorter_as_the_flock_grows() {
        let all: Vec<Rhythm> = (0..1_200).map(lan).collect();
        assert!(
            all.windows(2)
                .all(|two| two[0].interval <= two[1].interval && two[0].patience <= two[1].patience)
        );
    }
}
