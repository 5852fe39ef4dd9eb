//! The Python module. It takes and returns plain values; `kvsync_native/index_core.py` takes objects of the indexer
//! apart.
//!
//! Nothing here touches the index without its lock, and nothing that holds the lock waits for the GIL. Short calls keep
//! the GIL if the lock is free; long calls, and calls that find the lock taken, release the GIL first. Results are made
//! after the lock was released.

mod answers;
mod classes;
mod index;
mod locked;
mod query;
mod results;
mod runs;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// Run the bare loop of `reference.rs` over payloads, for benchmarks. Returns how many distinct blocks they hold.
#[pyfunction]
fn reference_loop(py: Python<'_>, payloads: Vec<Bound<'_, PyBytes>>) -> PyResult<usize> {
    let slices: Vec<&[u8]> = payloads.iter().map(|bytes| bytes.as_bytes()).collect();
    let counted = py.detach(|| crate::reference::two_maps(slices.into_iter()));
    counted.map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::answers::{split_token_ids, AnswerTable};
    #[pymodule_export]
    use super::locked::NativeIndex;
    #[pymodule_export]
    use super::reference_loop;
    #[pymodule_export]
    use super::results::{Matches, Rows};
}
