//! Names of tiers, shared by all publishers of a core. A name is kept as long as a slot has it, so that publishers that
//! invent names cannot exhaust the ids.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ids::MediumId;

/// The names of tiers that slots have, by `MediumId`.
#[derive(Default)]
pub struct Media {
    /// The name at a free place is empty.
    names: Arc<Vec<Arc<str>>>,
    ids: HashMap<Arc<str>, MediumId>,
    /// How many slots have the name.
    uses: Vec<u32>,
    free: Vec<MediumId>,
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

    /// The id of a stored name for one more slot that has it.
    pub fn take(&mut self, name: &str) -> MediumId {
        if let Some(&id) = self.ids.get(name) {
            self.uses[id.index()] += 1;
            return id;
        }
        let name: Arc<str> = name.into();
        let names = Arc::make_mut(&mut self.names);
        let id = match self.free.pop() {
            Some(id) => {
                names[id.index()] = Arc::clone(&name);
                self.uses[id.index()] = 1;
                id
            }
            None => {
                names.push(Arc::clone(&name));
                self.uses.push(1);
                MediumId::at(names.len() - 1)
            }
        };
        self.ids.insert(name, id);
        id
    }

    /// Give back what `take` returned; a name that no slot has is forgotten.
    pub fn release(&mut self, id: MediumId) {
        self.uses[id.index()] -= 1;
        if self.uses[id.index()] == 0 {
            let name = std::mem::take(&mut Arc::make_mut(&mut self.names)[id.index()]);
            self.ids.remove(&name);
            self.free.push(id);
        }
    }

    /// How many names there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.ids.len()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_forgotten_when_its_last_slot_goes() {
        let mut media = Media::default();
        let gpu = media.take("GPU");
        for round in 0..100_000 {
            let name = format!("NAME {round}");
            let one = media.take(&name);
            assert_eq!((media.take(&name), media.name(one)), (one, &name[..]));
            let before = media.names();
            media.release(one);
            assert_eq!(media.len(), 2);
            media.release(one);
            assert_eq!(media.len(), 1);
            assert_eq!(&*before[one.index()], name);
        }
        assert!(media.is(None, gpu) && media.names().len() == 2);
    }
}
