//! Whatever sides do apart, they come to agree and lose nothing.

use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_object_comes_back_as_it_was(first in object(), second in object()) {
        let mut side = Side::named("a");
        // `set` asserts it, of a fresh document and of one that says something else.
        side.set(&first);
        side.set(&second);
    }

    /// Anti-entropy brings everybody to one state, and what somebody made and nobody deleted is in it.
    #[test]
    fn sides_that_make_and_delete_apart_agree_and_lose_nothing(
        steps in prop::collection::vec((0..3usize, 0..4u8), 1..24),
        order in prop::collection::vec((0..3usize, 0..3usize), 60),
    ) {
        let mut sides = [Side::named("a"), Side::named("b"), Side::named("c")];
        // Of each side the object that it made, and nobody else has heard of.
        let mut own: [Option<String>; 3] = Default::default();
        for (step, (at, what)) in steps.into_iter().enumerate() {
            match what {
                0 if sides[at].value().is_some() => {
                    sides[at].delete();
                    own[at] = None;
                }
                1 | 2 if sides[at].value().is_none() => {
                    let uid = format!("uid-{step}");
                    sides[at].set(&config_map(&uid, json!({uid.clone(): "1"})));
                    own[at] = Some(uid);
                }
                3 => {
                    let from = (at + 1) % 3;
                    if sides[from].state.is_some() {
                        let frame = whole(&sides[from]);
                        sides[at].take(&frame);
                        own[from] = None;
                    }
                }
                _ => {}
            }
        }
        let fields: Vec<_> = own.into_iter().flatten().collect();
        let met = order.into_iter().chain((0..9).map(|i| (i / 3, i % 3))).chain((0..9).map(|i| (i / 3, i % 3)));
        for (from, to) in met {
            if from != to && sides[from].state.is_some() {
                let frame = whole(&sides[from]);
                sides[to].take(&frame);
            }
        }
        for side in &sides[1..] {
            prop_assert_eq!(sides[0].identity(), side.identity());
            prop_assert_eq!(sides[0].value(), side.value());
        }
        let value = sides[0].value().unwrap_or_default();
        for field in fields {
            prop_assert!(value["data"].get(&field).is_some(), "{field} is lost: {value}");
        }
    }

    #[test]
    fn sides_agree_in_whatever_order_they_hear(
        base in object(),
        edits in prop::collection::vec((0..3usize, prop::option::weighted(0.85, object()), any::<bool>()), 1..7),
        order in prop::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let mut sides = [Side::named("a"), Side::named("b"), Side::named("c")];
        let mut frames = vec![sides[0].set(&base)];
        sides[1].take(&frames[0]);
        sides[2].take(&frames[0]);
        for (side, object, hears) in edits {
            if hears {
                let heard = frames.clone();
                heard.iter().for_each(|frame| sides[side].take(frame));
            }
            frames.push(match &object {
                Some(object) => sides[side].set(object),
                None => sides[side].delete(),
            });
        }
        for (index, side) in sides.iter_mut().enumerate() {
            let mut queue = frames.clone();
            queue.extend(frames.first().cloned());
            for pick in order.iter().skip(index) {
                if queue.is_empty() { break }
                let at = pick.index(queue.len());
                side.take(&queue.remove(at));
            }
            queue.iter().for_each(|frame| side.take(frame));
        }
        prop_assert_eq!(sides[0].identity(), sides[1].identity());
        prop_assert_eq!(sides[0].identity(), sides[2].identity());
        prop_assert_eq!(sides[0].value(), sides[1].value());
        prop_assert_eq!(sides[0].value(), sides[2].value());
    }
}
