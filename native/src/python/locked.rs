//! A core behind its locks.
//!
//! Whoever changes the core holds the writer's lock, and takes the lock of the state within it. Long work that changes
//! nothing, such as copying a publisher, can therefore give up the lock of the state between slices, in which queries are
//! answered.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use pyo3::prelude::*;

use super::classes::Classes;
use crate::core::{Core, Run};
use crate::error::CoreError;
use crate::frozen::Frozen;
use crate::limits::Limits;
use crate::publisher::Applied;

/// How often long work looks between two slices whether others still wait, 20 us apart.
const GIVE_WAY: usize = 50;

/// Blocks that are worked on before the lock is given up: a few milliseconds at most.
const SLICE: i64 = 4096;
/// Payloads of at least this many bytes are decoded without the lock.
const FAR: usize = 1 << 16;

/// The names of media by id.
type MediumNames = Arc<Vec<Arc<str>>>;

/// The compiled part of `kvsync_native.IndexCore`.
#[pyclass(frozen, subclass, module = "kvsync_native")]
pub(super) struct NativeIndex {
    writer: Mutex<()>,
    state: Mutex<State>,
    /// Threads that wait for the state.
    waiting: AtomicUsize,
    pub(super) limits: Limits,
    pub(super) classes: Classes,
}

/// What the lock guards.
struct State {
    core: Core,
    /// The last result of `apply`. Streams of similar batches often give equal results, and the tuple is immutable.
    last_applied: Option<(Applied, Py<PyAny>)>,
}

impl NativeIndex {
    pub(super) fn new(limits: Limits, seed: u64, classes: Classes) -> Self {
        let state = Mutex::new(State { core: Core::new(limits, seed), last_applied: None });
        NativeIndex { writer: Mutex::new(()), state, waiting: AtomicUsize::new(0), limits, classes }
    }

