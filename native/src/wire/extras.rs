//! `extra_keys`, read a second time when an event is applied: the extra keys of each block in canonical form.

use std::collections::BTreeMap;

use super::{Extras, WireLimits};
use crate::canonical::{push_bool, push_bytes, push_double, push_int, push_list, push_map, push_nil, push_text};
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
        let parts = match self.reader.head(4) {
            Ok(Head::Array(parts)) => parts,
            Ok(Head::Map(len)) => {
                self.opaque_key(out, len);
                return None;
            }
            _ => return None,
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
            Ok(Head::Map(len)) => self.opaque_key(out, len),
            _ => {}
        }
    }

    /// A map as a key of its own: the bytes that `kvsync_events.canonical` gives for it.
    fn opaque_key(&mut self, out: &mut Vec<u8>, len: usize) {
        let mut bytes = Vec::new();
        self.map(&mut bytes, len);
        push_bytes(out, &bytes);
    }

    /// The canonical entries of a map, sorted by key; of entries with the same key, the last one counts.
    fn map(&mut self, out: &mut Vec<u8>, len: usize) {
        let mut entries = BTreeMap::new();
        for _ in 0..len {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            self.inner(&mut key);
            self.inner(&mut value);
            entries.insert(key, value);
        }
        push_map(out, entries.len());
        entries.iter().flat_map(|(key, value)| [key, value]).for_each(|part| out.extend_from_slice(part));
    }

    /// A value inside of a map.
    fn inner(&mut self, out: &mut Vec<u8>) {
        let start = self.reader.at;
        match self.reader.head(5) {
            Ok(Head::Map(len)) => self.map(out, len),
            Ok(Head::Array(len)) => {
                push_list(out, len);
                (0..len).for_each(|_| self.inner(out));
            }
            _ => {
                self.reader.at = start;
                self.canonical(out);
            }
        }
    }
}
