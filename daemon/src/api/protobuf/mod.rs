//! Kubernetes' protobuf bodies, which Go clients send for built-in kinds, turned into the JSON objects that
//! everything else reads.
//!
//! Owns the wire format and the table of messages (`schema.txt`). Answers are JSON always: clients that send
//! protobuf accept it. Bytes are hostile: every length is checked, depth is bounded, and nothing panics.

mod schema;

use base64::Engine;
use k8s_openapi::jiff::Timestamp;
use schema::{Field, Form, Message};
use serde_json::{Map, Value, json};

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages inside messages; Kubernetes' own reach a third of it.
const DEPTH: usize = 40;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("the body does not begin with the prefix of Kubernetes protobuf")]
    NotKubernetes,
    #[error("the body ends in the middle of a field")]
    Truncated,
    #[error("the body holds an impossible number, length or text")]
    Malformed,
    #[error("messages are nested too deeply")]
    TooDeep,
    #[error("no message of kind {0} can be read from protobuf; send JSON")]
    UnknownKind(String),
}

/// Decodes an enveloped object; its `apiVersion` and `kind` are those of the envelope.
pub fn decode(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::NotKubernetes)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut envelope = Wire(unknown);
    while let Some((number, value)) = envelope.field()? {
        match (number, value) {
            (1, Scalar::Bytes(meta)) => {
                let mut meta = Wire(meta);
                while let Some((number, value)) = meta.field()? {
                    match (number, value) {
                        (1, Scalar::Bytes(bytes)) => api_version = utf8(bytes)?,
                        (2, Scalar::Bytes(bytes)) => kind = utf8(bytes)?,
                        _ => {}
                    }
                }
            }
            (2, Scalar::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let of_version = schema::message(&format!("{api_version}.{kind}"));
    let message = of_version.or_else(|| schema::message(&kind));
    let message = message.ok_or_else(|| ProtobufError::UnknownKind(kind.clone()))?;
    let mut object = Map::new();
    fields(raw, message, &mut object, 0)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Value::Object(object))
}

/// A value as the wire knows it.
enum Scalar<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// What is left to read.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Truncated)?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ProtobufError::Malformed)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], ProtobufError> {
        let length = usize::try_from(length).map_err(|_| ProtobufError::Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Option<(u64, Scalar<'a>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let little_endian =
            |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let value = match tag & 7 {
            0 => Scalar::Number(self.varint()?),
            1 => Scalar::Number(little_endian(self.take(8)?)),
            2 => {
                let length = self.varint()?;
                Scalar::Bytes(self.take(length)?)
            }
            5 => Scalar::Number(little_endian(self.take(4)?)),
            _ => return Err(ProtobufError::Malformed),
        };
        Ok(Some((tag >> 3, value)))
    }
}

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::Malformed)
}

fn fields(
    bytes: &[u8],
    message: &Message,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > DEPTH {
        return Err(ProtobufError::TooDeep);
    }
    let mut wire = Wire(bytes);
    while let Some((number, scalar)) = wire.field()? {
        // Fields of newer versions are passed over, as protobuf wants it.
        let Some(field) = message.get(&number) else { continue };
        read(field, scalar, object, depth)?;
    }
    Ok(())
}

