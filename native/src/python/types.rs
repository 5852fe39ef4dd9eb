//! The Python classes that results and errors are made of, and limits as Python gives them.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::core::Fault;
use crate::publisher::Limits;
use crate::wire::WireLimits;

/// The Python classes that results and errors are made of.
pub(super) struct Types {
    pub applied: Py<PyAny>,
    pub block_row: Py<PyAny>,
    pub digest_row: Py<PyAny>,
    pub stats: Py<PyAny>,
    pub decode_error: Py<PyAny>,
    pub errors: Py<PyAny>,
    pub keys: Py<PyAny>,
    pub encode: Py<PyAny>,
    pub match_type: Arc<Py<PyAny>>,
}

impl Types {
    pub fn load(py: Python<'_>) -> PyResult<Self> {
        let protocol = py.import("kvsync_indexer.core.protocol")?;
        Ok(Types {
            applied: protocol.getattr("Applied")?.unbind(),
            block_row: protocol.getattr("BlockRow")?.unbind(),
            digest_row: protocol.getattr("DigestRow")?.unbind(),
            stats: protocol.getattr("CoreStats")?.unbind(),
            match_type: Arc::new(protocol.getattr("Match")?.unbind()),
            decode_error: py.import("kvsync_events")?.getattr("DecodeError")?.unbind(),
            errors: py.import("kvsync_indexer.core.errors")?.into_any().unbind(),
            keys: py.import("kvsync_indexer.core.keys")?.into_any().unbind(),
            encode: py.import("kvsync_native._batches")?.getattr("encode")?.unbind(),
        })
    }

    pub fn error(&self, py: Python<'_>, fault: Fault) -> PyErr {
        let (name, message) = match fault {
            Fault::Unknown(message) => ("UnknownPublisherError", message),
            Fault::Conflict(message) => ("PublisherConflictError", message),
            Fault::Limit(message) => ("LimitError", message),
            Fault::LimitAt(at, message) => {
                let error = self.error(py, Fault::Limit(message));
                return match error.value(py).setattr("batch", at) {
                    Ok(()) => error,
                    Err(failed) => failed,
                };
            }
            Fault::Query(message) => ("QueryError", message),
            Fault::Snapshot(message) => ("SnapshotError", message),
            Fault::Decode(message) => return raise(self.decode_error.bind(py).clone(), message),
        };
        match self.errors.bind(py).getattr(name) {
            Ok(class) => raise(class, message),
            Err(error) => error,
        }
    }
}

fn raise(class: Bound<'_, PyAny>, message: String) -> PyErr {
    match class.cast_into::<PyType>() {
        Ok(class) => PyErr::from_type(class, (message,)),
        Err(error) => error.into(),
    }
}

pub(super) fn read_limits(limits: &Bound<'_, PyAny>) -> PyResult<Limits> {
    let wire = limits.getattr("wire")?;
    let of = |name: &str| -> PyResult<usize> { wire.getattr(name)?.extract() };
    Ok(Limits {
        max_publishers: limits.getattr("max_publishers")?.extract()?,
        max_blocks: limits.getattr("max_blocks")?.extract()?,
        max_orphans: limits.getattr("max_orphans")?.extract()?,
        max_query_tokens: limits.getattr("max_query_tokens")?.extract()?,
        wire: WireLimits {
            max_payload_bytes: of("max_payload_bytes")?,
            max_events: of("max_events")?,
            max_hashes: of("max_hashes")?,
            max_tokens: of("max_tokens")?,
            max_hash_bytes: of("max_hash_bytes")?,
            max_text_bytes: of("max_text_bytes")?,
            max_block_size: of("max_block_size")?,
            max_key_parts: of("max_key_parts")?,
        },
    })
}
