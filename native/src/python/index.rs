//! The methods of the core's Python class.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::classes::{Classes, ErrorClasses, ResultClasses};
use super::locked::NativeIndex;
use super::results::{Matches, Rows};
use crate::core::{Context, Core};
use crate::limits::Limits;
use crate::publisher::Applied;
use crate::snapshot::join;
use crate::wire::WireLimits;

/// Payloads of at least this many bytes are applied without the GIL.
const LONG: usize = 4096;

/// The bytes of a payload: those of a `bytes` object as they are, a copy of any other buffer's.
fn payload<'py>(py: Python<'py>, object: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match object.cast_into::<PyBytes>() {
        Ok(bytes) => Ok(bytes),
        Err(error) => Ok(PyBytes::new(py, &PyBuffer::<u8>::get(&error.into_inner())?.to_vec(py)?)),
    }
}

#[pymethods]
impl NativeIndex {
    #[new]
    #[pyo3(signature = (
        *, results, errors, seed, max_publishers, max_blocks, max_orphans, max_remembered, max_query_tokens,
        max_payload_bytes,
        max_events, max_hashes, max_tokens, max_hash_bytes, max_text_bytes, max_block_size, max_key_parts,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn make(
        results: ResultClasses,
        errors: ErrorClasses,
        seed: u64,
        max_publishers: usize,
        max_blocks: usize,
        max_orphans: usize,
        max_remembered: usize,
        max_query_tokens: usize,
        max_payload_bytes: usize,
        max_events: usize,
        max_hashes: usize,
        max_tokens: usize,
        max_hash_bytes: usize,
        max_text_bytes: usize,
        max_block_size: usize,
        max_key_parts: usize,
    ) -> Self {
        let wire = WireLimits {
            max_payload_bytes,
            max_events,
            max_hashes,
            max_tokens,
            max_hash_bytes,
            max_text_bytes,
            max_block_size,
            max_key_parts,
        };
        let limits = Limits { max_publishers, max_blocks, max_orphans, max_remembered, max_query_tokens, wire };
        NativeIndex::new(limits, seed, Classes::new(results, errors))
    }

