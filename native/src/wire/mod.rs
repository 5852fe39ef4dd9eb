//! From payload bytes to events, in buffers that are used again: nothing is allocated per block, and nothing is applied
//! before the whole payload was checked.
//!
//! What is accepted is exactly what `kvsync_events.decode_batch` accepts; its docstring gives the reasons. `decoder`
//! holds the state of a decoder, `fields` and `tokens` read the values of an event, `event` an event in either of its
//! forms, and `batch` the batch around the events. `extras` reads `extra_keys` again when an event is applied.

mod batch;
mod decoder;
mod event;
mod extras;
mod fields;
mod limits;
mod tokens;
mod types;

pub use crate::reader::WireError;
pub(crate) use extras::ExtraReader;
pub use limits::WireLimits;
pub(crate) use types::WireHash;
pub use types::{Batch, Event, Extras, LoraId, Part, Stored};
