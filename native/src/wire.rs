//! Payload to events, into buffers that are used again: no allocation a block, nothing applied before all is checked.
//!
//! What is accepted is what `kvsync_events.decode_batch` accepts; its docstring says why. An error in a field is kept
//! with the field, because a map may name a field twice and then the last one counts.

use crate::reader::{Caps, Head, Parse, Reader, Span};

/// `kvsync_events.Limits`.
#[derive(Clone, Copy, Debug)]
pub struct WireLimits {
    pub max_payload_bytes: usize,
    pub max_events: usize,
    pub max_hashes: usize,
    pub max_tokens: usize,
    pub max_hash_bytes: usize,
    pub max_text_bytes: usize,
    pub max_block_size: usize,
    pub max_key_parts: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        WireLimits {
            max_payload_bytes: 64 << 20,
            max_events: 65_536,
            max_hashes: 262_144,
            max_tokens: 2 << 20,
            max_hash_bytes: 64,
            max_text_bytes: 65_536,
            max_block_size: 1 << 20,
            max_key_parts: 1024,
        }
    }
}

impl WireLimits {
    pub fn caps(&self, size: usize) -> Caps {
        Caps {
            array: size.min(self.max_tokens.max(self.max_hashes).max(self.max_events)),
            map: size.min(4096),
            raw: size.min(self.max_text_bytes),
        }
    }
}

/// An engine hash: the 64 bits that count, and where its bytes are if it came as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireHash {
    pub key: u64,
    pub spelled: Option<Span>,
}

