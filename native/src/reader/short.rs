//! Short ways for the usual encodings. Each accepts a part of what the general method accepts, with the same result.

use super::{Head, Parse, Reader, Span, WireError, MAX_OPEN};

impl Reader<'_> {
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
}
