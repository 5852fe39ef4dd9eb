//! The token ids of an event, most of a payload's bytes.

use super::decoder::{Decoder, Field, Marks};
use crate::ids::EngineHash;
use crate::reader::{Head, Parse, WireError};

impl<E: Fn(EngineHash)> Decoder<'_, '_, E> {
    /// Some(true) if all elements are token ids; Some(false) if the array is well-formed and some are not.
    pub(super) fn tokens(&mut self, marks: Marks) -> Parse<Field<bool>> {
        self.batch.tokens.truncate(marks.tokens);
        let head = self.reader.opening(3)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil {
                Field::Null
            } else {
                Field::Bad(WireError("token_ids must be an array"))
            });
        };
        let mut bad = if len > self.limits.max_tokens { Some(WireError("too many token_ids")) } else { None };
        let mut plain = true;
        self.batch.tokens.reserve(len.min(self.reader.data.len() - self.reader.at));
        let mut left = len;
        while left > 0 {
            left -= self.plain_tokens(left);
            if left == 0 {
                break;
            }
            left -= 1;
            match self.reader.head(4)? {
                Head::Int(value) if (0..=u32::MAX as i64).contains(&value) => {
                    self.batch.tokens.push((value as u32).to_le())
                }
                Head::Int(_) | Head::Large(_) | Head::Text(_) => plain = false,
                Head::Array(inner) => {
                    plain = false;
                    let mut pair = inner == 2;
                    for _ in 0..inner {
                        pair &= matches!(self.reader.scalar(5)?, Head::Int(_) | Head::Large(_));
                    }
                    if !pair {
                        bad = Some(WireError("token_ids must hold integers or pairs of integers"));
                    }
                }
                head => {
                    self.reader.skip_rest(head, 4)?;
                    bad = Some(WireError("token_ids must hold integers"));
                }
            }
        }
        Ok(bad.map_or(Field::Some(plain), Field::Bad))
    }

    /// Read token ids in their usual encodings, `most` at most, and return how many there were. This is the hot loop.
    #[inline]
    fn plain_tokens(&mut self, most: usize) -> usize {
        let data = self.reader.data;
        let mut at = self.reader.at;
        let mut count = 0;
        let tokens = &mut self.batch.tokens;
        let most = most.min(tokens.capacity() - tokens.len());
        // Sixteen ids of five bytes each at a time, as long as all have that encoding: ids of large vocabularies do.
        while count + 16 <= most {
            let Some(group) = data.get(at..at + 80) else { break };
            let mut ids = [0u32; 16];
            let mut same = true;
            for (id, bytes) in ids.iter_mut().zip(group.chunks_exact(5)) {
                same &= bytes[0] == 0xce;
                *id = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]).to_le();
            }
            if !same {
                break;
            }
            tokens.extend_from_slice(&ids);
            at += 80;
            count += 16;
        }
        while count < most && at + 5 <= data.len() {
            let code = data[at];
            let (value, width) = match code {
                0xce => (u32::from_be_bytes(data[at + 1..at + 5].try_into().unwrap()), 5),
                0..=0x7f => (code as u32, 1),
                0xcd => (u16::from_be_bytes(data[at + 1..at + 3].try_into().unwrap()) as u32, 3),
                0xcc => (data[at + 1] as u32, 2),
                _ => break,
            };
            tokens.push(value.to_le());
            at += width;
            count += 1;
        }
        self.reader.at = at;
        count
    }
}
