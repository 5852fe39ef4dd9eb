//! `extra_keys`, read again when an event is applied: its blocks' own keys in canonical form.

use super::{Extras, WireLimits};
use crate::hash::{push_double, push_int, push_list, push_sized};
use crate::reader::{Head, Reader};

/// One entry of `extra_keys` at a time: its cache salt and its own keys in canonical form (`split_extra` of keys.py).
pub struct ExtraReader<'a> {
    reader: Reader<'a>,
}

impl<'a> ExtraReader<'a> {
    pub fn new(data: &'a [u8], extras: &Extras, limits: &WireLimits) -> Self {
        ExtraReader { reader: Reader::new(data, extras.start as usize, limits.caps(data.len())) }
    }

    /// The salt of the next entry; its canonical own keys go to `out`, empty if it has none.
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
            Ok(Head::Nil) => out.push(b'N'),
            Ok(Head::Bool(value)) => out.push(if value { b'T' } else { b'F' }),
            Ok(Head::Int(value)) => push_int(out, value as i128),
            Ok(Head::Large(value)) => push_int(out, value as i128),
            Ok(Head::Double(value)) => push_double(out, value),
            Ok(Head::Text(span)) => push_sized(out, b'S', span.of(self.reader.data)),
            Ok(Head::Bytes(span)) => push_sized(out, b'B', span.of(self.reader.data)),
            Ok(Head::Array(len)) => {
                push_list(out, len);
                (0..len).for_each(|_| self.canonical(out));
            }
            _ => {}
        }
    }
}
