//! The Python classes of results and errors. They are given to the core when it is made, so that this module imports
//! nothing of the indexer.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::error::CoreError;
use crate::publisher::Applied;

/// The classes as Python gives them: `Applied`, `BlockRow`, `DigestRow`, `CoreStats` and `Match`.
pub(super) type ResultClasses = (Py<PyAny>, Py<PyAny>, Py<PyAny>, Py<PyAny>, Py<PyAny>);

/// The exceptions as Python gives them: `DecodeError`, `UnknownPublisherError`, `PublisherConflictError`, `LimitError`,
/// `QueryError` and `SnapshotError`.
pub(super) type ErrorClasses = (Py<PyType>, Py<PyType>, Py<PyType>, Py<PyType>, Py<PyType>, Py<PyType>);

/// What results and errors are made of.
pub(super) struct Classes {
    applied: Py<PyAny>,
    pub block_row: Arc<Py<PyAny>>,
    pub digest_row: Py<PyAny>,
    pub stats: Py<PyAny>,
    pub match_row: Arc<Py<PyAny>>,
    decode_error: Py<PyType>,
    unknown_publisher_error: Py<PyType>,
    publisher_conflict_error: Py<PyType>,
    limit_error: Py<PyType>,
    query_error: Py<PyType>,
    snapshot_error: Py<PyType>,
}

impl Classes {
    pub fn new(results: ResultClasses, errors: ErrorClasses) -> Self {
        let (applied, block_row, digest_row, stats, match_row) = results;
        let (decode, unknown_publisher, publisher_conflict, limit, query, snapshot) = errors;
        Classes {
            applied,
            block_row: Arc::new(block_row),
            digest_row,
            stats,
            match_row: Arc::new(match_row),
            decode_error: decode,
            unknown_publisher_error: unknown_publisher,
            publisher_conflict_error: publisher_conflict,
            limit_error: limit,
            query_error: query,
            snapshot_error: snapshot,
        }
    }

    pub fn applied(&self, py: Python<'_>, applied: &Applied) -> PyResult<Py<PyAny>> {
        let fields = (
            applied.events,
            applied.stored,
            applied.removed,
            applied.cleared,
            applied.orphans,
            applied.attached,
            applied.unknown_removed,
            applied.unknown_events,
            applied.refused,
            applied.payloads,
        );
        Ok(self.applied.bind(py).call1(fields)?.unbind())
    }

    pub fn error(&self, py: Python<'_>, error: CoreError) -> PyErr {
        let class = match &error {
            CoreError::Limit { message, batch } => {
                return PyErr::from_type(self.limit_error.bind(py).clone(), (message.clone(), *batch));
            }
            CoreError::UnknownPublisher(_) => &self.unknown_publisher_error,
            CoreError::PublisherConflict(_) => &self.publisher_conflict_error,
            CoreError::Decode(_) => &self.decode_error,
            CoreError::Query(_) => &self.query_error,
            CoreError::Snapshot(_) => &self.snapshot_error,
        };
        PyErr::from_type(class.bind(py).clone(), (error.to_string(),))
    }
}
