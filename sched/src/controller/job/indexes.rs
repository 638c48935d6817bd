//! Sets of completion indexes, in the text form of a Job's status: `1,3-5`.

use std::collections::BTreeSet;
use std::fmt;

/// Indexes of an Indexed Job, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads the text form, leaving out what is not an index below `limit` (a Job may have been made smaller).
    pub(super) fn parse(text: &str, limit: i32) -> Self {
        let mut indexes = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.trim().parse::<i32>(), last.trim().parse::<i32>()) {
                indexes.extend(first.max(0)..=last.min(limit - 1));
            }
        }
        Self(indexes)
    }

    pub(super) fn insert(&mut self, index: i32) {
        self.0.insert(index);
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    pub(super) fn contains_all(&self, others: &Self) -> bool {
        others.0.is_subset(&self.0)
    }

    pub(super) fn common_with(&self, others: &Self) -> usize {
        self.0.intersection(&others.0).count()
    }

    pub(super) fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut runs: Vec<(i32, i32)> = Vec::new();
        for index in &self.0 {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => runs.push((*index, *index)),
            }
        }
        for (place, (first, last)) in runs.into_iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                // Two in a row are listed, three or more are a range.
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_form_is_kubernetes_own() {
        let of = |indexes: &[i32]| Indexes(indexes.iter().copied().collect()).to_string();
        assert_eq!(of(&[1, 3, 4, 5, 7]), "1,3-5,7");
        assert_eq!(of(&[0, 1, 3]), "0,1,3");
        assert_eq!(of(&[]), "");
        assert_eq!(Indexes::parse("0-2147483646,x,-3", 4).to_string(), "0-3");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(indexes: BTreeSet<u8>) {
            let indexes = Indexes(indexes.into_iter().map(i32::from).collect());
            prop_assert_eq!(Indexes::parse(&indexes.to_string(), 256), indexes);
        }
    }
}
