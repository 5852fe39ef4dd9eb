//! A batch: an array or a map around its events.

use super::decoder::Decoder;
use super::types::Batch;
use super::WireLimits;
use crate::ids::EngineHash;
use crate::reader::{Head, Parse, Reader, WireError};

impl Batch {
    /// Decode a payload into the buffers; after an error they hold nothing of use.
    ///
    /// `early` is called with the first hashes as soon as they are read, so that the caller can prefetch what it will
    /// look them up in while the rest of the payload is still being read.
    pub fn decode(&mut self, data: &[u8], limits: &WireLimits, early: impl Fn(EngineHash)) -> Parse<()> {
        self.clear();
        if data.len() > limits.max_payload_bytes || data.len() > u32::MAX as usize {
            return Err(WireError("the payload is over the limit"));
        }
        let reader = Reader::new(data, 0, limits.caps(data.len()));
        let mut decoder = Decoder { reader, limits, batch: self, early, last_large: 0 };
        let outcome = decoder.batch()?;
        if decoder.reader.at != data.len() {
            return Err(WireError("bytes after the batch"));
        }
        outcome
    }
}

impl<E: Fn(EngineHash)> Decoder<'_, '_, E> {
    fn batch(&mut self) -> Parse<Parse<()>> {
        match self.reader.opening(0)? {
            Head::Array(len) => {
                if len < 2 {
                    return Err(WireError("a batch has at least 2 elements"));
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
            _ => Err(WireError("a batch is an array or a map")),
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
            return Ok(Err(WireError("a batch has ts and events")));
        };
        Ok(check_ts(ts).and(events).and(check_rank(rank.unwrap_or(other_rank))))
    }

    fn events(&mut self) -> Parse<Parse<()>> {
        self.batch.clear();
        let head = self.reader.opening(1)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 1)?;
            return Ok(Err(WireError("events must be an array")));
        };
        let mut outcome =
            if len > self.limits.max_events { Err(WireError("too many events in a batch")) } else { Ok(()) };
        for _ in 0..len {
            let event = self.event()?;
            outcome = outcome.and(event);
        }
        Ok(outcome)
    }
}

fn check_ts(ts: Head) -> Parse<()> {
    match ts {
        Head::Int(_) | Head::Large(_) => Ok(()),
        Head::Double(value) if value.is_finite() => Ok(()),
        _ => Err(WireError("ts must be a finite number")),
    }
}

fn check_rank(rank: Head) -> Parse<()> {
    match rank {
        Head::Nil => Ok(()),
        Head::Int(0..) | Head::Large(_) => Ok(()),
        _ => Err(WireError("data_parallel_rank must be a non-negative integer or null")),
    }
}
