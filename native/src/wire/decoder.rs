//! A batch: an array or a map around its events.
//!
//! An error is one of structure, after which nothing can be read, or one of meaning, after which everything behind it
//! is still read: a payload that cannot be read is told apart from one that means nothing.

use super::event::Tag;
use super::{Batch, WireLimits};
use crate::reader::{Head, Parse, Reader};

/// A field: absent or null, there, or of a wrong type.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Field<T> {
    #[default]
    Null,
    Some(T),
    Bad(&'static str),
}

impl<T: Copy> Field<T> {
    #[inline(always)]
    pub(super) fn get(&self) -> Parse<Option<T>> {
        match *self {
            Field::Null => Ok(None),
            Field::Some(value) => Ok(Some(value)),
            Field::Bad(reason) => Err(reason),
        }
    }
}

/// Lengths of the batch's buffers where an event starts.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub hashes: usize,
    pub spelled: usize,
    pub tokens: usize,
}

pub(super) struct Decoder<'a, 'b, E> {
    pub reader: Reader<'a>,
    pub limits: &'b WireLimits,
    pub batch: &'b mut Batch,
    pub early: E,
    pub last_large: u64,
}

impl<E: Fn(u64)> Decoder<'_, '_, E> {
    /// The outer error is one of structure, the inner one of meaning.
    pub(super) fn batch(&mut self) -> Parse<Parse<()>> {
        match self.reader.opening(0)? {
            Head::Array(len) => {
                if len < 2 {
                    return Err("a batch has at least 2 elements");
                }
                let ts = self.reader.plain(1)?;
                let events = self.events()?;
                let rank = if len > 2 { self.reader.plain(1)? } else { Head::Nil };
                for _ in 3..len {
                    self.reader.skip(1)?;
                }
                Ok(check_ts(ts).and(events).and(check_rank(rank)))
            }
            Head::Map(len) => self.batch_map(len),
            _ => Err("a batch is an array or a map"),
        }
    }

    fn batch_map(&mut self, len: usize) -> Parse<Parse<()>> {
        let (mut ts, mut events, mut rank, mut other_rank) = (None, None, None, Head::Nil);
        for _ in 0..len {
            let name = self.reader.key(1)?.map(|span| span.of(self.reader.data));
            match name {
                Some(b"ts") => ts = Some(self.reader.scalar(1)?),
                Some(b"events") => events = Some(self.events()?),
                Some(b"data_parallel_rank") => rank = Some(self.reader.scalar(1)?),
                Some(b"attn_dp_rank") => other_rank = self.reader.scalar(1)?,
                _ => self.reader.skip(1)?,
            }
        }
        let (Some(ts), Some(events)) = (ts, events) else {
            return Ok(Err("a batch has ts and events"));
        };
        Ok(check_ts(ts).and(events).and(check_rank(rank.unwrap_or(other_rank))))
    }

    fn events(&mut self) -> Parse<Parse<()>> {
        self.batch.clear();
        let head = self.reader.opening(1)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 1)?;
            return Ok(Err("events must be an array"));
        };
        let mut outcome = if len > self.limits.max_events { Err("too many events in a batch") } else { Ok(()) };
        for _ in 0..len {
            let event = self.event()?;
            outcome = outcome.and(event);
        }
        Ok(outcome)
    }

    pub(super) fn marks(&self) -> Marks {
        Marks { hashes: self.batch.hashes.len(), spelled: self.batch.spelled.len(), tokens: self.batch.tokens.len() }
    }

    pub(super) fn rewind(&mut self, marks: Marks) {
        self.batch.hashes.truncate(marks.hashes);
        self.batch.spelled.truncate(marks.spelled);
        self.batch.tokens.truncate(marks.tokens);
    }

    /// The tag of an event, None if it is no text.
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

fn check_ts(ts: Head) -> Parse<()> {
    match ts {
        Head::Int(_) | Head::Large(_) => Ok(()),
        Head::Double(value) if value.is_finite() => Ok(()),
        _ => Err("ts must be a finite number"),
    }
}

fn check_rank(rank: Head) -> Parse<()> {
    match rank {
        Head::Nil => Ok(()),
        Head::Int(0..) | Head::Large(_) => Ok(()),
        _ => Err("data_parallel_rank must be a non-negative integer or null"),
    }
}
