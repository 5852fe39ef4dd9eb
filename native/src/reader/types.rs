//! What a reader returns.

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
