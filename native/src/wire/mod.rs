//! Payload to events, into buffers that are used again: no allocation a block, nothing applied before all is checked.
//!
//! What is accepted is what `kvsync_events.decode_batch` accepts; its docstring says why. `decoder` reads a batch,
//! `event` an event by its form, `fields` the values, `extras` what is read again when an event is applied.

mod decoder;
mod event;
mod extras;
mod fields;
mod limits;

pub use extras::ExtraReader;
pub use limits::WireLimits;

use crate::reader::{Parse, Reader, Span};

/// An engine hash: the 64 bits that count, and where its bytes are if it came as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireHash {
    pub key: u64,
    pub spelled: Option<Span>,
}

/// An integer of the wire, of which nothing but the digits matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoraId {
    Int(i64),
    Large(u64),
}

impl std::fmt::Display for LoraId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoraId::Int(id) => id.fmt(out),
            LoraId::Large(id) => id.fmt(out),
        }
    }
}

/// `extra_keys`: where the array's elements start, how many there are, and whether any is not null.
#[derive(Clone, Copy, Debug)]
pub struct Extras {
    pub start: u32,
    pub count: u32,
    pub any: bool,
}

/// Where an event's elements lie in a buffer of its batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    pub start: u32,
    pub end: u32,
}

impl Part {
    fn new(start: usize, end: usize) -> Self {
        Part { start: start as u32, end: end as u32 }
    }

    #[inline(always)]
    pub fn of<'a, T>(&self, buffer: &'a [T]) -> &'a [T] {
        &buffer[self.start as usize..self.end as usize]
    }

    #[inline(always)]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// Fields of a stored event; hashes and tokens are parts of the batch's buffers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stored {
    pub hashes: Part,
    pub spelled: Part,
    pub tokens: Part,
    pub parent: Option<WireHash>,
    pub block_size: u32,
    /// Its digits: an id may have 64 bits of either sign.
    pub lora_id: Option<LoraId>,
    pub lora_name: Option<Span>,
    pub medium: Option<Span>,
    pub extras: Option<Extras>,
    /// SGLang's cache salt, where nothing else says what the first block's keys are.
    pub salt: Option<Span>,
    pub group: i32,
    pub kind: Option<Span>,
    pub window: Option<u64>,
}

/// Plain values, so that a buffer of them is emptied by setting its length.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Copy, Debug)]
pub enum Event {
    Stored(Stored),
    Removed { hashes: Part, medium: Option<Span>, group: i32 },
    Cleared { medium: Option<Span> },
}

/// The buffers of one decoded payload.
#[derive(Default)]
pub struct Batch {
    pub events: Vec<Event>,
    pub hashes: Vec<u64>,
    /// (position in `hashes`, bytes as sent), ascending.
    pub spelled: Vec<(usize, Span)>,
    pub tokens: Vec<u32>,
    pub unknown_events: usize,
}

impl Batch {
    fn clear(&mut self) {
        self.events.clear();
        self.hashes.clear();
        self.spelled.clear();
        self.tokens.clear();
        self.unknown_events = 0;
    }

    /// Decode a payload into the buffers; on an error they hold nothing of use. `early` hears of the first hashes as
    /// soon as they are read, long before the payload is whole: whoever looks them up next can ask for the memory.
    pub fn decode(&mut self, data: &[u8], limits: &WireLimits, early: impl Fn(u64)) -> Parse<()> {
        self.clear();
        if data.len() > limits.max_payload_bytes || data.len() > u32::MAX as usize {
            return Err("the payload is over the limit");
        }
        let reader = Reader::new(data, 0, limits.caps(data.len()));
        let mut decoder = decoder::Decoder { reader, limits, batch: self, early, last_large: 0 };
        let outcome = decoder.batch()?;
        if decoder.reader.at != data.len() {
            return Err("bytes after the batch");
        }
        outcome
    }

    /// Give back what an unusually large payload made the buffers grow to.
    pub fn shrink(&mut self, keep: usize) {
        if self.tokens.capacity() > keep {
            self.clear();
            self.tokens.shrink_to(keep);
            self.hashes.shrink_to(keep / 16);
            self.events.shrink_to(keep / 16);
        }
    }
}
