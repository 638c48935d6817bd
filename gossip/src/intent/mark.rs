//! Heads as they leave the documents: with a mark of the incarnation that they are of. Pure.
//!
//! The scheduling state notes from which heads an object was made. A document that does not hold these is behind, and
//! its changes are on their way; or it was begun anew since, and will never hold them. Only the incarnation tells.

use super::Heads;

/// What a mark begins with; the incarnation follows. No hash of a change is like that.
const KIND: &[u8; 28] = b"gaggle document incarnation:";

/// The heads of a document of this incarnation, for whoever keeps them. None stay none.
pub fn marked(incarnation: u32, mut heads: Heads) -> Heads {
    if !heads.is_empty() {
        let mut mark = [0; 32];
        mark[..28].copy_from_slice(KIND);
        mark[28..].copy_from_slice(&incarnation.to_be_bytes());
        heads.push(mark);
        heads.sort_unstable();
    }
    heads
}

/// The incarnation, if it is told, and the heads themselves.
pub fn unmarked(heads: &[[u8; 32]]) -> (Option<u32>, Heads) {
    let incarnation = |head: &[u8; 32]| {
        let (kind, [a, b, c, d]) = head.split_first_chunk::<28>()? else { return None };
        (kind == KIND).then(|| u32::from_be_bytes([*a, *b, *c, *d]))
    };
    let (marks, heads): (Vec<_>, Vec<_>) = heads.iter().partition(|head| incarnation(head).is_some());
    (marks.first().and_then(incarnation), heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_made_and_leaves_the_heads_as_they_were() {
        let heads = vec![[3; 32], [200; 32]];
        let marked = marked(7, heads.clone());
        assert!(marked.is_sorted() && marked.len() == 3);
        assert_eq!(unmarked(&marked), (Some(7), heads.clone()));
        assert_eq!(unmarked(&heads), (None, heads), "as they were noted before there were marks");
        assert_eq!(super::marked(7, Heads::new()), Heads::new());
    }
}
