//! What Python sees. Nothing here touches the index without its lock, and nothing holds the lock and waits for the GIL.
//!
//! Short calls keep the GIL and take the lock if it is free; long ones, and those that find it taken, give the GIL up
//! first. Results are made after the lock is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyIndexError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PySlice, PyString, PyType};

use crate::core::{Core, Fault, Row};
use crate::hash::root_key;
use crate::publisher::{Applied, Limits, Spelled};
use crate::walk::{Found, Texts, TokenKeys};
use crate::wire::WireLimits;

/// Payloads of at least so many bytes are applied without the GIL.
const LONG: usize = 4096;

/// The Python classes that results and errors are made of.
struct Types {
    applied: Py<PyAny>,
    block_row: Py<PyAny>,
    digest_row: Py<PyAny>,
    stats: Py<PyAny>,
    decode_error: Py<PyAny>,
    errors: Py<PyAny>,
    keys: Py<PyAny>,
    encode: Py<PyAny>,
    match_type: Arc<Py<PyAny>>,
}

impl Types {
    fn load(py: Python<'_>) -> PyResult<Self> {
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

    fn error(&self, py: Python<'_>, fault: Fault) -> PyErr {
        let (name, message) = match fault {
            Fault::Unknown(message) => ("UnknownPublisherError", message),
            Fault::Conflict(message) => ("PublisherConflictError", message),
            Fault::Limit(message) => ("LimitError", message),
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

/// The native core; see `kvsync_indexer.core.IndexCore`.
#[pyclass(frozen, module = "kvsync_native", name = "IndexCore")]
struct NativeCore {
    core: Mutex<Core>,
    limits: Limits,
    types: Types,
    /// The last result of an apply: streams of equal batches give equal results, and the tuple is immutable.
    last: Mutex<Option<(Applied, Py<PyAny>)>>,
}

impl NativeCore {
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Run with the lock; `long` work never keeps the GIL.
    fn with<R: Send>(&self, py: Python<'_>, long: bool, work: impl FnOnce(&mut Core) -> R + Send) -> R {
        if !long {
            match self.core.try_lock() {
                Ok(mut core) => return work(&mut core),
                Err(TryLockError::Poisoned(poisoned)) => return work(&mut poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
        }
        py.detach(|| work(&mut self.lock()))
    }

    fn applied(&self, py: Python<'_>, applied: &Applied) -> PyResult<Py<PyAny>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, object)) = &*last {
            if known == applied {
                return Ok(object.clone_ref(py));
            }
        }
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
        *last = Some((*applied, object.clone_ref(py)));
        Ok(object)
    }

    fn fault(&self, py: Python<'_>, fault: Fault) -> PyErr {
        self.types.error(py, fault)
    }

    fn query_error(&self, py: Python<'_>, message: impl Into<String>) -> PyErr {
        self.fault(py, Fault::Query(message.into()))
    }

    /// Run with the tokens as little-endian bytes.
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
    fn token_keys<'t>(
        &self,
        py: Python<'_>,
        context: &Query<'_>,
        tokens: &'t [u8],
        size: u32,
        seed: u64,
    ) -> PyResult<TokenKeys<'t>> {
        if context.extra.is_none() {
            let root = root_key(context.model, context.lora, context.salt, size, seed);
            return Ok(TokenKeys::new(Texts::Plain(tokens, 4 * size as usize, seed), root));
        }
        let raw = PyBytes::new(py, tokens);
        let (root, texts): (u64, Vec<u64>) =
            self.types.keys.bind(py).call_method1("query_texts", (context.whole, raw, size, seed))?.extract()?;
        Ok(TokenKeys::new(Texts::Ready(texts), root))
    }
}

/// The parts of a `Context`.
struct Query<'a> {
    whole: &'a Bound<'a, PyAny>,
    model: &'a str,
    lora: Option<&'a str>,
    salt: Option<&'a str>,
    extra: Bound<'a, PyAny>,
}

fn texts_of(names: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Vec<String>>> {
    let Some(names) = names.filter(|names| !names.is_none()) else {
        return Ok(None);
    };
    names.try_iter()?.map(|name| name?.extract()).collect::<PyResult<_>>().map(Some)
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
            core: Mutex::new(Core::new(limits, seed)),
            limits,
            types: Types::load(py)?,
            last: Mutex::new(None),
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
        let mut tally = Applied::default();
        let work = |core: &mut Core| core.find(publisher).and_then(|number| core.apply_to(number, data, &mut tally));
        match self.with(py, data.len() >= LONG, work) {
            Ok(()) => self.applied(py, &tally),
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
        let outcome = self.with(py, data.len() >= LONG, |core| core.apply(publisher, data));
        match outcome {
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
        let (model, lora, salt) = (
            context.getattr(intern!(py, "model"))?,
            context.getattr(intern!(py, "lora"))?,
            context.getattr(intern!(py, "cache_salt"))?,
        );
        let query = Query {
            whole: context,
            model: model.extract()?,
            lora: lora.extract()?,
            salt: salt.extract()?,
            extra: context.getattr(intern!(py, "extra_keys"))?,
        };
        self.with_tokens(py, tokens, |tokens| {
            if !query.extra.is_none() {
                return self.match_keyed(py, &query, tokens, only.as_deref());
            }
            let (model, lora, salt) = (query.model, query.lora, query.salt);
            let work = |core: &mut Core| {
                let restricted = core.begin_query(only.as_ref().map(|names| names.iter().map(String::as_str)));
                let (mut found, sizes, seed) = (Vec::new(), core.sizes(model), core.shared.seed);
                for &size in &sizes {
                    let root = root_key(model, lora, salt, size, seed);
                    let keys = TokenKeys::new(Texts::Plain(tokens, 4 * size as usize, seed), root);
                    core.walk(model, size, keys, restricted, &mut found);
                }
                core.rank(&mut found, sizes.len() > 1);
                Matches::new(core, found, &self.types)
            };
            match self.core.try_lock() {
                Ok(mut core) => Ok(work(&mut core)),
                Err(TryLockError::Poisoned(poisoned)) => Ok(work(&mut poisoned.into_inner())),
                Err(TryLockError::WouldBlock) => {
                    // The tokens may be a buffer that others can write to once the GIL is gone.
                    let copy = tokens.to_vec();
                    Ok(py.detach(|| {
                        let mut core = self.lock();
                        let restricted = core.begin_query(only.as_ref().map(|names| names.iter().map(String::as_str)));
                        let (mut found, sizes, seed) = (Vec::new(), core.sizes(model), core.shared.seed);
                        for &size in &sizes {
                            let root = root_key(model, lora, salt, size, seed);
                            let keys = TokenKeys::new(Texts::Plain(&copy, 4 * size as usize, seed), root);
                            core.walk(model, size, keys, restricted, &mut found);
                        }
                        core.rank(&mut found, sizes.len() > 1);
                        Matches::new(&core, found, &self.types)
                    }))
                }
            }
        })
    }

    /// The keys of a prompt's full blocks for one block size, as little-endian u64s.
    fn query_keys<'py>(
        &self,
        py: Python<'py>,
        context: &Bound<'py, PyAny>,
        tokens: &Bound<'py, PyAny>,
        block_size: u32,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (model, lora, salt) = (
            context.getattr(intern!(py, "model"))?,
            context.getattr(intern!(py, "lora"))?,
            context.getattr(intern!(py, "cache_salt"))?,
        );
        let query = Query {
            whole: context,
            model: model.extract()?,
            lora: lora.extract()?,
            salt: salt.extract()?,
            extra: context.getattr(intern!(py, "extra_keys"))?,
        };
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
            let old = std::mem::replace(&mut *self.lock(), core);
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

impl NativeCore {
    /// A query whose blocks have keys of their own: their texts come from the pure-Python definition.
    fn match_keyed(
        &self,
        py: Python<'_>,
        query: &Query<'_>,
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

fn group(number: i32) -> Option<i32> {
    (number >= 0).then_some(number)
}

fn read_limits(limits: &Bound<'_, PyAny>) -> PyResult<Limits> {
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

/// The answer to a query: a sequence of `Match`, each made when it is looked at.
#[pyclass(frozen, sequence, module = "kvsync_native")]
pub(crate) struct Matches {
    pub(crate) found: Vec<(Arc<str>, Found)>,
    pub(crate) media: Arc<Vec<Arc<str>>>,
    class: Arc<Py<PyAny>>,
}

impl Matches {
    fn new(core: &Core, found: Vec<Found>, types: &Types) -> Self {
        let found = found.into_iter().map(|one| (Arc::clone(&core.get(one.publisher).name), one)).collect();
        Matches { found, media: core.shared.media.names(), class: Arc::clone(&types.match_type) }
    }

    fn item<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyAny>> {
        let (name, found) = &self.found[at];
        let tiers = PyDict::new(py);
        for &(medium, blocks) in found.tiers.first.iter().chain(&found.tiers.more) {
            tiers.set_item(&*self.media[medium as usize], blocks)?;
        }
        let tokens = found.blocks as u64 * found.block_size as u64;
        self.class.bind(py).call1((&**name, found.blocks, tokens, found.block_size, tiers))
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
struct Rows {
    rows: Mutex<std::vec::IntoIter<Row>>,
    media: Arc<Vec<Arc<str>>>,
    class: Py<PyAny>,
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
    use super::{Matches, NativeCore, Rows};
    #[pymodule_export]
    use crate::python_service::{split_token_ids, AnswerTable};
}
