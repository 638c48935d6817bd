//! One leaf as automerge holds it. Markers and atomic lists are byte strings, which JSON has none of, so no text
//! that a user writes can be taken for one.

use super::tree::{Leaf, MAX_DEPTH};
use automerge::{ScalarValue, ValueRef};
use serde::Deserialize;
use serde_json::Value;

const MARK_MAP: &[u8] = b"m";
const MARK_KEYED: &[u8] = b"k";
const MARK_ATOMIC: u8 = b'a';

/// How a leaf is written.
pub fn scalar(leaf: &Leaf) -> ScalarValue {
    match leaf {
        Leaf::Null => ScalarValue::Null,
        Leaf::Bool(it) => ScalarValue::Boolean(*it),
        Leaf::Int(number) => ScalarValue::Int(*number),
        Leaf::Uint(number) => ScalarValue::Uint(*number),
        Leaf::Float(number) => ScalarValue::F64(*number),
        Leaf::Text(text) => ScalarValue::Str(text.as_str().into()),
        Leaf::Map => ScalarValue::Bytes(MARK_MAP.to_vec()),
        Leaf::Keyed => ScalarValue::Bytes(MARK_KEYED.to_vec()),
        Leaf::Atomic(list) => {
            let mut bytes = vec![MARK_ATOMIC];
            // MessagePack and not JSON text, which rounds floats. Writing a JSON value to memory cannot fail; if it
            // did, the leaf would read as absent.
            if rmp_serde::encode::write(&mut bytes, list).is_err() {
                bytes.truncate(1);
            }
            ScalarValue::Bytes(bytes)
        }
    }
}

/// The leaf that a value is; `None` for what we never write.
pub fn leaf(value: ValueRef<'_>) -> Option<Leaf> {
    value_leaf(&value.into_value())
}

/// As [`leaf`], of a value that is held already.
pub fn value_leaf(value: &automerge::Value<'_>) -> Option<Leaf> {
    let scalar = match value {
        automerge::Value::Scalar(scalar) => scalar.as_ref(),
        automerge::Value::Object(_) => return None,
    };
    Some(match scalar {
        ScalarValue::Null => Leaf::Null,
        ScalarValue::Boolean(it) => Leaf::Bool(*it),
        ScalarValue::Int(number) => Leaf::Int(*number),
        ScalarValue::Uint(number) => Leaf::Uint(*number),
        ScalarValue::F64(number) if number.is_finite() => Leaf::Float(*number),
        ScalarValue::Str(text) => Leaf::Text(text.to_string()),
        ScalarValue::Bytes(bytes) => match bytes.as_slice() {
            MARK_MAP => Leaf::Map,
            MARK_KEYED => Leaf::Keyed,
            [MARK_ATOMIC, list @ ..] => {
                let mut reader = rmp_serde::Deserializer::from_read_ref(list);
                reader.set_max_depth(MAX_DEPTH + 2);
                Leaf::Atomic(Value::deserialize(&mut reader).ok()?)
            }
            _ => return None,
        },
        _ => return None,
    })
}
