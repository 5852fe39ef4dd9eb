//! The native core of the kvsync index.
//!
//! The semantics are documented once, in the pure-Python core (`kvsync_indexer/core`), against which this one is tested.
//! The layers, from the bottom:
//!
//! - `ids`, `hash`, `canonical`, `limits`, `error`: types and functions that all others use.
//! - `reader` and `wire`: from the bytes of a payload to events in flat buffers.
//! - `tags`, `segments`: a hash table. `table` is residency by engine hash; `nodes` are blocks by prefix key, and
//!   `holders` the sets of those who hold them. `media` and `groups` say how residency is read.
//! - `publisher`: what events do to one publisher; `shared` is what all publishers of a core use.
//! - `registry` (publishers by name) and `matching` (walks along chains of keys).
//! - `core`: the operations on the whole index. `frozen` copies a publisher, `snapshot` saves and restores the state,
//!   and `python` makes the index a Python class.
#![warn(missing_docs)]

mod canonical;
pub mod core;
pub mod error;
mod frozen;
mod groups;
pub mod hash;
mod holders;
mod identity;
pub mod ids;
#[cfg(feature = "python")]
mod json_tokens;
pub mod limits;
pub mod matching;
mod media;
mod nodes;
pub mod publisher;
#[cfg(feature = "python")]
mod python;
mod reader;
pub mod reference;
mod registry;
mod segments;
mod shared;
mod snapshot;
mod table;
mod tags;
pub mod wire;
