//! Judges a raw automerge change before automerge unpacks it. Our documents are flat maps of scalars, so a change
//! of ours only puts and deletes at the root: anything else is refused here, and so are run lengths that would
//! keep a core busy for hours from a few bytes, versions of a change that automerge would inflate without bound,
//! and counters at the edge of their range.
//!
//! Source of the layout: the Automerge binary format specification, "Change chunk" and "Column metadata".

use super::frame::MAX_CHANGE_BYTES;
use super::tree::MAX_PATH_BYTES;
use automerge::Change;

/// The most operations of one change. An object of 3 MiB has some hundred thousand fields at most.
pub const MAX_OPS: u64 = 400_000;
/// Automerge counts operations of a document in a `u32`; half of that is more than any document lives to see.
pub const MAX_OP_COUNTER: u64 = 1 << 31;
/// Concurrent heads that one change may merge.
const MAX_DEPS: u64 = 4096;
/// Actors are 16 bytes; automerge itself makes longer ones only for what we do not use.
const MAX_ACTOR_BYTES: u64 = 32;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHUNK_CHANGE: u8 = 1;
const ACTION_PUT: u64 = 1;
const ACTION_DELETE: u64 = 3;

/// Column ids are four bits above a compression bit and three bits of type.
mod column {
    pub const KEY_STRING: u64 = 0x15;
    pub const INSERT: u64 = 0x34;
    pub const ACTION: u64 = 0x42;
    pub const VALUE_META: u64 = 0x56;
    pub const VALUE: u64 = 0x57;
    pub const PRED_COUNT: u64 = 0x70;
    pub const PRED_ACTOR: u64 = 0x71;
    pub const PRED_COUNTER: u64 = 0x73;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a change that a node of this version makes: {0}")]
pub struct Refused(pub &'static str);

/// Whether a change that we have just made ourselves will be taken by others: its form is right, and it may say too much.
pub fn limits(bytes: &[u8]) -> Result<(), Refused> {
    scan(bytes).map(drop)
}

/// The change in these bytes, if it is one that we would have made.
pub fn change(bytes: &[u8]) -> Result<Change, Refused> {
    if bytes.len() > MAX_CHANGE_BYTES {
        return Err(Refused("it is too long"));
    }
    let ops = scan(bytes)?;
    let change = super::guard::caught(|| Change::try_from(bytes))
        .ok_or(Refused("it does not parse"))?
        .map_err(|_| Refused("it does not parse"))?;
    // The hash is over the content; the header only repeats its first bytes, which automerge leaves to callers.
    if bytes.get(4..8) != change.hash().0.get(..4) {
        return Err(Refused("its checksum is wrong"));
    }
    if change.len() as u64 != ops || change.raw_bytes() != bytes {
        return Err(Refused("it is not in its one normal form"));
    }
    Ok(change)
}

/// Reads the chunk without unpacking anything, and counts its operations.
fn scan(bytes: &[u8]) -> Result<u64, Refused> {
    let mut input = Input(bytes);
    if input.take(4)? != MAGIC {
        return Err(Refused("it is not an automerge chunk"));
    }
    input.take(4)?;
    if input.take(1)? != [CHUNK_CHANGE] {
        return Err(Refused("it is not a plain change"));
    }
    let length = input.uleb()?;
    if length != input.0.len() as u64 {
        return Err(Refused("its length is wrong"));
    }
    let deps = input.count(MAX_DEPS)?;
    input.take(deps * 32)?;
    input.bytes(MAX_ACTOR_BYTES)?;
    if input.uleb()? != 1 {
        return Err(Refused("an actor makes one change only"));
    }
    let start = input.uleb()?;
    if input.take(1)? != [0] || input.take(1)? != [0] {
        return Err(Refused("it carries a time or a message"));
    }
    let others = input.count(MAX_OPS)?;
    for _ in 0..others {
        input.bytes(MAX_ACTOR_BYTES)?;
    }
    let mut columns = Vec::new();
    for _ in 0..input.count(16)? {
        columns.push((input.uleb()?, input.count(MAX_CHANGE_BYTES as u64)?));
    }
    let mut ops = None;
    for (id, length) in columns {
        let data = Input(input.take(length)?);
        let rows = column_rows(id, data, others as u64 + 1)?;
        match (id, ops) {
            (column::ACTION, _) => ops = Some(rows),
            _ if rows > MAX_OPS => return Err(Refused("it has too many operations")),
            _ => {}
        }
    }
    if !input.0.is_empty() {
        return Err(Refused("bytes follow its columns"));
    }
    let ops = ops.unwrap_or(0);
    if ops > MAX_OPS || start == 0 || start.saturating_add(ops) > MAX_OP_COUNTER {
        return Err(Refused("its operations are out of range"));
    }
    Ok(ops)
}

/// How many rows a column holds, having looked at each of its runs.
fn column_rows(id: u64, mut data: Input<'_>, actors: u64) -> Result<u64, Refused> {
    let actor_known = |actor| if actor < actors { Ok(()) } else { Err(Refused("an actor is missing")) };
    match id {
        column::ACTION => data.runs(|input, _| match input.uleb()? {
            ACTION_PUT | ACTION_DELETE => Ok(()),
            _ => Err(Refused("it does more than put and delete")),
        }),
        column::KEY_STRING => data.runs(|input, _| input.bytes(MAX_PATH_BYTES as u64)),
        column::VALUE_META => data.runs(|input, _| input.uleb().map(drop)),
        column::PRED_ACTOR => data.runs(|input, _| actor_known(input.uleb()?)),
        column::PRED_COUNTER => data.runs(|input, count| {
            // Deltas are added up: bounded, so that the sum cannot leave its type.
            let delta = input.sleb()?;
            let far = (delta.unsigned_abs()).saturating_mul(count) > MAX_OP_COUNTER * 2;
            if far { Err(Refused("a counter is out of range")) } else { Ok(()) }
        }),
        column::PRED_COUNT => {
            let mut total = 0u64;
            let rows = data.runs(|input, count| {
                total = total.saturating_add(input.uleb()?.saturating_mul(count));
                if total > MAX_OPS { Err(Refused("it replaces too much")) } else { Ok(()) }
            })?;
            Ok(rows)
        }
        column::INSERT => {
            let rows = data.uleb()?;
            if data.0.is_empty() { Ok(rows) } else { Err(Refused("it inserts into a list")) }
        }
        column::VALUE => Ok(0),
        _ => Err(Refused("it has a column that is not known here")),
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Refused("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn uleb(&mut self) -> Result<u64, Refused> {
        let mut value = 0u64;
        for shift in (0..63).step_by(7) {
            let [byte] = self.take(1)? else { break };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Refused("a number is out of range"))
    }

    fn sleb(&mut self) -> Result<i64, Refused> {
        let mut value = 0i64;
        for shift in (0..63).step_by(7) {
            let [byte] = self.take(1)? else { break };
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7);
                return Ok((value << unused) >> unused);
            }
        }
        Err(Refused("a number is out of range"))
    }

    fn count(&mut self, limit: u64) -> Result<usize, Refused> {
        match self.uleb()? {
            count if count <= limit => usize::try_from(count).map_err(|_| Refused("a count is out of range")),
            _ => Err(Refused("a count is out of range")),
        }
    }

    fn bytes(&mut self, limit: u64) -> Result<(), Refused> {
        let length = self.count(limit)?;
        self.take(length).map(drop)
    }

    /// Goes through a run-length encoded column; `value` reads one value, that stands so many times.
    fn runs(&mut self, mut value: impl FnMut(&mut Self, u64) -> Result<(), Refused>) -> Result<u64, Refused> {
        let mut rows = 0u64;
        while !self.0.is_empty() {
            let run = self.sleb()?;
            let count = match run {
                0 => self.uleb()?,
                _ => run.unsigned_abs(),
            };
            rows = rows.saturating_add(count);
            if rows > MAX_OPS {
                return Err(Refused("it has too many operations"));
            }
            match run {
                0 => {}
                1.. => value(self, count)?,
                _ => (0..count).try_for_each(|_| value(self, 1))?,
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
