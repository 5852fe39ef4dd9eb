//! Types for the numbers that identify something, so that one cannot be passed where another is meant.
//!
//! Each wraps one integer and costs nothing at run time. The numbers of publishers, models, media, slots, nodes and
//! columns are positions in vectors and are used again when their owner is gone; they mean nothing outside one core.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(
            /// The number itself.
            pub $raw,
        );
    };
}

macro_rules! position {
    ($(#[$doc:meta])* $name:ident($raw:ty)) => {
        number! { $(#[$doc])* $name($raw) }

        impl $name {
            /// The id of a position in a vector.
            #[inline(always)]
            pub(crate) fn at(index: usize) -> Self {
                $name(index as $raw)
            }

            /// The position in a vector.
            #[inline(always)]
            pub(crate) fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

position! {
    /// A publisher of one core.
    PublisherId(u32)
}
position! {
    /// A model name of one core.
    ModelId(u32)
}
position! {
    /// The name of a tier (`GPU`, `CPU`, `DISK`, ...) of one core.
    MediumId(u32)
}
position! {
    /// A pair of medium and cache group that one publisher uses; at most 64 per publisher.
    SlotId(u8)
}
position! {
    /// A block size of one publisher's chains, numbered in the order in which the sizes came.
    SizeNumber(u8)
}
position! {
    /// A block in the table of nodes, which all publishers of a core share.
    NodeId(u32)
}
position! {
    /// One slot of one publisher, as an element of a set of holders.
    Column(u32)
}

number! {
    /// An engine's number for a KV cache group; `GroupId::NONE` where an event names none.
    GroupId(i32)
}
number! {
    /// The identity of an engine's block hash: its low 64 bits, or the last 8 bytes of a digest.
    EngineHash(u64)
}
number! {
    /// The identity of a block of one publisher: its engine hash, combined with the number of its block size.
    BlockId(u64)
}
number! {
    /// The hash of a block's own tokens and extra keys; it does not depend on what comes before the block.
    LocalHash(u64)
}
number! {
    /// The chained key of a block: it stands for the block together with everything before it.
    PrefixKey(u64)
}

impl NodeId {
    /// The node of a block whose prefix key is not known yet.
    pub const ORPHAN: NodeId = NodeId(u32::MAX);
    /// A hint that points at no node.
    pub(crate) const NO_HINT: NodeId = NodeId(u32::MAX);

    /// The node that was most likely made after this one.
    #[inline(always)]
    pub(crate) fn next(self) -> NodeId {
        NodeId(self.0.wrapping_add(1))
    }
}

impl SlotId {
    /// The bit of the slot in a residency mask.
    #[inline(always)]
    pub(crate) fn bit(self) -> u64 {
        1 << self.0
    }
}

impl GroupId {
    /// No group; sorts before every group.
    pub const NONE: GroupId = GroupId(-1);

    /// The engine's number, if there is one.
    pub fn number(self) -> Option<i32> {
        (self.0 >= 0).then_some(self.0)
    }
}

/// The factor that keeps the ids of different block sizes apart.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl BlockId {
    /// The engine hash of a block of this size.
    #[inline(always)]
    pub(crate) fn hash(self, size: SizeNumber) -> EngineHash {
        EngineHash(self.0 ^ (size.0 as u64).wrapping_mul(SPREAD))
    }
}

impl EngineHash {
    /// The id of the block of this size. For the only block size of a publisher, whose number is 0, it is the hash.
    #[inline(always)]
    pub(crate) fn in_size(self, size: SizeNumber) -> BlockId {
        BlockId(self.0 ^ (size.0 as u64).wrapping_mul(SPREAD))
    }

    /// The identity of a hash that was sent as bytes: the last eight of them, big-endian.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let tail = &bytes[bytes.len().saturating_sub(8)..];
        EngineHash(tail.iter().fold(0, |hash, &byte| hash << 8 | byte as u64))
    }
}

impl PrefixKey {
    /// The low 32 bits, by which a node remembers its parent; a root's children remember 0.
    #[inline(always)]
    pub fn tag(self) -> u32 {
        self.0 as u32
    }
}
