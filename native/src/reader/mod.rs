//! A msgpack reader that builds no values: it reads the head of one value at a time.
//!
//! It checks everything that Python's `msgpack.unpackb` checks (UTF-8, map keys, lengths, nesting, timestamps), because
//! both cores must refuse the same payloads. The parameter `open` of its methods is the number of containers around the
//! value.

mod short;
mod types;

pub(crate) use types::{Caps, Head, Parse};
pub use types::{Span, WireError};

/// The nesting limit of Python's msgpack.
const MAX_OPEN: usize = 1024;
const TRUNCATED: WireError = WireError("the payload ends inside a value");

pub(crate) struct Reader<'a> {
    pub data: &'a [u8],
    pub at: usize,
    caps: Caps,
}

impl<'a> Reader<'a> {
    pub fn new(data: &'a [u8], at: usize, caps: Caps) -> Self {
        Reader { data, at, caps }
    }

    #[inline(always)]
    pub fn peek(&self) -> Parse<u8> {
        self.data.get(self.at).copied().ok_or(TRUNCATED)
    }

    /// The next `N` bytes, a big-endian number.
    #[inline(always)]
    fn be<const N: usize>(&mut self) -> Parse<[u8; N]> {
        let bytes = self.data.get(self.at..self.at + N).ok_or(TRUNCATED)?;
        self.at += N;
        Ok(bytes.try_into().unwrap())
    }

    fn length(&mut self, width: u8) -> Parse<usize> {
        Ok(match width {
            1 => self.be::<1>()?[0] as usize,
            2 => u16::from_be_bytes(self.be()?) as usize,
            _ => u32::from_be_bytes(self.be()?) as usize,
        })
    }

    fn span(&mut self, len: usize) -> Parse<Span> {
        if len > self.caps.raw {
            return Err(WireError("a text or byte string is over the limit"));
        }
        if len > self.data.len() - self.at {
            return Err(TRUNCATED);
        }
        let span = Span { start: self.at as u32, len: len as u32 };
        self.at += len;
        Ok(span)
    }

    fn text(&mut self, len: usize) -> Parse<Head> {
        let span = self.span(len)?;
        std::str::from_utf8(span.of(self.data)).map_err(|_| WireError("text that is not UTF-8"))?;
        Ok(Head::Text(span))
    }

    fn array(&self, len: usize, open: usize) -> Parse<Head> {
        if len > self.caps.array {
            return Err(WireError("an array is over the limit"));
        }
        Self::nest(open)?;
        Ok(Head::Array(len))
    }

    fn map(&self, len: usize, open: usize) -> Parse<Head> {
        if len > self.caps.map {
            return Err(WireError("a map is over the limit"));
        }
        Self::nest(open)?;
        Ok(Head::Map(len))
    }

    fn nest(open: usize) -> Parse<()> {
        if open >= MAX_OPEN {
            return Err(WireError("too many arrays and maps inside each other"));
        }
        Ok(())
    }

    fn ext(&mut self, len: usize) -> Parse<Head> {
        let kind = self.be::<1>()?[0] as i8;
        let span = self.span(len)?;
        if kind < -1 {
            return Err(WireError("an extension of a reserved type"));
        }
        if kind == -1 {
            let body = span.of(self.data);
            let nanoseconds = match len {
                4 => 0,
                8 => u64::from_be_bytes(body.try_into().unwrap()) >> 34,
                12 => u32::from_be_bytes(body[..4].try_into().unwrap()) as u64,
                _ => return Err(WireError("a timestamp of an impossible length")),
            };
            if nanoseconds >= 1_000_000_000 {
                return Err(WireError("an impossible timestamp"));
            }
        }
        Ok(Head::Ext)
    }

    /// The next scalar, or the head of a container whose elements follow.
    pub fn head(&mut self, open: usize) -> Parse<Head> {
        let code = self.peek()?;
        self.at += 1;
        Ok(match code {
            0x00..=0x7f => Head::Int(code as i64),
            0xe0..=0xff => Head::Int(code as i8 as i64),
            0x80..=0x8f => self.map((code & 0x0f) as usize, open)?,
            0x90..=0x9f => self.array((code & 0x0f) as usize, open)?,
            0xa0..=0xbf => self.text((code & 0x1f) as usize)?,
            0xc0 => Head::Nil,
            0xc1 => return Err(WireError("byte 0xc1 starts no value")),
            0xc2 => Head::Bool(false),
            0xc3 => Head::Bool(true),
            0xc4..=0xc6 => {
                let len = self.length(1 << (code - 0xc4))?;
                Head::Bytes(self.span(len)?)
            }
            0xc7..=0xc9 => {
                let len = self.length(1 << (code - 0xc7))?;
                self.ext(len)?
            }
            0xca => Head::Double(f32::from_be_bytes(self.be()?) as f64),
            0xcb => Head::Double(f64::from_be_bytes(self.be()?)),
            0xcc => Head::Int(self.be::<1>()?[0] as i64),
            0xcd => Head::Int(u16::from_be_bytes(self.be()?) as i64),
            0xce => Head::Int(u32::from_be_bytes(self.be()?) as i64),
            0xcf => {
                let value = u64::from_be_bytes(self.be()?);
                i64::try_from(value).map_or(Head::Large(value), Head::Int)
            }
            0xd0 => Head::Int(self.be::<1>()?[0] as i8 as i64),
            0xd1 => Head::Int(i16::from_be_bytes(self.be()?) as i64),
            0xd2 => Head::Int(i32::from_be_bytes(self.be()?) as i64),
            0xd3 => Head::Int(i64::from_be_bytes(self.be()?)),
            0xd4..=0xd8 => self.ext(1 << (code - 0xd4))?,
            0xd9..=0xdb => {
                let len = self.length(1 << (code - 0xd9))?;
                self.text(len)?
            }
            0xdc | 0xdd => {
                let len = self.length(if code == 0xdc { 2 } else { 4 })?;
                self.array(len, open)?
            }
            0xde | 0xdf => {
                let len = self.length(if code == 0xde { 2 } else { 4 })?;
                self.map(len, open)?
            }
        })
    }

    /// Pass over the elements of a container whose head was read.
    pub fn skip_rest(&mut self, head: Head, open: usize) -> Parse<()> {
        match head {
            Head::Array(len) => (0..len).try_for_each(|_| self.skip(open + 1)),
            Head::Map(len) => (0..len).try_for_each(|_| {
                self.key(open + 1)?;
                self.skip(open + 1)
            }),
            _ => Ok(()),
        }
    }

    /// Check one value and pass over it.
    pub fn skip(&mut self, open: usize) -> Parse<()> {
        let head = self.head(open)?;
        self.skip_rest(head, open)
    }

    /// The next scalar. A container is passed over, and only its head is returned.
    pub fn scalar(&mut self, open: usize) -> Parse<Head> {
        let head = self.head(open)?;
        self.skip_rest(head, open)?;
        Ok(head)
    }
}
