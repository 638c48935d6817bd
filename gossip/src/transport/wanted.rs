//! The addresses that the user named (`--peer`): dialled for ever, whoever answers there.
//!
//! Pure: time, jitter and the answers of the name service are arguments.

use std::net::SocketAddr;
use std::time::Instant;

use libp2p::PeerId;

use super::address::Target;
use super::book::pause;

/// Addresses that can be wanted at once: typed by people, so more is a mistake.
const MOST_TARGETS: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting {
        due: Instant,
    },
    Trying,
    Reached {
        peer: PeerId,
    },
    /// It is our own address: one list of peers for all desktops is a sensible thing to have.
    Ourselves,
}

#[derive(Debug)]
struct Wish {
    target: Target,
    phase: Phase,
    failures: u32,
    /// Which of the answers of the name service to try: the next one after each failure.
    turn: usize,
    /// Who answered there last.
    last: Option<PeerId>,
}

/// A wish whose time has come.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) id: WishId,
    pub(super) target: Target,
    /// Who answered there last: when that peer is connected by now, there is nothing to do.
    pub(super) last: Option<PeerId>,
}

/// What the user wants to be connected to.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    wishes: Vec<Wish>,
}

/// A wish by its place: wishes are never taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WishId(usize);

impl Wanted {
    /// Adds an address, due at once; false when there are too many.
    pub(super) fn add(&mut self, target: Target, now: Instant) -> bool {
        if let Some(wish) = self.wishes.iter_mut().find(|wish| wish.target == target) {
            if let Phase::Waiting { due } = &mut wish.phase {
                *due = now;
            }
            return true;
        }
        if self.wishes.len() >= MOST_TARGETS {
            return false;
        }
        self.wishes.push(Wish {
            target,
            phase: Phase::Waiting { due: now },
            failures: 0,
            turn: 0,
            last: None,
        });
        true
    }

    /// Takes the wishes whose time has come, at most `limit`.
    pub(super) fn take_due(&mut self, now: Instant, limit: usize) -> Vec<Due> {
        let due = |wish: &Wish| matches!(wish.phase, Phase::Waiting { due } if due <= now);
        let mut taken = Vec::new();
        for (index, wish) in self.wishes.iter_mut().enumerate().filter(|(_, wish)| due(wish)).take(limit) {
            wish.phase = Phase::Trying;
            taken.push(Due { id: WishId(index), target: wish.target.clone(), last: wish.last });
        }
        taken
    }

    /// When [`Wanted::take_due`] has something next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |wish: &Wish| match wish.phase {
            Phase::Waiting { due } => Some(due),
            _ => None,
        };
        self.wishes.iter().filter_map(due).min()
    }

    /// Which of the addresses found for a wish to dial now.
    pub(super) fn choose(&self, id: WishId, found: &[SocketAddr]) -> Option<SocketAddr> {
        let turn = self.wishes.get(id.0)?.turn;
        found.get(turn.checked_rem(found.len())?).copied()
    }

    pub(super) fn reached(&mut self, id: WishId, peer: PeerId) {
        if let Some(wish) = self.wishes.get_mut(id.0) {
            wish.phase = Phase::Reached { peer };
            wish.last = Some(peer);
            wish.failures = 0;
        }
    }

    pub(super) fn is_ourselves(&mut self, id: WishId) {
        if let Some(wish) = self.wishes.get_mut(id.0) {
            wish.phase = Phase::Ourselves;
        }
    }

    pub(super) fn failed(&mut self, id: WishId, now: Instant, jitter: f64) {
        if let Some(wish) = self.wishes.get_mut(id.0) {
            wish.failures = wish.failures.saturating_add(1);
            wish.turn = wish.turn.wrapping_add(1);
            wish.phase = Phase::Waiting { due: now + pause(wish.failures, jitter) };
        }
    }

    /// The last connection to a peer is gone: whatever led to it is wanted again.
    pub(super) fn disconnected(&mut self, gone: &PeerId, now: Instant, jitter: f64) {
        for wish in &mut self.wishes {
            if matches!(wish.phase, Phase::Reached { peer } if peer == *gone) {
                wish.phase = Phase::Waiting { due: now + pause(0, jitter) };
            }
        }
    }

    /// Our own addresses changed (DHCP): what was ourselves may be another desktop now.
    pub(super) fn own_addresses_changed(&mut self, now: Instant) {
        for wish in self.wishes.iter_mut().filter(|wish| wish.phase == Phase::Ourselves) {
            wish.phase = Phase::Waiting { due: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wish_is_tried_for_ever_at_each_address_in_turn() {
        let start = Instant::now();
        let found = [SocketAddr::from(([10, 0, 0, 1], 1)), SocketAddr::from(([10, 0, 0, 2], 1))];
        let mut wanted = Wanted::default();
        assert!(wanted.add(Target::parse("lab").unwrap(), start));
        let mut now = start;
        for attempt in 0..50 {
            let taken = wanted.take_due(now, 9);
            assert_eq!(taken.len(), 1, "attempt {attempt}");
            assert!(wanted.take_due(now, 9).is_empty());
            assert_eq!(wanted.choose(taken[0].id, &found), Some(found[attempt % 2]));
            wanted.failed(taken[0].id, now, 0.0);
            now += Duration::from_secs(5);
        }
    }

    #[test]
    fn a_reached_peer_is_left_alone_until_it_is_lost() {
        let (now, peer) = (Instant::now(), PeerId::random());
        let mut wanted = Wanted::default();
        wanted.add(Target::parse("lab").unwrap(), now);
        let id = wanted.take_due(now, 9)[0].id;
        wanted.reached(id, peer);
        assert_eq!(wanted.next_due(), None);
        wanted.disconnected(&PeerId::random(), now, 0.0);
        assert_eq!(wanted.next_due(), None);
        wanted.disconnected(&peer, now, 0.0);
        assert!(wanted.next_due().is_some());
    }

    #[test]
    fn our_own_address_in_the_list_is_not_dialled_again_before_it_moves() {
        let now = Instant::now();
        let mut wanted = Wanted::default();
        wanted.add(Target::parse("lab").unwrap(), now);
        let id = wanted.take_due(now, 9)[0].id;
        wanted.is_ourselves(id);
        assert_eq!(wanted.next_due(), None);
        wanted.own_addresses_changed(now);
        assert_eq!(wanted.next_due(), Some(now));
        assert_eq!(wanted.choose(id, &[]), None);
    }
}
