//! Results that make their rows when they are read.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PySlice};

use super::classes::Classes;
use crate::core::{BlockRow, Core};
use crate::matching::Found;
use crate::publisher::RawHash;

/// The answer to a query: a sequence of `Match`, each made when it is read.
#[pyclass(frozen, sequence, module = "kvsync_native")]
pub(super) struct Matches {
    pub found: Vec<Found>,
    names: Arc<Vec<Arc<str>>>,
    pub media: Arc<Vec<Arc<str>>>,
    class: Arc<Py<PyAny>>,
}

impl Matches {
    pub fn new(core: &Core, found: Vec<Found>, classes: &Classes) -> Self {
        let class = Arc::clone(&classes.match_row);
        Matches { found, names: core.publisher_names(), media: core.medium_names(), class }
    }

    /// The name of a row's publisher.
    pub fn name(&self, found: &Found) -> &str {
        &self.names[found.publisher.index()]
    }

    fn item<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyAny>> {
        let found = &self.found[at];
        let tiers = PyDict::new(py);
        for (medium, blocks) in found.tiers.iter() {
            tiers.set_item(&*self.media[medium.index()], blocks)?;
        }
        self.class.bind(py).call1((self.name(found), found.blocks, found.tokens(), found.block_size, tiers))
    }

    fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let items = (0..self.found.len()).map(|at| self.item(py, at)).collect::<PyResult<Vec<_>>>()?;
        PyList::new(py, items)
    }
}

#[pymethods]
impl Matches {
    fn __len__(&self) -> usize {
        self.found.len()
    }

    fn __getitem__<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if let Ok(slice) = index.cast::<PySlice>() {
            return self.list(py)?.into_any().get_item(slice);
        }
        let at: isize = index.extract()?;
        let at = if at < 0 { at + self.found.len() as isize } else { at };
        if at < 0 || at as usize >= self.found.len() {
            return Err(PyIndexError::new_err("match index out of range"));
        }
        self.item(py, at as usize)
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.list(py)?.into_any().try_iter()?.into_any())
    }

    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, PyAny>) -> PyResult<bool> {
        let other = match other.cast::<Matches>() {
            Ok(other) => other.get().list(py)?.into_any(),
            Err(_) => other.clone(),
        };
        self.list(py)?.into_any().eq(other)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.list(py)?.repr()?.to_string())
    }
}

/// A dump: an iterator of `BlockRow`.
#[pyclass(frozen, module = "kvsync_native")]
pub(super) struct Rows {
    rows: Mutex<std::vec::IntoIter<BlockRow>>,
    media: Arc<Vec<Arc<str>>>,
    class: Arc<Py<PyAny>>,
}

impl Rows {
    pub fn new(rows: Vec<BlockRow>, media: Arc<Vec<Arc<str>>>, classes: &Classes) -> Self {
        Rows { rows: Mutex::new(rows.into_iter()), media, class: Arc::clone(&classes.block_row) }
    }
}

fn hash_object<'py>(py: Python<'py>, hash: &RawHash) -> PyResult<Bound<'py, PyAny>> {
    Ok(match hash {
        RawHash::Number(number) => number.0.into_pyobject(py)?.into_any(),
        RawHash::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
    })
}

#[pymethods]
impl Rows {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let row = self.rows.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(row) = row else { return Ok(None) };
        let hash = hash_object(py, &row.hash)?;
        let parent = row.parent.as_ref().map(|parent| hash_object(py, parent)).transpose()?;
        let medium = &*self.media[row.medium.index()];
        let fields =
            (hash, parent, medium, row.group.number(), row.copies, row.key.is_some(), row.key.map(|key| key.0));
        self.class.bind(py).call1(fields).map(Some)
    }
}
