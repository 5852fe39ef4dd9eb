//! A msgpack reader that builds no values: it reads the head of one value at a time.
//!
//! It checks everything that Python's `msgpack.unpackb` checks (UTF-8, map keys, lengths, nesting, timestamps), because
//! both cores must refuse the same payloads. The parameter `open` of its methods is the number of containers around the
//! value.

use std::error::Error;
use std::fmt;

/// A range of bytes of the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
}

impl Span {
    /// The bytes.
    #[inline]
    pub fn of<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.start as usize..(self.start + self.len) as usize]
    }

    /// The bytes as text; they were checked when they were read.
    pub fn text<'a>(&self, data: &'a [u8]) -> &'a str {
        std::str::from_utf8(self.of(data)).unwrap_or("")
    }
}

/// Why a payload cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireError(
    /// What is wrong with it.
    pub &'static str,
);

impl fmt::Display for WireError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.0)
    }
}

impl Error for WireError {}

pub(crate) type Parse<T> = Result<T, WireError>;

/// A scalar, or the head of a container whose elements follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Head {
    Nil,
    Bool(bool),
    Int(i64),
    /// An integer over `i64::MAX`.
    Large(u64),
    Double(f64),
    Text(Span),
    Bytes(Span),
    Array(usize),
    Map(usize),
    Ext,
}

/// The longest array, map and string that are read; `msgpack.unpackb` is given the same limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub array: usize,
    pub map: usize,
    pub raw: usize,
}

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

    /// As `head`, with a short way for the usual arrays and maps.
    #[inline(always)]
    pub fn opening(&mut self, open: usize) -> Parse<Head> {
        debug_assert!(open < MAX_OPEN);
        let (len, width) = match self.data.get(self.at..) {
            Some(&[code @ 0x90..=0x9f, ..]) => ((code & 0x0f) as usize, 1),
            Some(&[0xdc, high, low, ..]) => (u16::from_be_bytes([high, low]) as usize, 3),
            Some(&[code @ 0x80..=0x8f, ..]) if (code & 0x0f) as usize <= self.caps.map => {
                self.at += 1;
                return Ok(Head::Map((code & 0x0f) as usize));
            }
            _ => return self.head(open),
        };
        if len > self.caps.array {
            return self.head(open);
        }
        self.at += width;
        Ok(Head::Array(len))
    }

    /// As `scalar`, with a short way for null, small integers and doubles.
    #[inline(always)]
    pub fn plain(&mut self, open: usize) -> Parse<Head> {
        match self.data.get(self.at..) {
            Some(&[0xc0, ..]) => {
                self.at += 1;
                Ok(Head::Nil)
            }
            Some(&[code @ 0..=0x7f, ..]) => {
                self.at += 1;
                Ok(Head::Int(code as i64))
            }
            Some(&[0xcb, ..]) => {
                self.at += 1;
                Ok(Head::Double(f64::from_be_bytes(self.be()?)))
            }
            _ => self.scalar(open),
        }
    }

    /// Pass over `bytes`, the encoding of a short text with its head, if that is what follows.
    #[inline(always)]
    pub fn literal<const N: usize>(&mut self, bytes: &[u8; N]) -> bool {
        let found = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) == Some(bytes);
        let found = found && N - 1 <= self.caps.raw; // without its head
        self.at += if found { N } else { 0 };
        found
    }

    /// The next value if it is an unsigned integer of eight bytes, as hashes nearly always are.
    #[inline(always)]
    pub fn wide(&mut self) -> Option<u64> {
        let [0xcf, digits @ ..] = self.data.get(self.at..)?.first_chunk::<9>()? else {
            return None;
        };
        self.at += 9;
        Some(u64::from_be_bytes(*digits))
    }

    /// The next key of a map: a text, or None for bytes; anything else is an error.
    #[inline]
    pub fn key(&mut self, open: usize) -> Parse<Option<Span>> {
        if let Some(Some(span)) = self.brief_text() {
            return Ok(Some(span));
        }
        match self.head(open)? {
            Head::Text(span) => Ok(Some(span)),
            Head::Bytes(_) => Ok(None),
            _ => Err(WireError("a map key that is neither text nor bytes")),
        }
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

    #[inline(always)]
    fn brief_text(&mut self) -> Option<Option<Span>> {
        if self.data.get(self.at)? & 0xe0 != 0xa0 {
            return None;
        }
        self.brief()
    }

    /// The next value if it is null or a short ASCII text, which optional fields usually are.
    #[inline(always)]
    pub fn brief(&mut self) -> Option<Option<Span>> {
        let code = *self.data.get(self.at)?;
        if code == 0xc0 {
            self.at += 1;
            return Some(None);
        }
        let len = (code & 0x1f) as usize;
        let body = self.data.get(self.at + 1..self.at + 1 + len)?;
        if code & 0xe0 != 0xa0 || len > self.caps.raw || !body.is_ascii() {
            return None;
        }
        let span = Span { start: self.at as u32 + 1, len: len as u32 };
        self.at += 1 + len;
        Some(Some(span))
    }

    /// The next scalar. A container is passed over, and only its head is returned.
    pub fn scalar(&mut self, open: usize) -> Parse<Head> {
        let head = self.head(open)?;
        self.skip_rest(head, open)?;
        Ok(head)
    }
}