    #[getter]
    fn name<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        intern!(py, "native")
    }

    #[getter]
    fn seed(&self, py: Python<'_>) -> u64 {
        self.briefly(py, |core| core.seed())
    }

    #[getter]
    fn max_query_tokens(&self) -> usize {
        self.limits.max_query_tokens
    }

    fn add_publisher(&self, py: Python<'_>, publisher: &str, model: &str) -> PyResult<()> {
        let added = self.changing(py, |core| core.add_publisher(publisher, model));
        added.map(|_| ()).map_err(|error| self.error(py, error))
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
                None => {}
            }
        }
        let mut applied = Applied::default();
        match py.detach(|| self.apply_run(publisher, &[data], u64::MAX, &mut applied)) {
            Ok(_) => self.applied(py, &applied),
            Err((error, _)) => Err(self.error(py, error)),
        }
    }

    #[pyo3(signature = (publisher, payloads, budget=None))]
    fn apply_many(
        &self,
        py: Python<'_>,
        publisher: &str,
        payloads: &Bound<'_, PyAny>,
        budget: Option<u64>,
    ) -> PyResult<Py<PyAny>> {
        let budget = budget.unwrap_or(u64::MAX);
        let held = payloads.try_iter()?.map(|item| payload(py, item?)).collect::<PyResult<Vec<_>>>()?;
        let slices: Vec<&[u8]> = held.iter().map(|bytes| bytes.as_bytes()).collect();
        let mut applied = Applied::default();
        match py.detach(|| self.apply_run(publisher, &slices, budget, &mut applied)) {
            Ok(()) => self.applied(py, &applied),
            Err((error, Some(at))) => Err(self.error(py, error.in_batch(at, slices.len()))),
            Err((error, None)) => Err(self.error(py, error)),
        }
    }

    /// The block sizes that publishers of the model use, ascending.
    fn block_sizes(&self, py: Python<'_>, model: &str) -> Vec<u32> {
        self.briefly(py, |core| core.block_sizes(model))
    }

    /// `IndexCore.match`. The context is a tuple of model, LoRA, cache salt and extra keys. What this cannot read
    /// (extra keys, tokens in another form) goes to the Python class, as `match_converted`.
    #[pyo3(name = "match", signature = (context, tokens, publishers=None))]
    fn match_tokens<'py>(
        slf: &Bound<'py, Self>,
        context: &Bound<'py, PyTuple>,
        tokens: &Bound<'py, PyAny>,
        publishers: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if context.get_borrowed_item(3)?.is_none() {
            let (model, lora, salt) =
                (context.get_borrowed_item(0)?, context.get_borrowed_item(1)?, context.get_borrowed_item(2)?);
            let plain = Context { model: model.extract()?, lora: lora.extract()?, salt: salt.extract()? };
            match slf.get().find_prompt(py, plain, tokens, publishers) {
                Err(error) if error.is_instance_of::<PyBufferError>(py) || error.is_instance_of::<PyTypeError>(py) => {}
                answer => return Ok(Bound::new(py, answer?)?.into_any()),
            }
        }
        slf.call_method1(intern!(py, "match_converted"), (context, tokens, publishers))
    }

    #[pyo3(signature = (model, lora, salt, tokens, publishers=None))]
    fn match_prompt(
        &self,
        py: Python<'_>,
        model: &str,
        lora: Option<&str>,
        salt: Option<&str>,
        tokens: &Bound<'_, PyAny>,
        publishers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Matches> {
        self.find_prompt(py, Context { model, lora, salt }, tokens, publishers)
    }

    fn prompt_keys<'py>(
        &self,
        py: Python<'py>,
        model: &str,
        lora: Option<&str>,
        salt: Option<&str>,
        tokens: &Bound<'py, PyAny>,
        block_size: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.keys_of_prompt(py, Context { model, lora, salt }, tokens, block_size)
    }

    #[pyo3(signature = (model, block_size, keys, publishers=None))]
    fn match_keys(
        &self,
        py: Python<'_>,
        model: &str,
        block_size: u32,
        keys: &[u8],
        publishers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Matches> {
        self.find_chains(py, model, &[(block_size, keys)], publishers)
    }

    fn apply_runs(
        &self,
        py: Python<'_>,
        publisher: &str,
        block_size: u32,
        runs: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        self.apply_block_runs(py, publisher, block_size, runs)
    }

    #[pyo3(signature = (model, block_size, hashes, publishers=None))]
    fn match_hashes(
        &self,
        py: Python<'_>,
        model: &str,
        block_size: u32,
        hashes: &Bound<'_, PyAny>,
        publishers: Option<Vec<String>>,
    ) -> PyResult<Matches> {
        self.find_hashes(py, model, block_size, hashes, publishers)
    }

    #[pyo3(signature = (model, chains, publishers=None))]
    fn match_chains(
        &self,
        py: Python<'_>,
        model: &str,
        chains: Vec<(u32, Vec<u8>)>,
        publishers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Matches> {
        let chains: Vec<(u32, &[u8])> = chains.iter().map(|(size, keys)| (*size, &keys[..])).collect();
        self.find_chains(py, model, &chains, publishers)
    }

    fn remove_publisher(&self, py: Python<'_>, publisher: &str) -> usize {
        py.detach(|| {
            let _writer = self.writer();
            let dropped = self.forget(publisher).unwrap_or(0);
            self.with_lock(|core| core.remove_publisher(publisher));
            dropped
        })
    }

    fn clear_publisher(&self, py: Python<'_>, publisher: &str) -> PyResult<usize> {
        let cleared = py.detach(|| {
            let _writer = self.writer();
            let dropped = self.forget(publisher)?;
            self.with_lock(|core| core.clear_publisher(publisher)).map(|()| dropped)
        });
        cleared.map_err(|error| self.error(py, error))
    }

    fn set_last_copy_only(&self, py: Python<'_>, publisher: &str, on: bool) -> PyResult<()> {
        self.changing(py, |core| core.set_last_copy_only(publisher, on)).map_err(|error| self.error(py, error))
    }

    fn publishers(&self, py: Python<'_>) -> Vec<String> {
        self.briefly(py, |core| core.publishers())
    }

    fn digest<'py>(&self, py: Python<'py>, publisher: &str) -> PyResult<Bound<'py, PyList>> {
        let (rows, media) = self
            .briefly(py, |core| core.digest(publisher).map(|rows| (rows, core.medium_names())))
            .map_err(|error| self.error(py, error))?;
        let class = self.classes.digest_row.bind(py);
        let rows = rows.into_iter().map(|row| {
            let digest = format!("{:032x}", row.digest);
            class.call1((&*media[row.medium.index()], row.group.number(), row.count, digest))
        });
        PyList::new(py, rows.collect::<PyResult<Vec<_>>>()?)
    }

    fn dump(&self, py: Python<'_>, publisher: &str) -> PyResult<Rows> {
        let found = py.detach(|| self.frozen(publisher).map(|(frozen, media)| (frozen.rows(), media)));
        let (rows, media) = found.map_err(|error| self.error(py, error))?;
        Ok(Rows::new(rows, media, &self.classes))
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let data = py.detach(|| {
            let _writer = self.writer();
            let (names, seed) = self.with_lock(|core| (core.publishers(), core.seed()));
            let copies = names.iter().filter_map(|name| self.frozen_by_writer(name).ok());
            let parts: Vec<Vec<u8>> = copies.map(|(frozen, _)| frozen.part()).collect();
            join(seed, &parts)
        });
        PyBytes::new(py, &data)
    }

    fn snapshot_part<'py>(&self, py: Python<'py>, publisher: &str) -> PyResult<Bound<'py, PyBytes>> {
        let part = py.detach(|| self.frozen(publisher).map(|(frozen, _)| frozen.part()));
        Ok(PyBytes::new(py, &part.map_err(|error| self.error(py, error))?))
    }

    fn restore(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
        let data = PyBuffer::<u8>::get(data)?.to_vec(py)?;
        let limits = self.limits;
        let restored = py.detach(|| {
            let core = Core::restored(&data, limits)?;
            let names = core.publishers();
            self.replace(core);
            Ok(names)
        });
        restored.map_err(|error| self.error(py, error))
    }

    fn sizes(&self, py: Python<'_>, publisher: &str) -> PyResult<(usize, usize)> {
        self.briefly(py, |core| core.sizes(publisher)).map_err(|error| self.error(py, error))
    }

    #[pyo3(signature = (publisher=None))]
    fn stats<'py>(&self, py: Python<'py>, publisher: Option<&str>) -> PyResult<Bound<'py, PyAny>> {
        let stats = self.briefly(py, |core| core.stats(publisher)).map_err(|error| self.error(py, error))?;
        let extra = PyDict::new(py);
        if publisher.is_none() {
            extra.set_item("holder_sets", stats.holder_sets)?;
        }
        self.classes.stats.bind(py).call1((
            stats.publishers,
            stats.blocks,
            stats.orphans,
            stats.keys,
            stats.bytes,
            stats.conflicts,
            stats.refused,
            stats.too_many_groups,
            stats.work,
            extra,
        ))
    }
}
