//! An event in either form of the wire: a tagged array up to vLLM 0.23, a tagged map since then.
//!
//! An error in a field is kept with the field, because a map may name a field twice, and then the last one counts.

use super::decoder::{Decoder, Field, Marks, Tag};
use super::types::{Event, Extras, LoraId, Part, Stored, WireHash};
use crate::ids::{EngineHash, GroupId};
use crate::reader::{Head, Parse, Span, WireError};

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

/// The names in wire order; a field's position here is its number.
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
/// The array form of BlockStored has no `cache_salt`.
const STORED_PLACES: [usize; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
const REMOVED_PLACES: [usize; 5] = [0, 5, 8, 11, 12];
const CLEARED_PLACES: [usize; 1] = [5];

impl<E: Fn(EngineHash)> Decoder<'_, '_, E> {
    pub(super) fn event(&mut self) -> Parse<Parse<()>> {
        let marks = self.marks();
        let mut fields = Fields::default();
        let tag = match self.reader.opening(2)? {
            Head::Array(len) => self.event_array(len, &mut fields, marks)?,
            Head::Map(len) => self.event_map(len, &mut fields, marks)?,
            _ => return Ok(Err(WireError("an event is an array or a map"))),
        };
        Ok(match tag {
            None => Err(WireError("the tag of an event must be a string")),
            Some(Tag::Unknown) => {
                self.batch.unknown_events += 1;
                self.rewind(marks);
                Ok(())
            }
            Some(Tag::Stored) => self.finish_stored(&fields, marks),
            Some(tag) => self.finish(tag, &fields, marks),
        })
    }

    fn event_array(&mut self, len: usize, fields: &mut Fields, marks: Marks) -> Parse<Option<Tag>> {
        if len == 0 {
            return Ok(None);
        }
        let tag = self.tag()?;
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
            fields.lora_name = Field::Null; // SGLang puts a map of metadata here
        }
        Ok(tag)
    }

    fn event_map(&mut self, len: usize, fields: &mut Fields, marks: Marks) -> Parse<Option<Tag>> {
        let mut tag = None;
        let mut left = len;
        if left > 0 && self.reader.literal(b"\xa4type") {
            left -= 1;
            tag = self.tag()?;
        }
        left = self.fields_in_order(left, fields, marks)?;
        // The remaining fields come in another order, repeat an earlier one, or are unknown.
        for _ in 0..left {
            let Some(span) = self.reader.key(3)? else {
                self.reader.skip(3)?;
                continue;
            };
            let name = span.of(self.reader.data);
            if name == b"type" {
                tag = self.tag()?;
                continue;
            }
            match STORED_NAMES.iter().position(|known| *known == name) {
                Some(number) => self.field(number, fields, marks)?,
                None => self.reader.skip(3)?,
            }
        }
        Ok(tag)
    }

    /// Read fields as long as they come in wire order, as they nearly always do, and return how many are left. Each
    /// name is compared with constant bytes of a constant length, which takes a few instructions.
    fn fields_in_order(&mut self, mut left: usize, fields: &mut Fields, marks: Marks) -> Parse<usize> {
        macro_rules! in_order {
            ($($name:literal => $field:ident = $value:expr;)*) => {$(
                if left == 0 {
                    return Ok(0);
                }
                if self.reader.literal($name) {
                    left -= 1;
                    fields.$field = $value;
                }
            )*};
        }
        in_order! {
            b"\xacblock_hashes" => hashes = self.hashes(marks)?;
            b"\xb1parent_block_hash" => parent = self.parent()?;
            b"\xa9token_ids" => tokens = self.tokens(marks)?;
            b"\xaablock_size" => block_size = self.integer()?;
            b"\xa7lora_id" => lora_id = self.lora_id()?;
            b"\xa6medium" => medium = self.medium()?;
            b"\xa9lora_name" => lora_name = self.text()?.0;
            b"\xaaextra_keys" => extra_keys = self.extra_keys()?;
            b"\xa9group_idx" => group = self.integer()?;
            b"\xb2kv_cache_spec_kind" => kind = self.text()?.0;
            b"\xbckv_cache_spec_sliding_window" => window = self.integer()?;
        }
        Ok(left)
    }

    fn field(&mut self, number: usize, fields: &mut Fields, marks: Marks) -> Parse<()> {
        match number {
            0 => fields.hashes = self.hashes(marks)?,
            1 => fields.parent = self.parent()?,
            2 => fields.tokens = self.tokens(marks)?,
            3 => fields.block_size = self.integer()?,
            4 => fields.lora_id = self.lora_id()?,
            5 => fields.medium = self.medium()?,
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

    /// Check the fields of a removed or cleared event and add it to the batch.
    fn finish(&mut self, tag: Tag, fields: &Fields, marks: Marks) -> Parse<()> {
        let medium = fields.medium.get()?;
        if tag == Tag::Cleared {
            self.rewind(marks);
            self.batch.events.push(Event::Cleared { medium });
            return Ok(());
        }
        let (hashes, group) = self.common(fields, marks)?;
        self.batch.tokens.truncate(marks.tokens);
        self.batch.events.push(Event::Removed { hashes, medium, group });
        Ok(())
    }

    /// The hashes and the group, which stored and removed events share.
    #[inline(always)]
    fn common(&self, fields: &Fields, marks: Marks) -> Parse<(Part, GroupId)> {
        if fields.hashes.get()?.is_none() {
            return Err(WireError("block_hashes must be an array"));
        }
        fields.locality.get()?;
        fields.ownership.get()?;
        let group = ranged(&fields.group, 65_535)?.map_or(GroupId::NONE, |group| GroupId(group as i32));
        Ok((Part::new(marks.hashes, self.batch.hashes.len()), group))
    }

    /// Check the fields of a stored event and add it to the batch.
    fn finish_stored(&mut self, fields: &Fields, marks: Marks) -> Parse<()> {
        let medium = fields.medium.get()?;
        let (hashes, group) = self.common(fields, marks)?;
        let parent = fields.parent.get()?;
        if fields.tokens.get()? == Some(false) {
            self.batch.tokens.truncate(marks.tokens); // well-formed, but not plain token ids
        }
        let block_size =
            ranged(&fields.block_size, self.limits.max_block_size as i64)?.ok_or(WireError("block_size is missing"))?;
        let extras = fields.extra_keys.get()?;
        let salt = fields.cache_salt.get()?.filter(|salt| salt.len > 0);
        fields.session.get()?;
        fields.lookahead.get()?;
        let (lora_id, lora_name, kind) = (fields.lora_id.get()?, fields.lora_name.get()?, fields.kind.get()?);
        let window = ranged(&fields.window, 1 << 40)?.map(|window| window as u64);
        // Field by field into its place: copying a finished event would have to wait for all of its stores.
        self.batch.events.push(Event::Stored(Stored::default()));
        let Some(Event::Stored(stored)) = self.batch.events.last_mut() else {
            return Ok(());
        };
        stored.hashes = hashes;
        stored.raw_hashes = Part::new(marks.raw_hashes, self.batch.raw_hashes.len());
        stored.tokens = Part::new(marks.tokens, self.batch.tokens.len());
        stored.parent = parent;
        stored.block_size = block_size as u32;
        stored.lora_id = lora_id;
        stored.lora_name = lora_name;
        stored.medium = medium;
        stored.extras = extras;
        stored.salt = salt.filter(|_| extras.is_none() && parent.is_none() && !hashes.is_empty());
        stored.group = group;
        stored.kind = kind;
        stored.window = window;
        Ok(())
    }
}

#[inline(always)]
fn ranged(field: &Field<i64>, highest: i64) -> Parse<Option<i64>> {
    match field.get()? {
        Some(value) if !(0..=highest).contains(&value) => Err(WireError("an integer is out of range")),
        value => Ok(value),
    }
}