    /// Keep others from changing the core.
    pub(super) fn writer(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline(always)]
    fn try_writer(&self) -> Option<MutexGuard<'_, ()>> {
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        state
    }

    /// Let the threads that wait for the state have it: a lock that is released and taken again at once goes to none of
    /// them.
    fn give_way(&self) {
        for _ in 0..GIVE_WAY {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::sleep(Duration::from_micros(20));
        }
    }

    /// Run with the lock; called without the GIL.
    pub(super) fn with_lock<R>(&self, work: impl FnOnce(&mut Core) -> R) -> R {
        work(&mut self.lock().core)
    }

    /// Apply payloads, and give up the lock between slices. An error comes with the position of its payload if it is
    /// that of a payload. Called without the GIL.
    pub(super) fn apply_run(
        &self,
        name: &str,
        payloads: &[&[u8]],
        budget: u64,
        applied: &mut Applied,
    ) -> Result<(), (CoreError, Option<usize>)> {
        let _writer = self.writer();
        let id = self.with_lock(|core| core.registry.find(name)).map_err(|error| (error, None))?;
        let mut run = Run::new(id);
        self.finish(&mut run, payloads, budget, applied).map_err(|error| (error, Some(run.at)))
    }

    /// Apply the rest of a run, for a caller that holds the writer's lock.
    fn finish(&self, run: &mut Run, payloads: &[&[u8]], budget: u64, applied: &mut Applied) -> Result<(), CoreError> {
        loop {
            if let Some(data) = payloads.get(run.at).filter(|data| data.len() >= FAR && run.is_before_payload()) {
                let mut batch = self.with_lock(|core| std::mem::take(core.batch()));
                let decoded = batch.decode(data, &self.limits.wire, |_| ());
                self.with_lock(|core| *core.batch() = batch);
                decoded?;
                run.is_decoded = true;
            }
            if self.with_lock(|core| core.apply_slice(run, payloads, budget, SLICE, applied))? {
                return Ok(());
            }
            self.give_way();
        }
    }

    /// Drop the blocks of a publisher in slices, and return how many there were; for a caller that holds the writer's
    /// lock.
    pub(super) fn forget(&self, name: &str) -> Result<usize, CoreError> {
        let dropped = self.with_lock(|core| core.begin_forget(name))?;
        while !self.with_lock(|core| core.forget_more(name, SLICE)) {
            self.give_way();
        }
        Ok(dropped)
    }

    /// A copy of a publisher, and the names of media. Queries are answered while it is made. Called without the GIL.
    pub(super) fn frozen(&self, name: &str) -> Result<(Frozen, MediumNames), CoreError> {
        let _writer = self.writer();
        self.frozen_by_writer(name)
    }

    /// As `frozen`, for a caller that holds the writer's lock.
    pub(super) fn frozen_by_writer(&self, name: &str) -> Result<(Frozen, MediumNames), CoreError> {
        let found = self.with_lock(|core| core.registry.find(name).map(|id| (core.freeze(id), core.medium_names())));
        let (mut frozen, media) = found?;
        while self.with_lock(|core| core.freeze_more(&mut frozen)) {
            self.give_way();
        }
        frozen.complete();
        Ok((frozen, media))
    }

    #[inline(always)]
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Run with the lock if it is free, without releasing the GIL.
    #[inline(always)]
    pub(super) fn with_free_lock<R>(&self, work: impl FnOnce(&mut Core) -> R) -> Option<R> {
        self.try_lock().map(|mut state| work(&mut state.core))
    }

    /// Run with the lock and without the GIL.
    pub(super) fn without_gil<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Core) -> R + Send) -> R {
        py.detach(|| work(&mut self.lock().core))
    }

    /// Run short work with the lock; the GIL is released only if the lock is taken.
    pub(super) fn briefly<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Core) -> R + Send) -> R {
        match self.try_lock() {
            Some(mut state) => work(&mut state.core),
            None => self.without_gil(py, work),
        }
    }

    /// As `without_gil`, for work that changes the core.
    pub(super) fn changing_without_gil<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Core) -> R + Send) -> R {
        py.detach(|| {
            let _writer = self.writer();
            self.with_lock(work)
        })
    }

    /// As `briefly`, for work that changes the core.
    pub(super) fn changing<R: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Core) -> R + Send) -> R {
        let Some(_writer) = self.try_writer() else { return self.changing_without_gil(py, work) };
        self.briefly(py, work)
    }

    /// Put another core in place of this one.
    pub(super) fn replace(&self, core: Core) {
        let _writer = self.writer();
        // The old state is dropped after the lock was released.
        let old = std::mem::replace(&mut self.lock().core, core);
        drop(old);
    }

    pub(super) fn error(&self, py: Python<'_>, error: CoreError) -> PyErr {
        self.classes.error(py, error)
    }

    /// The Python object of a result, which is remembered.
    pub(super) fn applied(&self, py: Python<'_>, applied: &Applied) -> PyResult<Py<PyAny>> {
        let object = self.classes.applied(py, applied)?;
        if let Some(mut state) = self.try_lock() {
            let old = state.last_applied.replace((*applied, object.clone_ref(py)));
            drop(state);
            drop(old);
        }
        Ok(object)
    }

    /// Apply a short payload if the lock is free. The inner result is the Python object where it was the last one too.
    /// None if the lock is taken or the payload fails; a payload that fails changes nothing, so it can be applied again.
    #[inline(always)]
    pub(super) fn apply_short(
        &self,
        py: Python<'_>,
        publisher: &str,
        data: &[u8],
    ) -> Option<Result<Py<PyAny>, Applied>> {
        let mut applied = Applied::default();
        let _writer = self.try_writer()?;
        let mut state = self.try_lock()?;
        let mut run = Run::new(state.core.publisher_id(publisher)?);
        if !state.core.apply_slice(&mut run, &[data], u64::MAX, SLICE, &mut applied).ok()? {
            drop(state);
            // A payload that was begun cannot fail any more.
            let rest = py.detach(|| self.finish(&mut run, &[data], u64::MAX, &mut applied));
            debug_assert!(rest.is_ok());
            return Some(Err(applied));
        }
        match &state.last_applied {
            Some((known, object)) if *known == applied => Some(Ok(object.clone_ref(py))),
            _ => Some(Err(applied)),
        }
    }
}
