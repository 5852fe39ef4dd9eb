//! The native core of the kvsync index.
//!
//! `wire` and `reader` turn a payload into flat buffers, `publisher` applies them to `table` (residency by engine hash)
//! and `nodes` (blocks by own key, `holders` says whose), `walk` answers queries, `snapshot` saves and restores, and
//! `python` is the thin layer that Python sees. What everything means is written down once, beside the pure-Python
//! core (`kvsync_indexer/core`), which this one is tested against.

pub mod core;
pub mod groups;
pub mod hash;
pub mod holders;
pub mod json_tokens;
pub mod nodes;
pub mod publisher;
#[cfg(feature = "python")]
mod python;
pub mod reader;
pub mod reference;
pub mod segments;
pub mod snapshot;
pub mod table;
pub mod tags;
pub mod walk;
pub mod wire;