fn read(
    field: &Field,
    scalar: Scalar,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    match &field.form {
        Form::Inline(name) => {
            let Scalar::Bytes(bytes) = scalar else { return Err(ProtobufError::Malformed) };
            fields(bytes, schema::message(name).ok_or(ProtobufError::Malformed)?, object, depth + 1)?;
        }
        Form::List(of) => {
            let list = object.entry(field.name.as_str()).or_insert_with(|| json!([]));
            let items = match (of.as_str(), scalar) {
                // Numbers may come packed into one field.
                ("int", Scalar::Bytes(bytes)) => {
                    let mut packed = Wire(bytes);
                    let mut numbers = Vec::new();
                    while !packed.0.is_empty() {
                        numbers.push((packed.varint()? as i64).into());
                    }
                    numbers
                }
                (of, scalar) => vec![single(of, scalar, depth)?],
            };
            if let Value::Array(list) = list {
                list.extend(items);
            }
        }
        Form::Map(of) => {
            let Scalar::Bytes(bytes) = scalar else { return Err(ProtobufError::Malformed) };
            let (mut key, mut value) = (String::new(), None);
            let mut entry = Wire(bytes);
            while let Some((number, scalar)) = entry.field()? {
                match (number, scalar) {
                    (1, Scalar::Bytes(bytes)) => key = utf8(bytes)?,
                    (2, scalar) => value = Some(single(of, scalar, depth)?),
                    _ => {}
                }
            }
            let value = match value {
                Some(value) => value,
                None => single(of, Scalar::Bytes(&[]), depth)?,
            };
            let map = object.entry(field.name.as_str()).or_insert_with(|| json!({}));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
        Form::Single(of) => {
            let value = single(of, scalar, depth)?;
            // Go writes fields that nobody set as zero where they are no pointers; JSON leaves them out.
            let unset = match &value {
                Value::Null => true,
                Value::String(text) => text.is_empty(),
                Value::Bool(false) | Value::Number(_) => {
                    schema::is_plain(&field.name) && (value == json!(false) || value == json!(0))
                }
                _ => false,
            };
            if !unset {
                object.insert(field.name.clone(), value);
            }
        }
    }
    Ok(())
}

fn single(of: &str, scalar: Scalar, depth: usize) -> Result<Value, ProtobufError> {
    let value = match (of, scalar) {
        ("int", Scalar::Number(number)) => (number as i64).into(),
        ("bool", Scalar::Number(number)) => (number != 0).into(),
        ("string", Scalar::Bytes(bytes)) => utf8(bytes)?.into(),
        ("bytes", Scalar::Bytes(bytes)) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        ("Time" | "MicroTime", Scalar::Bytes(bytes)) => time(of, bytes)?,
        ("Quantity", Scalar::Bytes(bytes)) => match part(bytes, 1)? {
            Some(Scalar::Bytes(text)) => utf8(text)?.into(),
            _ => "0".into(),
        },
        ("FieldsV1", Scalar::Bytes(bytes)) => match part(bytes, 1)? {
            Some(Scalar::Bytes(raw)) => {
                super::strict::from_json(raw).map_err(|_| ProtobufError::Malformed)?.0
            }
            _ => Value::Null,
        },
        ("IntOrString", Scalar::Bytes(bytes)) => match part(bytes, 1)? {
            Some(Scalar::Number(1)) => match part(bytes, 3)? {
                Some(Scalar::Bytes(text)) => utf8(text)?.into(),
                _ => "".into(),
            },
            _ => match part(bytes, 2)? {
                Some(Scalar::Number(number)) => (number as i32).into(),
                _ => 0.into(),
            },
        },
        (name, Scalar::Bytes(bytes)) => {
            let mut object = Map::new();
            fields(bytes, schema::message(name).ok_or(ProtobufError::Malformed)?, &mut object, depth + 1)?;
            Value::Object(object)
        }
        _ => return Err(ProtobufError::Malformed),
    };
    Ok(value)
}

/// The last value of one field of a small message.
fn part(bytes: &[u8], wanted: u64) -> Result<Option<Scalar<'_>>, ProtobufError> {
    let mut wire = Wire(bytes);
    let mut found = None;
    while let Some((number, scalar)) = wire.field()? {
        if number == wanted {
            found = Some(scalar);
        }
    }
    Ok(found)
}

fn time(of: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
    let number = |wanted| match part(bytes, wanted) {
        Ok(Some(Scalar::Number(number))) => Ok(number as i64),
        Ok(_) => Ok(0),
        Err(error) => Err(error),
    };
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let nanoseconds = i32::try_from(number(2)?).map_err(|_| ProtobufError::Malformed)?;
    let nanoseconds = if of == "Time" { 0 } else { nanoseconds };
    let time = Timestamp::new(number(1)?, nanoseconds).map_err(|_| ProtobufError::Malformed)?;
    Ok(time.to_string().into())
}

#[cfg(test)]
pub mod tests;