/// A field: absent or null, there, or of a wrong type.
#[derive(Clone, Copy, Debug, Default)]
pub enum Field<T> {
    #[default]
    Null,
    Some(T),
    Bad(&'static str),
}

impl<T: Copy> Field<T> {
    fn get(&self) -> Parse<Option<T>> {
        match *self {
            Field::Null => Ok(None),
            Field::Some(value) => Ok(Some(value)),
            Field::Bad(reason) => Err(reason),
        }
    }
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Stored,
    Removed,
    Cleared,
    Unknown,
}

/// Fields of a stored event; hashes and tokens are ranges of the batch's buffers.
#[derive(Clone, Debug)]
pub struct Stored {
    pub hashes: std::ops::Range<usize>,
    pub spelled: std::ops::Range<usize>,
    pub tokens: std::ops::Range<usize>,
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

#[derive(Clone, Debug)]
pub enum Event {
    Stored(Box<Stored>),
    Removed { hashes: std::ops::Range<usize>, medium: Option<Span>, group: i32 },
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
    /// Boxes of events gone by, to be filled again.
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Stored>>,
}

#[derive(Default)]
struct Fields {
    hashes: Field<()>,
    parent: Field<WireHash>,
    tokens: Field<bool>,
    block_size: Field<i64>,
    lora_id: Field<LoraId>,
    medium: Field<Span>,
    lora_name: Field<Span>,
    extra_keys: Field<Extras>,
    group: Field<i64>,
    kind: Field<Span>,
    window: Field<i64>,
    locality: Field<Span>,
    ownership: Field<Span>,
    session: Field<Span>,
    lookahead: Field<()>,
    cache_salt: Field<Span>,
    lora_is_map: bool,
}

/// Names in wire order; the position is the field's number.
const STORED_NAMES: [&[u8]; 16] = [
    b"block_hashes",
    b"parent_block_hash",
    b"token_ids",
    b"block_size",
    b"lora_id",
    b"medium",
    b"lora_name",
    b"extra_keys",
    b"group_idx",
    b"kv_cache_spec_kind",
    b"kv_cache_spec_sliding_window",
    b"locality",
    b"ownership",
    b"session_id",
    b"lookahead_token_ids",
    b"cache_salt",
];
/// `cache_salt` has no place in the array form.
const STORED_PLACES: [usize; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
const REMOVED_PLACES: [usize; 5] = [0, 5, 8, 11, 12];
const CLEARED_PLACES: [usize; 1] = [5];

impl Batch {
    fn clear(&mut self) {
        for event in self.events.drain(..) {
            if let Event::Stored(stored) = event {
                self.spare.push(stored);
            }
        }
        self.spare.truncate(64);
        self.hashes.clear();
        self.spelled.clear();
        self.tokens.clear();
        self.unknown_events = 0;
    }

    /// Decode a payload into the buffers; on an error they hold nothing of use.
    pub fn decode(&mut self, data: &[u8], limits: &WireLimits) -> Parse<()> {
        self.clear();
        if data.len() > limits.max_payload_bytes || data.len() > u32::MAX as usize {
            return Err("the payload is over the limit");
        }
        let reader = Reader::new(data, 0, limits.caps(data.len()));
        let mut decoder = Decoder { reader, limits, batch: self, last_large: 0 };
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

struct Decoder<'a, 'b> {
    reader: Reader<'a>,
    limits: &'b WireLimits,
    batch: &'b mut Batch,
    last_large: u64,
}

impl Decoder<'_, '_> {
    /// The outer error is one of structure, the inner one of meaning.
    fn batch(&mut self) -> Parse<Parse<()>> {
        match self.reader.head(0)? {
            Head::Array(len) => {
                if len < 2 {
                    return Err("a batch has at least 2 elements");
                }
                let ts = self.reader.scalar(1)?;
                let events = self.events()?;
                let rank = if len > 2 { self.reader.scalar(1)? } else { Head::Nil };
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
        let head = self.reader.head(1)?;
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

    fn event(&mut self) -> Parse<Parse<()>> {
        let marks = (self.batch.hashes.len(), self.batch.spelled.len(), self.batch.tokens.len());
        let mut fields = Fields::default();
        let tag = match self.reader.head(2)? {
            Head::Array(len) => self.event_array(len, &mut fields, marks)?,
            Head::Map(len) => self.event_map(len, &mut fields, marks)?,
            _ => return Ok(Err("an event is an array or a map")),
        };
        let done = match tag {
            None => Err("the tag of an event must be a string"),
            Some(Tag::Unknown) => {
                self.batch.unknown_events += 1;
                self.rewind(marks);
                Ok(())
            }
            Some(tag) => self.finish(tag, &fields, marks),
        };
        Ok(done)
    }

    fn rewind(&mut self, marks: (usize, usize, usize)) {
        self.batch.hashes.truncate(marks.0);
        self.batch.spelled.truncate(marks.1);
        self.batch.tokens.truncate(marks.2);
    }

    fn event_array(&mut self, len: usize, fields: &mut Fields, marks: (usize, usize, usize)) -> Parse<Option<Tag>> {
        if len == 0 {
            return Ok(None);
        }
        let tag = tag_of(self.reader.scalar(3)?, self.reader.data);
        let places: &[usize] = match tag {
            Some(Tag::Stored) => &STORED_PLACES,
            Some(Tag::Removed) => &REMOVED_PLACES,
            Some(Tag::Cleared) => &CLEARED_PLACES,
            _ => &[],
        };
        for place in 0..len - 1 {
            match places.get(place) {
                Some(&number) => self.field(number, fields, marks)?,
                None => self.reader.skip(3)?,
            }
        }
        if fields.lora_is_map {
            fields.lora_name = Field::Null; // SGLang has a map of metadata in this place
        }
        Ok(tag)
    }

    fn event_map(&mut self, len: usize, fields: &mut Fields, marks: (usize, usize, usize)) -> Parse<Option<Tag>> {
        let mut tag = None;
        let mut expected = 0;
        for _ in 0..len {
            let Some(span) = self.reader.key(3)? else {
                self.reader.skip(3)?;
                continue;
            };
            let name = span.of(self.reader.data);
            if name == b"type" {
                tag = tag_of(self.reader.scalar(3)?, self.reader.data);
                continue;
            }
            // Fields come in wire order nearly always: try from the last one on, then from the start.
            let number = (expected..16).chain(0..expected).find(|&number| STORED_NAMES[number] == name);
            match number {
                Some(number) => {
                    expected = (number + 1) & 15;
                    self.field(number, fields, marks)?;
                }
                None => self.reader.skip(3)?,
            }
        }
        Ok(tag)
    }

    #[inline]
    fn field(&mut self, number: usize, fields: &mut Fields, marks: (usize, usize, usize)) -> Parse<()> {
        match number {
            0 => fields.hashes = self.hashes(marks)?,
            1 => fields.parent = self.parent()?,
            2 => fields.tokens = self.tokens(marks.2)?,
            3 => fields.block_size = self.integer()?,
            4 => fields.lora_id = self.lora_id()?,
            5 => fields.medium = self.text()?.0,
            6 => (fields.lora_name, fields.lora_is_map) = self.text()?,
            7 => fields.extra_keys = self.extra_keys()?,
            8 => fields.group = self.integer()?,
            9 => fields.kind = self.text()?.0,
            10 => fields.window = self.integer()?,
            11 => fields.locality = self.text()?.0,
            12 => fields.ownership = self.text()?.0,
            13 => fields.session = self.text()?.0,
            14 => fields.lookahead = self.lookahead()?,
            _ => fields.cache_salt = self.text()?.0,
        }
        Ok(())
    }

    fn finish(&mut self, tag: Tag, fields: &Fields, marks: (usize, usize, usize)) -> Parse<()> {
        let medium = fields.medium.get()?;
        if tag == Tag::Cleared {
            self.rewind(marks);
            self.batch.events.push(Event::Cleared { medium });
            return Ok(());
        }
        if fields.hashes.get()?.is_none() {
            return Err("block_hashes must be an array");
        }
        fields.locality.get()?;
        fields.ownership.get()?;
        let group = ranged(&fields.group, 65_535)?.map_or(-1, |group| group as i32);
        let hashes = marks.0..self.batch.hashes.len();
        if tag == Tag::Removed {
            self.batch.tokens.truncate(marks.2);
            self.batch.events.push(Event::Removed { hashes, medium, group });
            return Ok(());
        }
        let parent = fields.parent.get()?;
        if fields.tokens.get()? == Some(false) {
            self.batch.tokens.truncate(marks.2); // readable, but no plain token ids
        }
        let block_size =
            ranged(&fields.block_size, self.limits.max_block_size as i64)?.ok_or("block_size is missing")?;
        let extras = fields.extra_keys.get()?;
        let salt = fields.cache_salt.get()?.filter(|salt| salt.len > 0);
        fields.session.get()?;
        fields.lookahead.get()?;
        let stored = Stored {
            spelled: marks.1..self.batch.spelled.len(),
            tokens: marks.2..self.batch.tokens.len(),
            parent,
            block_size: block_size as u32,
            lora_id: fields.lora_id.get()?,
            lora_name: fields.lora_name.get()?,
            medium,
            extras,
            salt: salt.filter(|_| extras.is_none() && parent.is_none() && !hashes.is_empty()),
            group,
            kind: fields.kind.get()?,
            window: ranged(&fields.window, 1 << 40)?.map(|window| window as u64),
            hashes,
        };
        let boxed = match self.batch.spare.pop() {
            Some(mut spare) => {
                *spare = stored;
                spare
            }
            None => Box::new(stored),
        };
        self.batch.events.push(Event::Stored(boxed));
        Ok(())
    }

    fn hashes(&mut self, marks: (usize, usize, usize)) -> Parse<Field<()>> {
        self.batch.hashes.truncate(marks.0);
        self.batch.spelled.truncate(marks.1);
        let head = self.reader.head(3)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil { Field::Null } else { Field::Bad("block_hashes must be an array") });
        };
        let mut field =
            if len > self.limits.max_hashes { Field::Bad("too many block_hashes") } else { Field::Some(()) };
        self.batch.hashes.reserve(len.min(self.reader.data.len() - self.reader.at));
        for _ in 0..len {
            let at = self.reader.at;
            if let Some([0xcf, rest @ ..]) = self.reader.data.get(at..at + 9) {
                self.batch.hashes.push(u64::from_be_bytes(rest.try_into().unwrap()));
                self.reader.at = at + 9;
                continue;
            }
            match self.hash(4)? {
                Ok(Some(hash)) => {
                    if let Some(span) = hash.spelled {
                        self.batch.spelled.push((self.batch.hashes.len(), span));
                    }
                    self.batch.hashes.push(hash.key);
                }
                Ok(None) => field = Field::Bad("block_hashes must hold integers or bytes"),
                Err(reason) => field = Field::Bad(reason),
            }
        }
        Ok(field)
    }

    /// An engine hash; None is null.
    fn hash(&mut self, open: usize) -> Parse<Parse<Option<WireHash>>> {
        Ok(match self.reader.scalar(open)? {
            Head::Nil => Ok(None),
            Head::Int(value) => Ok(Some(WireHash { key: value as u64, spelled: None })),
            Head::Large(key) => Ok(Some(WireHash { key, spelled: None })),
            Head::Bytes(span) => {
                let bytes = span.of(self.reader.data);
                if bytes.is_empty() || bytes.len() > self.limits.max_hash_bytes {
                    Err("a hash of an impossible length")
                } else {
                    let tail = &bytes[bytes.len().saturating_sub(8)..];
                    let key = tail.iter().fold(0, |key, &byte| key << 8 | byte as u64);
                    Ok(Some(WireHash { key, spelled: Some(span) }))
                }
            }
            _ => Err("a hash must be an integer or bytes"),
        })
    }

    fn parent(&mut self) -> Parse<Field<WireHash>> {
        if self.reader.peek()? == 0xc0 {
            self.reader.at += 1;
            return Ok(Field::Null);
        }
        Ok(match self.hash(3)? {
            Ok(None) => Field::Null,
            Ok(Some(hash)) => Field::Some(hash),
            Err(reason) => Field::Bad(reason),
        })
    }

    /// Some(true): all of them are token ids; Some(false): readable and no token ids.
    fn tokens(&mut self, mark: usize) -> Parse<Field<bool>> {
        self.batch.tokens.truncate(mark);
        let head = self.reader.head(3)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil { Field::Null } else { Field::Bad("token_ids must be an array") });
        };
        let mut bad = if len > self.limits.max_tokens { Some("too many token_ids") } else { None };
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
                        bad = Some("token_ids must hold integers or pairs of integers");
                    }
                }
                head => {
                    self.reader.skip_rest(head, 4)?;
                    bad = Some("token_ids must hold integers");
                }
            }
        }
        Ok(bad.map_or(Field::Some(plain), Field::Bad))
    }

