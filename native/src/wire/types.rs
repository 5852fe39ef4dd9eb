//! What a decoded payload is: events whose hashes and tokens are parts of the buffers of their batch.

use std::fmt;

use crate::ids::{EngineHash, GroupId};
use crate::reader::Span;

/// An engine hash as it came: its identity, and where its bytes are if it came as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireHash {
    /// The identity of the hash.
    pub hash: EngineHash,
    /// The hash as sent, if it was sent as bytes.
    pub raw: Option<Span>,
}

/// A LoRA adapter's number: an integer of 64 bits of either sign, of which only the digits matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraId {
    /// Up to `i64::MAX`.
    Int(i64),
    /// Over `i64::MAX`.
    Large(u64),
}

impl fmt::Display for LoraId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoraId::Int(id) => id.fmt(out),
            LoraId::Large(id) => id.fmt(out),
        }
    }
}

/// Where the elements of an `extra_keys` array are.
#[derive(Clone, Copy, Debug)]
pub struct Extras {
    /// Offset of the first element in the payload.
    pub start: u32,
    /// Number of elements.
    pub count: u32,
    /// Whether any element is not null.
    pub any: bool,
}

/// A range of a batch's buffer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// The first position.
    pub start: u32,
    /// The position after the last.
    pub end: u32,
}

impl Part {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Part { start: start as u32, end: end as u32 }
    }

    /// The elements of the range.
    #[inline(always)]
    pub fn of<'a, T>(&self, buffer: &'a [T]) -> &'a [T] {
        &buffer[self.start as usize..self.end as usize]
    }

    /// The number of elements.
    #[inline(always)]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there is no element.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// A `BlockStored` event. Fields without a comment are those of the wire.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Stored {
    pub hashes: Part,
    /// The hashes that came as bytes, as a part of `Batch::raw_hashes`.
    pub raw_hashes: Part,
    pub tokens: Part,
    pub parent: Option<WireHash>,
    pub block_size: u32,
    pub lora_id: Option<LoraId>,
    pub lora_name: Option<Span>,
    pub medium: Option<Span>,
    pub extras: Option<Extras>,
    /// SGLang's cache salt, where no extra keys say what the first block's keys are.
    pub salt: Option<Span>,
    pub group: GroupId,
    pub kind: Option<Span>,
    pub window: Option<u64>,
}

/// An event. It consists of plain values only, so that a buffer of events is emptied by setting its length.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// `BlockStored`
    Stored(Stored),
    /// `BlockRemoved`
    Removed {
        /// Its hashes, as a part of `Batch::hashes`.
        hashes: Part,
        /// The tier, as sent.
        medium: Option<Span>,
        /// The cache group.
        group: GroupId,
    },
    /// `AllBlocksCleared`
    Cleared {
        /// The only tier that was cleared, as sent.
        medium: Option<Span>,
    },
}

/// The buffers of one decoded payload.
#[derive(Default)]
pub struct Batch {
    /// The events, in order.
    pub events: Vec<Event>,
    /// The hashes of all events.
    pub hashes: Vec<EngineHash>,
    /// Hashes that came as bytes: the position in `hashes`, ascending, and the bytes as sent.
    pub raw_hashes: Vec<(usize, Span)>,
    /// The token ids of all events, each little-endian in memory.
    pub tokens: Vec<u32>,
    /// Events of unknown tags, which are left out.
    pub unknown_events: usize,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.hashes.clear();
        self.raw_hashes.clear();
        self.tokens.clear();
        self.unknown_events = 0;
    }

    /// Free what an unusually large payload made the buffers grow to, beyond `keep` token ids.
    pub fn shrink(&mut self, keep: usize) {
        if self.tokens.capacity() > keep {
            self.clear();
            self.tokens.shrink_to(keep);
            self.hashes.shrink_to(keep / 16);
            self.events.shrink_to(keep / 16);
        }
    }
}
