//! What Python sees. Nothing here touches the index without its lock, and nothing holds the lock and waits for the GIL.
//!
//! Short calls keep the GIL and take the lock if it is free; long ones, and those that find it taken, give the GIL up
//! first. Results are made after the lock is gone.

mod query;
mod results;
mod service;
mod types;

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::core::{Core, Fault};
use crate::publisher::{Applied, Limits};
use query::{texts_of, Attributes};
use results::{group, Matches, Rows};
use types::{read_limits, Types};

/// Payloads of at least so many bytes are applied without the GIL.
const LONG: usize = 4096;

/// The native core; see `kvsync_indexer.core.IndexCore`.
#[pyclass(frozen, module = "kvsync_native", name = "IndexCore")]
struct NativeCore {
    held: Mutex<Held>,
    limits: Limits,
    types: Types,
}

/// What the lock guards.
struct Held {
    core: Core,
    /// The last result of an apply: streams of equal batches give equal results, and the tuple is immutable.
    last: Option<(Applied, Py<PyAny>)>,
}

impl NativeCore {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline(always)]
    fn try_lock(&self) -> Option<MutexGuard<'_, Held>> {
        match self.held.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Run with the lock; `long` work never keeps the GIL.
    fn with<R: Send>(&self, py: Python<'_>, long: bool, work: impl FnOnce(&mut Core) -> R + Send) -> R {
        if !long {
            if let Some(mut held) = self.try_lock() {
                return work(&mut held.core);
            }
        }
        py.detach(|| work(&mut self.lock().core))
    }

    /// Apply a payload.
    fn apply_bytes(&self, py: Python<'_>, publisher: &str, data: &[u8]) -> Result<Applied, Fault> {
        self.with(py, data.len() >= LONG, |core| core.apply(publisher, data))
    }

    /// Apply a short payload, if the lock is free and the result was the last one too: nothing to make then.
    #[inline(always)]
    fn apply_short(&self, py: Python<'_>, publisher: &str, data: &[u8]) -> Option<Result<Py<PyAny>, Applied>> {
        let mut tally = Applied::default();
        let mut held = self.try_lock()?;
        let number = held.core.number(publisher)?;
        held.core.apply_to(number, data, &mut tally).ok()?;
        match &held.last {
            Some((known, object)) if *known == tally => Some(Ok(object.clone_ref(py))),
            _ => Some(Err(tally)),
        }
    }

    fn applied(&self, py: Python<'_>, applied: &Applied) -> PyResult<Py<PyAny>> {
        let object = self
            .types
            .applied
            .bind(py)
            .call1((
                applied.events,
                applied.stored,
                applied.removed,
                applied.cleared,
                applied.orphans,
                applied.attached,
                applied.unknown_removed,
                applied.unknown_events,
                applied.refused,
            ))?
            .unbind();
        if let Some(mut held) = self.try_lock() {
            let old = held.last.replace((*applied, object.clone_ref(py)));
            drop(held);
            drop(old);
        }
        Ok(object)
    }

    fn fault(&self, py: Python<'_>, fault: Fault) -> PyErr {
        self.types.error(py, fault)
    }
}

