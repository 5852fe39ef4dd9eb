//! The hard limits of a publisher, checked before anything of a batch is applied.

use super::Publisher;
use crate::error::CoreError;
use crate::ids::GroupId;
use crate::limits::{MAX_MEDIUM_CHARS, MAX_SLOTS};
use crate::media::Media;
use crate::shared::Shared;
use crate::wire::{Batch, Event};

impl Publisher {
    /// Refuse a batch that could exceed a hard limit. Removals and repeats within the batch are not taken into account.
    pub fn check(&self, shared: &Shared, batch: &Batch, data: &[u8]) -> Result<(), CoreError> {
        let mut stored = 0;
        let mut new_slots: Vec<(String, GroupId)> = Vec::new();
        for event in &batch.events {
            let Event::Stored(event) = event else {
                continue;
            };
            stored += event.hashes.len();
            if self.slot(shared, event.medium, event.group, data).is_none() {
                self.check_slot(event.medium.map(|span| span.text(data)), event.group, &mut new_slots)?;
            }
        }
        let (held, most) = (self.table.len(), shared.limits.max_blocks);
        if held + stored > most {
            return Err(CoreError::limit(format!(
                "{} holds {held} blocks and stores {stored} more, over the limit of {most}",
                self.name
            )));
        }
        Ok(())
    }

    #[cold]
    fn check_slot(
        &self,
        medium: Option<&str>,
        group: GroupId,
        new_slots: &mut Vec<(String, GroupId)>,
    ) -> Result<(), CoreError> {
        let medium = Media::normal(medium);
        let chars = medium.chars().count();
        if chars > MAX_MEDIUM_CHARS {
            return Err(CoreError::limit(format!(
                "medium of {chars} characters, over the limit of {MAX_MEDIUM_CHARS}"
            )));
        }
        let slot = (medium, group);
        if !new_slots.contains(&slot) {
            new_slots.push(slot);
        }
        let (known, new) = (self.slots.len(), new_slots.len());
        if known + new > MAX_SLOTS {
            return Err(CoreError::limit(format!(
                "{} uses {known} pairs of medium and group and names {new} more, over the limit of {MAX_SLOTS}",
                self.name
            )));
        }
        Ok(())
    }
}
