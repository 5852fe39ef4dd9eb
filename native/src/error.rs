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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_payload_that_caused_it() {
        let limit = CoreError::limit("too many".into()).in_batch(1, 3);
        assert_eq!(limit, CoreError::Limit { message: "batch 2 of 3: too many".into(), batch: Some(1) });
        let decode = CoreError::from(WireError("bytes after the batch")).in_batch(0, 2);
        assert_eq!(decode.to_string(), "batch 1 of 2: bytes after the batch");
        let unknown = CoreError::unknown_publisher("p").in_batch(0, 1);
        assert_eq!(unknown.to_string(), "no publisher named p");
    }
}
