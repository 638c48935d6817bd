//! What the API asks of the intent documents that every node keeps.

use gaggle_sched::state::{Adopted, Key};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the intent of {key} cannot be kept: {why}")]
pub struct DocumentError {
    pub key: Key,
    pub why: String,
    pub kind: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The disk refuses it: it is full or read-only, and may have room later.
    Disk,
    /// This desktop does not have the document that the object was made from; it is on its way.
    Behind,
    Other,
}

/// An object without what the ordered state alone knows: what its document says.
pub fn wish_of(object: &Value) -> Value {
    let mut wish = object.clone();
    if let Some(fields) = wish.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = wish.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    wish
}

/// Intent documents: one for each object that a client made.
#[async_trait::async_trait]
pub trait Documents: Send + Sync + 'static {
    /// The change that would bring the object's document to `object` (`None`: deleted). Nothing is stored: the
    /// change goes into the transaction, and comes back to every node with the committed write.
    async fn prepare(&self, key: &Key, object: Option<&Value>) -> Result<Adopted, DocumentError>;

    /// The change that does to the object's document what tells `after` from `before`, and takes nothing else back: the
    /// document may hold edits that wait for somebody to order them, and that the object does not show.
    async fn prepare_edit(&self, key: &Key, before: &Value, after: &Value) -> Result<Adopted, DocumentError>;

    /// The change that makes an object where nobody can order it now. One of the name that waits for its order already
    /// stays, and gets what this one says.
    async fn prepare_made(&self, key: &Key, object: &Value) -> Result<Adopted, DocumentError>;

    /// Stores a prepared change and spreads it, where no quorum can order it now. Fsynced before it returns.
    async fn keep(&self, key: &Key, adopted: &Adopted) -> Result<(), DocumentError>;
}
