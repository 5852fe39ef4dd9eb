//! The state of a decoder, and what its parts share.
//!
//! An error is either one of structure, after which nothing can be read, or one of meaning, after which everything
//! behind it is still read, because a payload with an error of structure anywhere is refused for that. A function that
//! may find both returns `Parse<Parse<T>>`: the outer error is one of structure.

use super::types::Batch;
use super::WireLimits;
use crate::ids::EngineHash;
use crate::reader::{Head, Parse, Reader, WireError};

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    Stored,
    Removed,
    Cleared,
    Unknown,
}

/// A field of an event: absent or null, present, or of a wrong type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Field<T> {
    #[default]
    Null,
    Some(T),
    Bad(WireError),
}

impl<T: Copy> Field<T> {
    #[inline(always)]
    pub(super) fn get(&self) -> Parse<Option<T>> {
        match *self {
            Field::Null => Ok(None),
            Field::Some(value) => Ok(Some(value)),
            Field::Bad(error) => Err(error),
        }
    }
}

/// The lengths of the batch's buffers at the start of an event.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub hashes: usize,
    pub raw_hashes: usize,
    pub tokens: usize,
}

pub(super) struct Decoder<'a, 'b, E> {
    pub reader: Reader<'a>,
    pub limits: &'b WireLimits,
    pub batch: &'b mut Batch,
    /// Called with the first hashes of a payload as soon as they are read.
    pub early: E,
    /// The last integer that did not fit in an i64.
    pub last_large: u64,
}

impl<E: Fn(EngineHash)> Decoder<'_, '_, E> {
    pub(super) fn marks(&self) -> Marks {
        Marks {
            hashes: self.batch.hashes.len(),
            raw_hashes: self.batch.raw_hashes.len(),
            tokens: self.batch.tokens.len(),
        }
    }

    /// Forget what was read since the marks were taken.
    pub(super) fn rewind(&mut self, marks: Marks) {
        self.batch.hashes.truncate(marks.hashes);
        self.batch.raw_hashes.truncate(marks.raw_hashes);
        self.batch.tokens.truncate(marks.tokens);
    }

    /// The tag of an event; None if it is not text.
    #[inline]
    pub(super) fn tag(&mut self) -> Parse<Option<Tag>> {
        if self.reader.literal(b"\xabBlockStored") {
            return Ok(Some(Tag::Stored));
        }
        if self.reader.literal(b"\xacBlockRemoved") {
            return Ok(Some(Tag::Removed));
        }
        let Head::Text(span) = self.reader.scalar(3)? else {
            return Ok(None);
        };
        Ok(Some(match span.of(self.reader.data) {
            b"BlockStored" => Tag::Stored,
            b"BlockRemoved" => Tag::Removed,
            b"AllBlocksCleared" => Tag::Cleared,
            _ => Tag::Unknown,
        }))
    }
}
