//! The values of an event's fields. Every value is read to its end; an error of meaning is kept with the field.

use super::decoder::{Decoder, Field, Marks};
use super::types::{Extras, LoraId, WireHash};
use crate::ids::EngineHash;
use crate::reader::{Head, Parse, Span, WireError};

/// How many hashes of a payload are reported before its end is read.
const EARLY: usize = 16;
/// Arrays and maps inside each other in one extra key, as in `kvsync_events/canonical.py`.
const MAX_KEY_DEPTH: usize = 8;

impl<E: Fn(EngineHash)> Decoder<'_, '_, E> {
    pub(super) fn hashes(&mut self, marks: Marks) -> Parse<Field<()>> {
        self.batch.hashes.truncate(marks.hashes);
        self.batch.raw_hashes.truncate(marks.raw_hashes);
        let head = self.reader.opening(3)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil {
                Field::Null
            } else {
                Field::Bad(WireError("block_hashes must be an array"))
            });
        };
        let mut field =
            if len > self.limits.max_hashes { Field::Bad(WireError("too many block_hashes")) } else { Field::Some(()) };
        self.batch.hashes.reserve(len.min(self.reader.data.len() - self.reader.at));
        for _ in 0..len {
            if let Some(number) = self.reader.wide() {
                let hash = EngineHash(number);
                if self.batch.hashes.len() < EARLY {
                    (self.early)(hash);
                }
                self.batch.hashes.push(hash);
                continue;
            }
            match self.hash(4)? {
                Ok(Some(hash)) => {
                    if let Some(span) = hash.raw {
                        self.batch.raw_hashes.push((self.batch.hashes.len(), span));
                    }
                    self.batch.hashes.push(hash.hash);
                }
                Ok(None) => field = Field::Bad(WireError("block_hashes must hold integers or bytes")),
                Err(error) => field = Field::Bad(error),
            }
        }
        Ok(field)
    }

    /// An engine hash, or None for null.
    fn hash(&mut self, open: usize) -> Parse<Parse<Option<WireHash>>> {
        Ok(match self.reader.scalar(open)? {
            Head::Nil => Ok(None),
            Head::Int(value) => Ok(Some(WireHash { hash: EngineHash(value as u64), raw: None })),
            Head::Large(value) => Ok(Some(WireHash { hash: EngineHash(value), raw: None })),
            Head::Bytes(span) => {
                let bytes = span.of(self.reader.data);
                if bytes.is_empty() || bytes.len() > self.limits.max_hash_bytes {
                    Err(WireError("a hash of an impossible length"))
                } else {
                    Ok(Some(WireHash { hash: EngineHash::of_bytes(bytes), raw: Some(span) }))
                }
            }
            _ => Err(WireError("a hash must be an integer or bytes")),
        })
    }

    pub(super) fn parent(&mut self) -> Parse<Field<WireHash>> {
        if self.reader.peek()? == 0xc0 {
            self.reader.at += 1;
            return Ok(Field::Null);
        }
        if let Some(number) = self.reader.wide() {
            return Ok(Field::Some(WireHash { hash: EngineHash(number), raw: None }));
        }
        Ok(match self.hash(3)? {
            Ok(None) => Field::Null,
            Ok(Some(hash)) => Field::Some(hash),
            Err(error) => Field::Bad(error),
        })
    }

    pub(super) fn lora_id(&mut self) -> Parse<Field<LoraId>> {
        Ok(match self.integer()? {
            Field::Some(i64::MAX) => Field::Some(LoraId::Large(self.last_large)),
            Field::Some(id) => Field::Some(LoraId::Int(id)),
            Field::Null => Field::Null,
            Field::Bad(error) => Field::Bad(error),
        })
    }

    /// An integer or null. A value over `i64::MAX` is read as `i64::MAX`, which is out of the range of every field, and
    /// kept in `last_large`.
    #[inline]
    pub(super) fn integer(&mut self) -> Parse<Field<i64>> {
        let code = self.reader.peek()?;
        if code < 0x80 || code == 0xc0 {
            self.reader.at += 1;
            return Ok(if code == 0xc0 { Field::Null } else { Field::Some(code as i64) });
        }
        Ok(match self.reader.scalar(3)? {
            Head::Nil => Field::Null,
            Head::Int(value) => {
                self.last_large = value as u64;
                Field::Some(value)
            }
            Head::Large(value) => {
                self.last_large = value;
                Field::Some(i64::MAX)
            }
            _ => Field::Bad(WireError("a field must be an integer or null")),
        })
    }

    /// As `text`, with a short way for `GPU`, which it nearly always is.
    #[inline(always)]
    pub(super) fn medium(&mut self) -> Parse<Field<Span>> {
        if self.reader.literal(b"\xa3GPU") {
            return Ok(Field::Some(Span { start: self.reader.at as u32 - 3, len: 3 }));
        }
        Ok(self.text()?.0)
    }

    /// A text or null, and whether a map was in its place.
    #[inline]
    pub(super) fn text(&mut self) -> Parse<(Field<Span>, bool)> {
        if let Some(brief) = self.reader.brief() {
            return Ok((brief.map_or(Field::Null, Field::Some), false));
        }
        Ok(match self.reader.scalar(3)? {
            Head::Nil => (Field::Null, false),
            Head::Text(span) => (Field::Some(span), false),
            head => (Field::Bad(WireError("a field must be text or null")), matches!(head, Head::Map(_))),
        })
    }

    pub(super) fn extra_keys(&mut self) -> Parse<Field<Extras>> {
        let head = self.reader.head(3)?;
        let Head::Array(count) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil {
                Field::Null
            } else {
                Field::Bad(WireError("extra_keys must be an array or null"))
            });
        };
        let mut extras = Extras { start: self.reader.at as u32, count: count as u32, any: false };
        let mut bad = if count > self.limits.max_hashes { Some(WireError("too many extra_keys")) } else { None };
        for _ in 0..count {
            match self.reader.head(4)? {
                Head::Nil => {}
                Head::Array(parts) => {
                    extras.any = true;
                    if parts > self.limits.max_key_parts {
                        bad = Some(WireError("too many extra keys of one block"));
                    }
                    for _ in 0..parts {
                        if !self.key_part()? {
                            bad = Some(WireError("an extra key must be a scalar, a map or an array of those"));
                        }
                    }
                }
                head @ Head::Map(_) => {
                    extras.any = true;
                    if !self.opaque(head, 4, 1)? {
                        bad = Some(WireError("a map in an extra key is over the limits"));
                    }
                }
                head => {
                    self.reader.skip_rest(head, 4)?;
                    bad = Some(WireError("an entry of extra_keys must be an array, a map or null"));
                }
            }
        }
        Ok(bad.map_or(Field::Some(extras), Field::Bad))
    }

    fn key_part(&mut self) -> Parse<bool> {
        Ok(match self.reader.head(5)? {
            Head::Array(len) => {
                let mut good = len <= self.limits.max_key_parts;
                for _ in 0..len {
                    good &= match self.reader.head(6)? {
                        head @ Head::Map(_) => self.opaque(head, 6, 2)?,
                        head => {
                            self.reader.skip_rest(head, 6)?;
                            !matches!(head, Head::Array(_) | Head::Ext)
                        }
                    };
                }
                good
            }
            head => self.opaque(head, 5, 1)?,
        })
    }

    /// Check the rest of a value inside of a map, whose head was read: its sizes, its depth and the types in it.
    fn opaque(&mut self, head: Head, open: usize, depth: usize) -> Parse<bool> {
        let (Head::Array(len) | Head::Map(len)) = head else {
            return Ok(head != Head::Ext);
        };
        let mut good = len <= self.limits.max_key_parts && depth <= MAX_KEY_DEPTH;
        for _ in 0..len {
            if matches!(head, Head::Map(_)) {
                self.reader.key(open + 1)?;
            }
            let inner = self.reader.head(open + 1)?;
            good &= self.opaque(inner, open + 1, depth + 1)?;
        }
        Ok(good)
    }

    pub(super) fn lookahead(&mut self) -> Parse<Field<()>> {
        let head = self.reader.head(3)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil {
                Field::Null
            } else {
                Field::Bad(WireError("lookahead_token_ids must be an array or null"))
            });
        };
        let mut good = len <= self.limits.max_hashes;
        for _ in 0..len {
            match self.reader.head(4)? {
                Head::Array(inner) => {
                    for _ in 0..inner {
                        good &= matches!(self.reader.scalar(5)?, Head::Int(_) | Head::Large(_));
                    }
                }
                head => {
                    self.reader.skip_rest(head, 4)?;
                    good = false;
                }
            }
        }
        Ok(if good {
            Field::Some(())
        } else {
            Field::Bad(WireError("lookahead_token_ids must hold arrays of integers"))
        })
    }
}
