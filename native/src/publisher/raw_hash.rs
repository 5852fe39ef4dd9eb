//! Engine hashes as they were sent, where they are kept outside the table.

use crate::ids::EngineHash;
use crate::wire::WireHash;

/// An engine hash as it was sent: an integer or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawHash {
    /// An integer, unsigned.
    Number(EngineHash),
    /// Bytes, of any length.
    Bytes(Box<[u8]>),
}

impl RawHash {
    /// The identity of the hash.
    pub fn hash(&self) -> EngineHash {
        match self {
            RawHash::Number(hash) => *hash,
            RawHash::Bytes(bytes) => EngineHash::of_bytes(bytes),
        }
    }

    /// A hash of the payload `data`.
    pub(super) fn of(wire: &WireHash, data: &[u8]) -> Self {
        match wire.raw {
            Some(span) => RawHash::Bytes(span.of(data).into()),
            None => RawHash::Number(wire.hash),
        }
    }
}
