//! `extra_keys`, read a second time when an event is applied: the extra keys of each block in canonical form.

use super::{Extras, WireLimits};
use crate::canonical::{push_bool, push_bytes, push_double, push_int, push_list, push_nil, push_text};
use crate::reader::{Head, Reader};

/// The entries of one `extra_keys` array in order, each split as `split_extra` in `kvsync_indexer/core/keys.py` does.
pub(crate) struct ExtraReader<'a> {
    reader: Reader<'a>,
}

impl<'a> ExtraReader<'a> {
    pub fn new(data: &'a [u8], extras: &Extras, limits: &WireLimits) -> Self {
        ExtraReader { reader: Reader::new(data, extras.start as usize, limits.caps(data.len())) }
    }

    /// The cache salt of the next entry. Its other keys go to `out` in canonical form; `out` is empty if it has none.
    pub fn next(&mut self, lora: Option<&str>, first: bool, out: &mut Vec<u8>) -> Option<&'a str> {
        out.clear();
        let Ok(Head::Array(parts)) = self.reader.head(4) else {
            return None;
        };
        let start = self.reader.at;
        let data = self.reader.data;
        let mut drop_first = false;
        let mut last_text = None;
        for part in 0..parts {
            let Ok(head) = self.reader.scalar(5) else {
                return None;
            };
            if let Head::Text(span) = head {
                if part == 0 && lora.is_some_and(|lora| lora.as_bytes() == span.of(data)) {
                    drop_first = true;
                } else if first {
                    last_text = Some((part, span));
                }
            }
        }
        self.reader.at = start;
        for part in 0..parts {
            let left_out = (part == 0 && drop_first) || last_text.is_some_and(|(at, _)| at == part);
            if left_out {
                let _ = self.reader.skip(5);
            } else {
                self.canonical(out);
            }
        }
        last_text.map(|(_, span)| span.text(data))
    }

    fn canonical(&mut self, out: &mut Vec<u8>) {
        match self.reader.head(5) {
            Ok(Head::Nil) => push_nil(out),
            Ok(Head::Bool(value)) => push_bool(out, value),
            Ok(Head::Int(value)) => push_int(out, value as i128),
            Ok(Head::Large(value)) => push_int(out, value as i128),
            Ok(Head::Double(value)) => push_double(out, value),
            Ok(Head::Text(span)) => push_text(out, span.of(self.reader.data)),
            Ok(Head::Bytes(span)) => push_bytes(out, span.of(self.reader.data)),
            Ok(Head::Array(len)) => {
                push_list(out, len);
                (0..len).for_each(|_| self.canonical(out));
            }
            _ => {}
        }
    }
}
