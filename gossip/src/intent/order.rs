//! Where the items of a keyed list stand: a number each, so that one item can move without the others being
//! written. Pure arithmetic.

/// The distance between neighbours in a fresh list: room for twenty insertions at one spot before the list is
/// numbered anew.
const GAP: i64 = 1 << 20;

/// Numbers for a list's items in their wanted order, from the numbers that they have now (`None`: a new item).
/// Strictly increasing. The numbers there are stay, unless they contradict the order or leave no room.
pub fn assign(current: &[Option<i64>]) -> Vec<i64> {
    keep(current).unwrap_or_else(|| (0..).step_by(GAP as usize).take(current.len()).collect())
}

fn keep(current: &[Option<i64>]) -> Option<Vec<i64>> {
    let mut assigned = Vec::with_capacity(current.len());
    let mut rest = current;
    while !rest.is_empty() {
        let new = rest.iter().take_while(|number| number.is_none()).count();
        let before: Option<i64> = assigned.last().copied();
        let after = rest.get(new).copied().flatten();
        if let (Some(before), Some(after)) = (before, after)
            && before >= after
        {
            return None;
        }
        fill(&mut assigned, new, before, after)?;
        assigned.extend(after);
        rest = rest.get(new + 1..).unwrap_or_default();
    }
    Some(assigned)
}

/// Numbers `new` items between two that stay.
fn fill(assigned: &mut Vec<i64>, new: usize, before: Option<i64>, after: Option<i64>) -> Option<()> {
    let count = i64::try_from(new).ok()?;
    let (start, step) = match (before, after) {
        (Some(before), Some(after)) => {
            let step = after.checked_sub(before)? / (count + 1);
            (before, step)
        }
        (Some(before), None) => (before, GAP),
        (None, Some(after)) => (after.checked_sub(GAP.checked_mul(count + 1)?)?, GAP),
        (None, None) => (-GAP, GAP),
    };
    if step == 0 && new > 0 {
        return None;
    }
    for index in 1..=count {
        assigned.push(start.checked_add(step.checked_mul(index)?)?);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_insertion_moves_nobody_else() {
        assert_eq!(assign(&[Some(0), None, Some(100)]), [0, 50, 100]);
        assert_eq!(assign(&[Some(5), None]), [5, 5 + GAP]);
        assert_eq!(assign(&[None, Some(5)]), [5 - GAP, 5]);
        assert_eq!(assign(&[None, None]), [0, GAP]);
        assert_eq!(assign(&[Some(1), None, Some(2)]), [0, GAP, 2 * GAP], "no room: numbered anew");
        assert_eq!(assign(&[Some(2), Some(1)]), [0, GAP], "moved: numbered anew");
        assert_eq!(assign(&[Some(i64::MAX), None]), [0, GAP], "hostile numbers do not overflow");
    }

    proptest! {
        #[test]
        fn numbers_always_increase(current in prop::collection::vec(prop::option::of(any::<i64>()), 0..20)) {
            let assigned = assign(&current);
            prop_assert_eq!(assigned.len(), current.len());
            prop_assert!(assigned.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
