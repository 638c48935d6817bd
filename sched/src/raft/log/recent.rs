//! The newest entries, decoded: what was just appended is applied and replicated from here, not from the disk.

use super::super::types::Entry;
use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// Several of the largest batches.
const CACHE_BYTES: u64 = 8 << 20;

#[derive(Default)]
pub(super) struct Recent {
    entries: BTreeMap<u64, (Entry, u64)>,
    bytes: u64,
}

impl Recent {
    pub fn push(&mut self, entry: Entry, bytes: u64) {
        self.bytes += bytes;
        if let Some((_, old)) = self.entries.insert(entry.log_id.index, (entry, bytes)) {
            self.bytes -= old;
        }
        while self.bytes > CACHE_BYTES && self.entries.len() > 1 {
            if let Some((_, (_, bytes))) = self.entries.pop_first() {
                self.bytes -= bytes;
            }
        }
    }

    pub fn forget(&mut self, range: impl RangeBounds<u64>) {
        let gone: Vec<u64> = self.entries.range(range).map(|(index, _)| *index).collect();
        for index in gone {
            if let Some((_, bytes)) = self.entries.remove(&index) {
                self.bytes -= bytes;
            }
        }
    }

    /// The entries of a half-open range, at least one, until `limit_bytes`; `None` if not all of them are here.
    pub fn read(&self, start: u64, end: u64, limit_bytes: u64) -> Option<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for index in start..end {
            let (entry, size) = self.entries.get(&index)?;
            bytes += size;
            if bytes > limit_bytes && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Some(entries)
    }
}
