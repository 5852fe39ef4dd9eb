//! Queries: what a `Context` and tokens are for the walk.

use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::results::Matches;
use super::types::Types;
use super::NativeCore;
use crate::core::{Core, Fault};
use crate::hash::root_key;
use crate::walk::{Texts, TokenKeys};

/// The attributes of a `Context`, kept alive while a query reads them.
pub(super) struct Attributes<'a, 'py> {
    whole: &'a Bound<'py, PyAny>,
    model: Bound<'py, PyAny>,
    lora: Bound<'py, PyAny>,
    salt: Bound<'py, PyAny>,
    extra: Bound<'py, PyAny>,
}

impl<'a, 'py> Attributes<'a, 'py> {
    pub fn of(context: &'a Bound<'py, PyAny>) -> PyResult<Self> {
        let py = context.py();
        Ok(Attributes {
            whole: context,
            model: context.getattr(intern!(py, "model"))?,
            lora: context.getattr(intern!(py, "lora"))?,
            salt: context.getattr(intern!(py, "cache_salt"))?,
            extra: context.getattr(intern!(py, "extra_keys"))?,
        })
    }

    pub fn query(&self) -> PyResult<Query<'_, 'py>> {
        Ok(Query {
            whole: self.whole,
            model: self.model.extract()?,
            lora: self.lora.extract()?,
            salt: self.salt.extract()?,
            keyed: !self.extra.is_none(),
        })
    }
}

/// What a query says beside its tokens; `keyed`: blocks have keys of their own.
pub(super) struct Query<'a, 'py> {
    whole: &'a Bound<'py, PyAny>,
    model: &'a str,
    lora: Option<&'a str>,
    salt: Option<&'a str>,
    keyed: bool,
}

impl<'a> Query<'a, '_> {
    /// Model, LoRA and salt.
    fn parts(&self) -> (&'a str, Option<&'a str>, Option<&'a str>) {
        (self.model, self.lora, self.salt)
    }
}

pub(super) fn texts_of(names: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Vec<String>>> {
    let Some(names) = names.filter(|names| !names.is_none()) else {
        return Ok(None);
    };
    names.try_iter()?.map(|name| name?.extract()).collect::<PyResult<_>>().map(Some)
}

impl NativeCore {
    pub(super) fn query_error(&self, py: Python<'_>, message: impl Into<String>) -> PyErr {
        self.fault(py, Fault::Query(message.into()))
    }

    /// Run with the tokens as little-endian bytes.
    pub(super) fn with_tokens<R>(
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
        if let Ok(buffer) = PyBuffer::<u32>::get(tokens) {
            if buffer.is_c_contiguous() && cfg!(target_endian = "little") {
                check(buffer.len_bytes())?;
                // Safety: contiguous, and nobody runs Python code that could change it while the GIL is held here.
                let bytes = unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) };
                return work(if bytes.is_empty() { &[] } else { bytes });
            }
        }
        let raw = self.types.keys.bind(py).call_method1("token_bytes", (tokens, self.limits.max_query_tokens))?;
        work(raw.cast::<PyBytes>()?.as_bytes())
    }

    /// The keys of a prompt for one block size, as an iterator for the walk.
    pub(super) fn token_keys<'t>(
        &self,
        py: Python<'_>,
        context: &Query<'_, '_>,
        tokens: &'t [u8],
        size: u32,
        seed: u64,
    ) -> PyResult<TokenKeys<'t>> {
        if !context.keyed {
            let root = root_key(context.model, context.lora, context.salt, size, seed);
            return Ok(TokenKeys::new(Texts::Plain(tokens, 4 * size as usize, seed), root));
        }
        let raw = PyBytes::new(py, tokens);
        let (root, texts): (u64, Vec<u64>) =
            self.types.keys.bind(py).call_method1("query_texts", (context.whole, raw, size, seed))?.extract()?;
        Ok(TokenKeys::new(Texts::Ready(texts), root))
    }

    /// Match a prompt by its tokens.
    pub(super) fn match_tokens(
        &self,
        py: Python<'_>,
        query: &Query<'_, '_>,
        tokens: &[u8],
        only: Option<&[String]>,
    ) -> PyResult<Matches> {
        if query.keyed {
            return self.match_keyed(py, query, tokens, only);
        }
        if let Some(mut held) = self.try_lock() {
            return Ok(walk_plain(&mut held.core, query.parts(), tokens, only, &self.types));
        }
        // The tokens may be a buffer that others can write to once the GIL is gone.
        let (copy, parts) = (tokens.to_vec(), query.parts());
        Ok(py.detach(|| walk_plain(&mut self.lock().core, parts, &copy, only, &self.types)))
    }

    /// A query whose blocks have keys of their own: their texts come from the pure-Python definition.
    fn match_keyed(
        &self,
        py: Python<'_>,
        query: &Query<'_, '_>,
        tokens: &[u8],
        only: Option<&[String]>,
    ) -> PyResult<Matches> {
        let model = query.model;
        let (sizes, seed) = self.with(py, false, |core| (core.sizes(model), core.shared.seed));
        let mut chains = Vec::new();
        for &size in &sizes {
            let keys: Vec<u64> = self.token_keys(py, query, tokens, size, seed)?.collect();
            chains.push((size, keys));
        }
        Ok(self.with(py, false, |core| {
            let restricted = core.begin_query(only.map(|names| names.iter().map(String::as_str)));
            let mut found = Vec::new();
            for (size, keys) in &chains {
                core.walk(model, *size, keys.iter().copied(), restricted, &mut found);
            }
            core.rank(&mut found, chains.len() > 1);
            Matches::new(core, found, &self.types)
        }))
    }
}

/// Walk the chain of a prompt for every block size.
fn walk_plain(
    core: &mut Core,
    (model, lora, salt): (&str, Option<&str>, Option<&str>),
    tokens: &[u8],
    only: Option<&[String]>,
    types: &Types,
) -> Matches {
    let restricted = core.begin_query(only.map(|names| names.iter().map(String::as_str)));
    let (mut found, sizes, seed) = (Vec::new(), core.sizes(model), core.shared.seed);
    for &size in &sizes {
        let root = root_key(model, lora, salt, size, seed);
        let keys = TokenKeys::new(Texts::Plain(tokens, 4 * size as usize, seed), root);
        core.walk(model, size, keys, restricted, &mut found);
    }
    core.rank(&mut found, sizes.len() > 1);
    Matches::new(core, found, types)
}
