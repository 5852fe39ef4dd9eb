//! Everything that can go wrong in the core. The Python exceptions of the same names are in
//! `kvsync_indexer/core/errors.py`.

use std::error::Error;
use std::fmt;

use crate::wire::WireError;

/// Why a call of the core failed; a call that fails changes nothing, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreError {
    /// No publisher has that name.
    UnknownPublisher(String),
    /// The publisher exists with another model.
    PublisherConflict(String),
    /// A hard limit would be exceeded.
    Limit {
        /// Which limit, and by how much.
        message: String,
        /// The position of the payload among several, counted from 0; those before it were applied.
        batch: Option<usize>,
    },
    /// The payload is not an event batch.
    Decode(String),
    /// The tokens or keys of a query are malformed.
    Query(String),
    /// The snapshot cannot be trusted.
    Snapshot(String),
}

impl CoreError {
    pub(crate) fn unknown_publisher(name: &str) -> Self {
        CoreError::UnknownPublisher(format!("no publisher named {name}"))
    }

    pub(crate) fn limit(message: String) -> Self {
        CoreError::Limit { message, batch: None }
    }

    pub(crate) fn snapshot(message: impl Into<String>) -> Self {
        CoreError::Snapshot(message.into())
    }

    /// The same error, naming the payload that caused it: the one at position `at` of `count`.
    pub(crate) fn in_batch(self, at: usize, count: usize) -> Self {
        let named = |message| format!("batch {} of {count}: {message}", at + 1);
        match self {
            CoreError::Limit { message, .. } => CoreError::Limit { message: named(message), batch: Some(at) },
            CoreError::Decode(message) => CoreError::Decode(named(message)),
            other => other,
        }
    }
}

impl fmt::Display for CoreError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CoreError::UnknownPublisher(message)
            | CoreError::PublisherConflict(message)
            | CoreError::Limit { message, .. }
            | CoreError::Decode(message)
            | CoreError::Query(message)
            | CoreError::Snapshot(message) => out.write_str(message),
        }
    }
}

impl Error for CoreError {}

impl From<WireError> for CoreError {
    fn from(error: WireError) -> Self {
        CoreError::Decode(error.to_string())
    }
}
