//! What two or three sides that edit apart come to hold when they meet. Pure: prepare, frames, apply.

mod edits;
mod lives;
mod ordered;
mod properties;

use super::frame::Frame;
use super::samples::{deployment, object, with};
use super::schema::KubernetesLists;
use super::state::{self, PrepareError, State};
use serde_json::{Value, json};

#[derive(Clone, Default)]
struct Side {
    name: &'static str,
    state: Option<State>,
    now_ms: u64,
}

impl Side {
    fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn prepare(&self, object: Option<&Value>) -> Result<Vec<u8>, PrepareError> {
        let prepared = state::prepare(self.state.as_ref(), self.name, object, &KubernetesLists, self.now_ms);
        prepared.map(|(frame, _)| frame)
    }

    fn take(&mut self, frame: &[u8]) {
        let frame = Frame::decode(frame).unwrap();
        if let Some(state) = state::apply(self.state.as_ref(), &frame, &KubernetesLists, self.now_ms).unwrap()
        {
            self.state = Some(state);
        }
    }

    fn set(&mut self, object: &Value) -> Vec<u8> {
        let frame = self.prepare(Some(object)).unwrap();
        self.take(&frame);
        assert_eq!(self.value().as_ref(), Some(object), "what was asked for is what the document says");
        frame
    }

    fn delete(&mut self) -> Vec<u8> {
        let frame = self.prepare(None).unwrap();
        self.take(&frame);
        assert_eq!(self.value(), None);
        frame
    }

    fn value(&self) -> Option<Value> {
        self.state.as_ref().and_then(|state| state.value(&KubernetesLists))
    }

    fn identity(&self) -> Option<(u32, super::Heads)> {
        self.state.as_ref().map(|state| (state.incarnation(), state.heads()))
    }
}

/// Sides that hold the same object, and then are cut off from each other.
fn apart(object: &Value) -> (Side, Side) {
    let mut left = Side::named("left");
    left.set(object);
    (left.clone(), Side { name: "right", ..left })
}

/// Both sides' frames, delivered to both; what both hold afterwards.
fn meet(mut left: Side, mut right: Side, from_left: &[Vec<u8>], from_right: &[Vec<u8>]) -> Option<Value> {
    from_right.iter().for_each(|frame| left.take(frame));
    from_left.iter().rev().for_each(|frame| right.take(frame));
    assert_eq!(left.identity(), right.identity());
    assert_eq!(left.value(), right.value());
    left.value()
}

fn config_map(uid: &str, data: Value) -> Value {
    json!({"metadata": {"name": "a", "uid": uid}, "data": data})
}

/// What a side holds, as anti-entropy brings it to one that holds nothing of it.
fn whole(side: &Side) -> Vec<u8> {
    state::since(side.state.as_ref().unwrap(), 0, &[], usize::MAX).unwrap().0
}
