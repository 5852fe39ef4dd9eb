//! A core behind its lock.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use pyo3::prelude::*;

use super::classes::Classes;
use crate::core::Core;
use crate::error::CoreError;
use crate::limits::Limits;
use crate::publisher::Applied;

/// The compiled part of `kvsync_native.IndexCore`.
#[pyclass(frozen, subclass, module = "kvsync_native")]
pub(super) struct NativeIndex {
    state: Mutex<State>,
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
        NativeIndex { state, limits, classes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Put another core in place of this one.
    pub(super) fn replace(&self, core: Core) {
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
        let mut state = self.try_lock()?;
        let id = state.core.publisher_id(publisher)?;
        state.core.apply_to(id, data, &mut applied).ok()?;
        match &state.last_applied {
            Some((known, object)) if *known == applied => Some(Ok(object.clone_ref(py))),
            _ => Some(Err(applied)),
        }
    }
}
