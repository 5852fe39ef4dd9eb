//! Answers that make their rows when they are looked at.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PySlice};

use super::types::Types;
use crate::core::{Core, Row};
use crate::publisher::Spelled;
use crate::walk::Found;

pub(super) fn group(number: i32) -> Option<i32> {
    (number >= 0).then_some(number)
}

/// The answer to a query: a sequence of `Match`, each made when it is looked at.
#[pyclass(frozen, sequence, module = "kvsync_native")]
pub(super) struct Matches {
    pub found: Vec<Found>,
    names: Arc<Vec<Arc<str>>>,
    pub media: Arc<Vec<Arc<str>>>,
    class: Arc<Py<PyAny>>,
}

impl Matches {
    pub fn new(core: &Core, found: Vec<Found>, types: &Types) -> Self {
        Matches { found, names: core.labels(), media: core.shared.media.names(), class: Arc::clone(&types.match_type) }
    }

    /// The publisher of a row.
    pub fn name(&self, found: &Found) -> &str {
        &self.names[found.publisher as usize]
    }

    fn item<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyAny>> {
        let found = &self.found[at];
        let tiers = PyDict::new(py);
        for &(medium, blocks) in found.tiers.first.iter().chain(&found.tiers.more) {
            tiers.set_item(&*self.media[medium as usize], blocks)?;
        }
        let tokens = found.blocks as u64 * found.block_size as u64;
        self.class.bind(py).call1((self.name(found), found.blocks, tokens, found.block_size, tiers))
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

/// A dump, row by row.
#[pyclass(frozen, module = "kvsync_native")]
pub(super) struct Rows {
    pub rows: Mutex<std::vec::IntoIter<Row>>,
    pub media: Arc<Vec<Arc<str>>>,
    pub class: Py<PyAny>,
}

#[pymethods]
impl Rows {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let row = self.rows.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(row) = row else { return Ok(None) };
        let hash = match &row.spelled {
            Some(bytes) => PyBytes::new(py, bytes).into_any(),
            None => row.hash.into_pyobject(py)?.into_any(),
        };
        let parent = match &row.parent {
            None => py.None().into_bound(py),
            Some(Spelled::Number(key)) => key.into_pyobject(py)?.into_any(),
            Some(Spelled::Bytes(bytes)) => PyBytes::new(py, bytes).into_any(),
        };
        let medium = &*self.media[row.medium as usize];
        let fields = (hash, parent, medium, group(row.group), row.copies, row.attached);
        self.class.bind(py).call1(fields).map(Some)
    }
}
