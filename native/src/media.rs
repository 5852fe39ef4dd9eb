//! Names of tiers, shared by all publishers of a core.

use std::sync::Arc;

use crate::ids::MediumId;

/// The names of tiers that events have mentioned, by `MediumId`.
#[derive(Default)]
pub struct Media {
    names: Arc<Vec<Arc<str>>>,
}

impl Media {
    /// The name as it is stored: upper case, and `GPU` where an event names no medium.
    pub fn normal(medium: Option<&str>) -> String {
        match medium {
            None => "GPU".to_owned(),
            Some(name) if name.is_ascii() => name.to_ascii_uppercase(),
            Some(name) => name.to_owned(),
        }
    }

    /// Whether `name`, as an event writes it, stands for this medium.
    #[inline]
    pub fn is(&self, name: Option<&str>, medium: MediumId) -> bool {
        let known = self.name(medium);
        match name {
            None => known == "GPU",
            Some(other) if other.is_ascii() => known.eq_ignore_ascii_case(other),
            Some(other) => known == other,
        }
    }

    /// The id of a stored name, which is added if it is new.
    pub fn intern(&mut self, name: &str) -> MediumId {
        if let Some(at) = self.names.iter().position(|known| **known == *name) {
            return MediumId::at(at);
        }
        Arc::make_mut(&mut self.names).push(name.into());
        MediumId::at(self.names.len() - 1)
    }

    /// The stored name.
    pub fn name(&self, medium: MediumId) -> &str {
        &self.names[medium.index()]
    }

    /// All names by id, as of now; a later addition makes a new list.
    pub fn names(&self) -> Arc<Vec<Arc<str>>> {
        Arc::clone(&self.names)
    }

    /// A sort key that puts the nearest tier first.
    pub fn order(&self, medium: MediumId) -> (u8, &str) {
        let name = self.name(medium);
        let rank = match name {
            "GPU" => 0,
            "CPU" | "CPU_PINNED" => 1,
            "DISK" | "STORAGE" => 2,
            _ => 3,
        };
        (rank, name)
    }
}