    /// Read token ids in their usual encodings; returns how many of `most` there were. The hot loop.
    #[inline]
    fn plain_tokens(&mut self, most: usize) -> usize {
        let data = self.reader.data;
        let mut at = self.reader.at;
        let mut count = 0;
        let tokens = &mut self.batch.tokens;
        let most = most.min(tokens.capacity() - tokens.len());
        // Sixteen ids of five bytes at a time, as long as all are of that kind: the ids of large vocabularies are.
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

    fn lora_id(&mut self) -> Parse<Field<LoraId>> {
        Ok(match self.integer()? {
            Field::Some(i64::MAX) => Field::Some(LoraId::Large(self.last_large)),
            Field::Some(id) => Field::Some(LoraId::Int(id)),
            Field::Null => Field::Null,
            Field::Bad(reason) => Field::Bad(reason),
        })
    }

    /// An integer or null; what is over `i64::MAX` reads as that, out of every field's range.
    #[inline]
    fn integer(&mut self) -> Parse<Field<i64>> {
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
            _ => Field::Bad("a field must be an integer or null"),
        })
    }

    /// Text or null, and whether it was a map instead.
    #[inline]
    fn text(&mut self) -> Parse<(Field<Span>, bool)> {
        if let Some(brief) = self.reader.brief() {
            return Ok((brief.map_or(Field::Null, Field::Some), false));
        }
        Ok(match self.reader.scalar(3)? {
            Head::Nil => (Field::Null, false),
            Head::Text(span) => (Field::Some(span), false),
            head => (Field::Bad("a field must be text or null"), matches!(head, Head::Map(_))),
        })
    }

    fn extra_keys(&mut self) -> Parse<Field<Extras>> {
        let head = self.reader.head(3)?;
        let Head::Array(count) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil { Field::Null } else { Field::Bad("extra_keys must be an array or null") });
        };
        let mut extras = Extras { start: self.reader.at as u32, count: count as u32, any: false };
        let mut bad = if count > self.limits.max_hashes { Some("too many extra_keys") } else { None };
        for _ in 0..count {
            match self.reader.head(4)? {
                Head::Nil => {}
                Head::Array(parts) => {
                    extras.any = true;
                    if parts > self.limits.max_key_parts {
                        bad = Some("too many extra keys of one block");
                    }
                    for _ in 0..parts {
                        if !self.key_part()? {
                            bad = Some("an extra key must be a scalar or an array of scalars");
                        }
                    }
                }
                head => {
                    self.reader.skip_rest(head, 4)?;
                    bad = Some("an entry of extra_keys must be an array or null");
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
                    good &= !matches!(self.reader.scalar(6)?, Head::Array(_) | Head::Map(_) | Head::Ext);
                }
                good
            }
            Head::Ext => false,
            head @ Head::Map(_) => {
                self.reader.skip_rest(head, 5)?;
                false
            }
            _ => true,
        })
    }

    fn lookahead(&mut self) -> Parse<Field<()>> {
        let head = self.reader.head(3)?;
        let Head::Array(len) = head else {
            self.reader.skip_rest(head, 3)?;
            return Ok(if head == Head::Nil {
                Field::Null
            } else {
                Field::Bad("lookahead_token_ids must be an array or null")
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
        Ok(if good { Field::Some(()) } else { Field::Bad("lookahead_token_ids must hold arrays of integers") })
    }
}

fn tag_of(head: Head, data: &[u8]) -> Option<Tag> {
    let Head::Text(span) = head else { return None };
    Some(match span.of(data) {
        b"BlockStored" => Tag::Stored,
        b"BlockRemoved" => Tag::Removed,
        b"AllBlocksCleared" => Tag::Cleared,
        _ => Tag::Unknown,
    })
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

fn ranged(field: &Field<i64>, highest: i64) -> Parse<Option<i64>> {
    match field.get()? {
        Some(value) if !(0..=highest).contains(&value) => Err("an integer is out of range"),
        value => Ok(value),
    }
}

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
        use crate::hash::{push_double, push_int, push_list, push_sized};
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