#[pymethods]
impl NativeCore {
    #[new]
    #[pyo3(signature = (limits=None, seed=0))]
    fn new(py: Python<'_>, limits: Option<&Bound<'_, PyAny>>, seed: u64) -> PyResult<Self> {
        let limits = match limits {
            Some(limits) if !limits.is_none() => read_limits(limits)?,
            _ => Limits::default(),
        };
        Ok(NativeCore {
            held: Mutex::new(Held { core: Core::new(limits, seed), last: None }),
            limits,
            types: Types::load(py)?,
        })
    }

    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        intern!(py, "native")
    }

    fn add_publisher(&self, py: Python<'_>, publisher: &str, model: &str) -> PyResult<()> {
        let added = self.with(py, false, |core| core.add_publisher(publisher, model));
        added.map(|_| ()).map_err(|fault| self.fault(py, fault))
    }

    fn apply(&self, py: Python<'_>, publisher: &str, payload: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let copy;
        let data = match payload.cast::<PyBytes>() {
            Ok(bytes) => bytes.as_bytes(),
            Err(_) => {
                copy = PyBuffer::<u8>::get(payload)?.to_vec(py)?;
                &copy
            }
        };
        if data.len() < LONG {
            match self.apply_short(py, publisher, data) {
                Some(Ok(object)) => return Ok(object),
                Some(Err(applied)) => return self.applied(py, &applied),
                None => {} // the lock is taken, or it fails: a payload that fails changes nothing, so it can fail again
            }
        }
        match self.apply_bytes(py, publisher, data) {
            Ok(applied) => self.applied(py, &applied),
            Err(fault) => Err(self.fault(py, fault)),
        }
    }

    fn apply_many(&self, py: Python<'_>, publisher: &str, payloads: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let held: Vec<Bound<'_, PyBytes>> = payloads
            .try_iter()?
            .map(|item| {
                let item = item?;
                match item.cast_into::<PyBytes>() {
                    Ok(bytes) => Ok(bytes),
                    Err(error) => {
                        let item = error.into_inner();
                        Ok(PyBytes::new(py, &PyBuffer::<u8>::get(&item)?.to_vec(py)?))
                    }
                }
            })
            .collect::<PyResult<_>>()?;
        let slices: Vec<&[u8]> = held.iter().map(|bytes| bytes.as_bytes()).collect();
        let mut tally = Applied::default();
        let outcome = self.with(py, true, |core| core.apply_many(publisher, &slices, &mut tally));
        match outcome {
            Ok(()) => self.applied(py, &tally),
            Err(fault) => Err(self.fault(py, fault)),
        }
    }

    fn apply_batch(&self, py: Python<'_>, publisher: &str, batch: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let unknown: u64 = batch.getattr(intern!(py, "unknown_events"))?.extract()?;
        let encoded = self.types.encode.bind(py).call1((batch,))?;
        let data = encoded.cast::<PyBytes>()?.as_bytes();
        match self.apply_bytes(py, publisher, data) {
            Ok(applied) => self.applied(py, &Applied { unknown_events: unknown, ..applied }),
            Err(fault) => Err(self.fault(py, fault)),
        }
    }

    #[pyo3(signature = (context, tokens, publishers=None))]
    fn r#match(
        &self,
        py: Python<'_>,
        context: &Bound<'_, PyAny>,
        tokens: &Bound<'_, PyAny>,
        publishers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Matches> {
        let only = texts_of(publishers)?;
        let attributes = Attributes::of(context)?;
        let query = attributes.query()?;
        self.with_tokens(py, tokens, |tokens| self.match_tokens(py, &query, tokens, only.as_deref()))
    }

    /// The keys of a prompt's full blocks for one block size, as little-endian u64s.
    fn query_keys<'py>(
        &self,
        py: Python<'py>,
        context: &Bound<'py, PyAny>,
        tokens: &Bound<'py, PyAny>,
        block_size: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let attributes = Attributes::of(context)?;
        let query = attributes.query()?;
        if block_size == 0 {
            return Err(self.query_error(py, "block_size must be positive"));
        }
        let seed = self.with(py, false, |core| core.shared.seed);
        self.with_tokens(py, tokens, |tokens| {
            let keys = self.token_keys(py, &query, tokens, block_size, seed)?;
            let bytes: Vec<u8> = keys.flat_map(u64::to_le_bytes).collect();
            Ok(PyBytes::new(py, &bytes))
        })
    }

    /// Match by keys from `query_keys`.
    #[pyo3(signature = (model, block_size, keys, publishers=None))]
    fn match_keys(
        &self,
        py: Python<'_>,
        model: &str,
        block_size: u32,
        keys: &[u8],
        publishers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Matches> {
        if keys.len() % 8 != 0 {
            return Err(self.query_error(py, "keys must be 8 bytes each"));
        }
        let only = texts_of(publishers)?;
        Ok(self.with(py, false, |core| {
            let restricted = core.begin_query(only.as_ref().map(|names| names.iter().map(String::as_str)));
            let numbers = keys.chunks_exact(8).map(|key| u64::from_le_bytes(key.try_into().unwrap()));
            let mut found = Vec::new();
            core.walk(model, block_size, numbers, restricted, &mut found);
            core.rank(&mut found, false);
            Matches::new(core, found, &self.types)
        }))
    }

    fn remove_publisher(&self, py: Python<'_>, publisher: &str) -> usize {
        self.with(py, true, |core| core.remove_publisher(publisher))
    }

    fn clear_publisher(&self, py: Python<'_>, publisher: &str) -> PyResult<usize> {
        self.with(py, true, |core| core.clear_publisher(publisher)).map_err(|fault| self.fault(py, fault))
    }

    fn publishers(&self, py: Python<'_>) -> Vec<String> {
        self.with(py, false, |core| core.names())
    }

    fn digest<'py>(&self, py: Python<'py>, publisher: &str) -> PyResult<Bound<'py, PyList>> {
        let (rows, media) = self
            .with(py, false, |core| core.digest(publisher).map(|rows| (rows, core.shared.media.names())))
            .map_err(|fault| self.fault(py, fault))?;
        let class = self.types.digest_row.bind(py);
        let rows = rows.into_iter().map(|row| {
            let digest = format!("{:032x}", row.digest);
            class.call1((&*media[row.medium as usize], group(row.group), row.count, digest))
        });
        PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)
    }

    fn dump(&self, py: Python<'_>, publisher: &str) -> PyResult<Rows> {
        let (rows, media) = self
            .with(py, true, |core| core.dump(publisher).map(|rows| (rows, core.shared.media.names())))
            .map_err(|fault| self.fault(py, fault))?;
        let class = self.types.block_row.clone_ref(py);
        Ok(Rows { rows: Mutex::new(rows.into_iter()), media, class })
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let data = self.with(py, true, |core| core.snapshot());
        PyBytes::new(py, &data)
    }

    fn restore(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        let data = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        let limits = self.limits;
        let restored = py.detach(|| {
            let core = Core::restored(&data, limits)?;
            let names = core.names();
            // The old state is dropped outside the lock.
            let old = std::mem::replace(&mut self.lock().core, core);
            drop(old);
            Ok(names)
        });
        restored.map_err(|fault| self.fault(py, fault))
    }

    #[pyo3(signature = (publisher=None))]
    fn stats<'py>(&self, py: Python<'py>, publisher: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let stats = self.with(py, false, |core| core.stats(publisher)).map_err(|fault| self.fault(py, fault))?;
        let named = PyDict::new(py);
        named.set_item("publishers", stats.publishers)?;
        named.set_item("blocks", stats.blocks)?;
        named.set_item("orphans", stats.orphans)?;
        named.set_item("keys", stats.keys)?;
        named.set_item("bytes_estimate", stats.bytes)?;
        named.set_item("conflicts", stats.conflicts)?;
        named.set_item("refused", stats.refused)?;
        let extra = PyDict::new(py);
        if publisher.is_none() {
            extra.set_item("holder_sets", stats.holder_sets)?;
        }
        named.set_item("extra", extra)?;
        self.types.stats.bind(py).call((), Some(&named))
    }
}

/// The bare loop of `reference.rs` over payloads; returns distinct blocks. For benchmarks.
#[pyfunction]
fn reference_loop(py: Python<'_>, payloads: Vec<Bound<'_, PyBytes>>) -> PyResult<usize> {
    let slices: Vec<&[u8]> = payloads.iter().map(|bytes| bytes.as_bytes()).collect();
    let counted = py.detach(|| crate::reference::two_maps(slices.into_iter()));
    counted.map_err(pyo3::exceptions::PyValueError::new_err)
}

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::reference_loop;
    #[pymodule_export]
    use super::service::{split_token_ids, AnswerTable};
    #[pymodule_export]
    use super::{Matches, NativeCore, Rows};
}
