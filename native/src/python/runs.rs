//! Typed calls for engines in the same process: hashes as Python integers, no tokens and no encoding.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::locked::NativeIndex;
use super::results::Matches;
use crate::hash::identity_key;
use crate::ids::{EngineHash, GroupId};
use crate::reader::Span;
use crate::wire::{Batch, Event, Part, Stored, WireHash};

/// Append the hashes of a list to the batch's, and return where they are.
fn push_hashes(batch: &mut Batch, hashes: &Bound<'_, PyAny>) -> PyResult<Part> {
    let start = batch.hashes.len();
    match hashes.cast::<PyList>() {
        Ok(list) => {
            batch.hashes.reserve(list.len());
            for hash in list.iter() {
                batch.hashes.push(EngineHash(hash.extract()?));
            }
        }
        Err(_) => {
            for hash in hashes.try_iter()? {
                batch.hashes.push(EngineHash(hash?.extract()?));
            }
        }
    }
    Ok(Part::new(start, batch.hashes.len()))
}

/// Runs as a batch, and the bytes in which their media are named.
fn read_runs(runs: &Bound<'_, PyAny>, block_size: u32) -> PyResult<(Batch, Vec<u8>)> {
    let (mut batch, mut data) = (Batch::default(), Vec::new());
    let mut last = (String::new(), Span { start: 0, len: 0 });
    for run in runs.try_iter()? {
        let run = run?.cast_into::<PyTuple>()?;
        let hashes = push_hashes(&mut batch, &run.get_item(0)?)?;
        let name = run.get_borrowed_item(1)?;
        let name: &str = name.extract()?;
        if name != last.0 {
            last = (name.to_owned(), Span { start: data.len() as u32, len: name.len() as u32 });
            data.extend_from_slice(name.as_bytes());
        }
        let (medium, group) = (Some(last.1), GroupId(0));
        batch.events.push(if run.len() > 2 {
            let parent: Option<u64> = run.get_borrowed_item(2)?.extract()?;
            let parent = parent.map(|hash| WireHash { hash: EngineHash(hash), raw: None });
            Event::Stored(Stored { hashes, parent, block_size, medium, group, ..Stored::default() })
        } else {
            Event::Removed { hashes, medium, group }
        });
    }
    Ok((batch, data))
}

impl NativeIndex {
    pub(super) fn apply_block_runs(
        &self,
        py: Python<'_>,
        publisher: &str,
        block_size: u32,
        runs: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let (batch, data) = read_runs(runs, block_size)?;
        let applied = self.briefly(py, |core| core.apply_runs(publisher, &batch, &data));
        applied.map_err(|error| self.error(py, error)).and_then(|applied| self.applied(py, &applied))
    }

    pub(super) fn find_hashes(
        &self,
        py: Python<'_>,
        model: &str,
        block_size: u32,
        hashes: &Bound<'_, PyAny>,
        publishers: Option<Vec<String>>,
    ) -> PyResult<Matches> {
        let mut batch = Batch::default();
        push_hashes(&mut batch, hashes)?;
        Ok(self.briefly(py, |core| {
            let keys = batch.hashes.iter().map(|&hash| identity_key(hash));
            let chains = std::iter::once((block_size, keys));
            let found = core.match_chains(model, chains, publishers.as_deref());
            Matches::new(core, found, &self.classes)
        }))
    }
}
