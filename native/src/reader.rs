//! Reading msgpack without building it: one value's head at a time, everything checked that Python's `msgpack.unpackb`
//! checks (UTF-8, map keys, lengths, nesting, timestamps), because both cores must refuse the same payloads.

/// Where bytes lie in the payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    #[inline]
    pub fn of<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.start as usize..(self.start + self.len) as usize]
    }

    /// Text that was checked when it was read.
    pub fn text<'a>(&self, data: &'a [u8]) -> &'a str {
        std::str::from_utf8(self.of(data)).unwrap_or("")
    }
}

pub type Parse<T> = Result<T, &'static str>;

/// One value, or the head of a container whose elements follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Head {
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

/// Sizes over which `msgpack.unpackb` is told to stop.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    pub array: usize,
    pub map: usize,
    pub raw: usize,
}

/// msgpack's own nesting limit.
const MAX_OPEN: usize = 1024;
const TRUNCATED: &str = "the payload ends inside a value";

pub struct Reader<'a> {
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
            return Err("a text or byte string is over the limit");
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
        std::str::from_utf8(span.of(self.data)).map_err(|_| "text that is no UTF-8")?;
        Ok(Head::Text(span))
    }

    fn array(&self, len: usize, open: usize) -> Parse<Head> {
        if len > self.caps.array {
            return Err("an array is over the limit");
        }
        Self::nest(open)?;
        Ok(Head::Array(len))
    }

    fn map(&self, len: usize, open: usize) -> Parse<Head> {
        if len > self.caps.map {
            return Err("a map is over the limit");
        }
        Self::nest(open)?;
        Ok(Head::Map(len))
    }

    fn nest(open: usize) -> Parse<()> {
        if open >= MAX_OPEN {
            return Err("too many arrays and maps inside each other");
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
                _ => return Err("a timestamp of an impossible length"),
            };
            if nanoseconds >= 1_000_000_000 {
                return Err("an impossible timestamp");
            }
        }
        Ok(Head::Ext)
    }

    /// The next value; for a container, its elements follow. `open` containers are around it.
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
            0xc1 => return Err("byte 0xc1 starts no value"),
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

    /// As `head`, the short way for the usual arrays and maps.
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

    /// As `scalar`, the short way for null, small numbers and doubles.
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

    /// Pass over this text, a short one with its head, if it is what follows.
    #[inline(always)]
    pub fn literal<const N: usize>(&mut self, bytes: &[u8; N]) -> bool {
        let found = self.data.get(self.at..).and_then(|rest| rest.first_chunk::<N>()) == Some(bytes);
        let found = found && N - 1 <= self.caps.raw; // the head is no text
        self.at += if found { N } else { 0 };
        found
    }

    /// An integer in eight bytes, as hashes nearly always are.
    #[inline(always)]
    pub fn wide(&mut self) -> Option<u64> {
        let [0xcf, digits @ ..] = self.data.get(self.at..)?.first_chunk::<9>()? else {
            return None;
        };
        self.at += 9;
        Some(u64::from_be_bytes(*digits))
    }

    /// A map's key: text or bytes, nothing else.
    #[inline]
    pub fn key(&mut self, open: usize) -> Parse<Option<Span>> {
        if let Some(Some(span)) = self.brief_text() {
            return Ok(Some(span));
        }
        match self.head(open)? {
            Head::Text(span) => Ok(Some(span)),
            Head::Bytes(_) => Ok(None),
            _ => Err("a map key that is neither text nor bytes"),
        }
    }

    /// Pass over the elements of a container whose head was read; `open` counts the containers around it.
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

    /// Pass over one value, checking it.
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

    /// Null or a short text of ASCII, the usual values of optional fields, without the long way.
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

    /// The next value if it is no container; a container is passed over and only named.
    pub fn scalar(&mut self, open: usize) -> Parse<Head> {
        let head = self.head(open)?;
        self.skip_rest(head, open)?;
        Ok(head)
    }
}
