//! Queries: prompts and chains of keys.

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::locked::NativeIndex;
use super::results::Matches;
use crate::core::{Context, Core};
use crate::error::CoreError;
use crate::ids::PrefixKey;
use crate::matching::Found;

fn names_of(publishers: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Vec<String>>> {
    let Some(names) = publishers else { return Ok(None) };
    names.try_iter()?.map(|name| name?.extract()).collect::<PyResult<_>>().map(Some)
}

/// Keys from their bytes, little-endian u64 each.
fn keys_of(bytes: &[u8]) -> impl Iterator<Item = PrefixKey> + '_ {
    bytes.chunks_exact(8).map(|key| PrefixKey(u64::from_le_bytes(key.try_into().expect("8 bytes"))))
}

impl NativeIndex {
    fn query_error(&self, py: Python<'_>, message: impl Into<String>) -> PyErr {
        self.error(py, CoreError::Query(message.into()))
    }

    /// Run with the tokens as little-endian bytes. `tokens` are such bytes, or a buffer of u32.
    fn with_tokens<R>(
        &self,
        py: Python<'_>,
        tokens: &Bound<'_, PyAny>,
        work: impl FnOnce(&[u8]) -> PyResult<R>,
    ) -> PyResult<R> {
        let check = |bytes: usize| {
            let most = self.limits.max_query_tokens;
            if bytes / 4 > most {
                let message = format!("{} tokens in a query, over the limit of {most}", bytes / 4);
                return Err(self.query_error(py, message));
            }
            Ok(())
        };
        if let Ok(bytes) = tokens.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            if bytes.len() % 4 != 0 {
                return Err(self.query_error(py, "tokens must be 32-bit integers, or bytes in a multiple of 4"));
            }
            check(bytes.len())?;
            return work(bytes);
        }
        let buffer = PyBuffer::<u32>::get(tokens)?;
        check(buffer.len_bytes())?;
        if !buffer.is_c_contiguous() || cfg!(target_endian = "big") {
            let bytes: Vec<u8> = buffer.to_vec(py)?.into_iter().flat_map(u32::to_le_bytes).collect();
            return work(&bytes);
        }
        // Safety: the buffer is contiguous, and no Python code that could change it runs while the GIL is held here.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) };
        work(if bytes.is_empty() { &[] } else { bytes })
    }

    fn matches(&self, core: &Core, found: Vec<Found>) -> Matches {
        Matches::new(core, found, &self.classes)
    }
}

impl NativeIndex {
    /// Match a prompt whose blocks have no extra keys.
    pub(super) fn find_prompt(
        &self,
        py: Python<'_>,
        context: Context,
        tokens: &Bound<'_, PyAny>,
        publishers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Matches> {
        let only = names_of(publishers)?;
        self.with_tokens(py, tokens, |tokens| {
            let work = |core: &mut Core, tokens: &[u8]| {
                let found = core.match_prompt(context, tokens, only.as_deref());
                self.matches(core, found)
            };
            Ok(match self.with_free_lock(|core| work(core, tokens)) {
                Some(matches) => matches,
                None => {
                    // Other threads may write to the tokens' buffer once the GIL is released.
                    let copy = tokens.to_vec();
                    self.without_gil(py, |core| work(core, &copy))
                }
            })
        })
    }

    /// The keys of the full blocks of such a prompt, as little-endian u64.
    pub(super) fn keys_of_prompt<'py>(
        &self,
        py: Python<'py>,
        context: Context,
        tokens: &Bound<'py, PyAny>,
        block_size: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if block_size == 0 {
            return Err(self.query_error(py, "block_size must be positive"));
        }
        let seed = self.briefly(py, |core| core.seed());
        self.with_tokens(py, tokens, |tokens| {
            let keys = context.keys(tokens, block_size, seed);
            let bytes: Vec<u8> = keys.flat_map(|key| key.0.to_le_bytes()).collect();
            Ok(PyBytes::new(py, &bytes))
        })
    }

    /// Match by keys, which are given by block size.
    pub(super) fn find_chains(
        &self,
        py: Python<'_>,
        model: &str,
        chains: &[(u32, &[u8])],
        publishers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Matches> {
        if chains.iter().any(|(_, keys)| keys.len() % 8 != 0) {
            return Err(self.query_error(py, "keys must be 8 bytes each"));
        }
        let only = names_of(publishers)?;
        Ok(self.briefly(py, |core| {
            let chains = chains.iter().map(|&(block_size, keys)| (block_size, keys_of(keys)));
            let found = core.match_chains(model, chains, only.as_deref());
            self.matches(core, found)
        }))
    }
}
