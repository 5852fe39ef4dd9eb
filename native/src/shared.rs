//! What all publishers of a core share.

use crate::ids::{Column, LocalHash, PrefixKey, PublisherId, SlotId};
use crate::limits::Limits;
use crate::media::Media;
use crate::nodes::Nodes;

/// The blocks by content, and what is needed to read and write them.
pub(crate) struct Shared {
    pub nodes: Nodes,
    pub columns: Columns,
    pub media: Media,
    pub limits: Limits,
    pub seed: u64,
    pub scratch: Scratch,
}

/// Buffers of the event that is being applied, kept so that they are not allocated again.
#[derive(Default)]
pub(crate) struct Scratch {
    pub local_hashes: Vec<LocalHash>,
    pub prefix_keys: Vec<PrefixKey>,
    /// The extra keys of one block in canonical form.
    pub extra: Vec<u8>,
}

impl Shared {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Shared {
            nodes: Nodes::new(seed),
            columns: Columns::default(),
            media: Media::default(),
            limits,
            seed,
            scratch: Scratch::default(),
        }
    }
}

/// The columns of the holder sets, and which publisher's slot each of them is.
#[derive(Default)]
pub(crate) struct Columns {
    owners: Vec<(PublisherId, SlotId)>,
    free: Vec<Column>,
}

impl Columns {
    /// A column for a slot that has none.
    pub fn take(&mut self, publisher: PublisherId, slot: SlotId) -> Column {
        match self.free.pop() {
            Some(column) => {
                self.owners[column.index()] = (publisher, slot);
                column
            }
            None => {
                self.owners.push((publisher, slot));
                Column::at(self.owners.len() - 1)
            }
        }
    }

    /// Give back a column that no set contains any more.
    pub fn release(&mut self, column: Column) {
        self.free.push(column);
    }

    #[inline(always)]
    pub fn owner(&self, column: Column) -> (PublisherId, SlotId) {
        self.owners[column.index()]
    }
}
