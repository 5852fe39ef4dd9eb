//! The publishers of a core and their names.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::CoreError;
use crate::ids::{ModelId, PublisherId};
use crate::publisher::Publisher;

/// Publishers by id and by name, and the models that they serve.
#[derive(Default)]
pub(crate) struct Registry {
    publishers: Vec<Option<Publisher>>,
    models: Vec<String>,
    by_name: HashMap<String, PublisherId>,
    /// Names by id. Answers share this list, so a change makes a new one.
    names: Arc<Vec<Arc<str>>>,
    free: Vec<PublisherId>,
    /// The publisher that was looked up last.
    latest: Cell<PublisherId>,
}

impl Registry {
    /// The id of a publisher. Payloads of one publisher usually follow each other, so the last answer is tried first.
    pub fn id(&self, name: &str) -> Option<PublisherId> {
        let latest = self.latest.get();
        if let Some(Some(publisher)) = self.publishers.get(latest.index()) {
            if *publisher.name == *name {
                return Some(latest);
            }
        }
        let id = self.by_name.get(name).copied()?;
        self.latest.set(id);
        Some(id)
    }

    /// The id of a publisher that must be known.
    pub fn find(&self, name: &str) -> Result<PublisherId, CoreError> {
        self.id(name).ok_or_else(|| CoreError::unknown_publisher(name))
    }

    /// The publisher; `id` must be in use.
    #[inline]
    pub fn get(&self, id: PublisherId) -> &Publisher {
        self.publishers[id.index()].as_ref().expect("a publisher in use")
    }

    /// The publisher, if the id is in use.
    pub fn in_use(&mut self, id: PublisherId) -> Option<&mut Publisher> {
        self.publishers[id.index()].as_mut()
    }

    /// The publisher and the name of its model; `id` must be in use.
    #[inline]
    pub fn get_mut(&mut self, id: PublisherId) -> (&mut Publisher, &str) {
        let publisher = self.publishers[id.index()].as_mut().expect("a publisher in use");
        let model = &self.models[publisher.model.index()];
        (publisher, model)
    }

    /// All publishers, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Publisher> {
        self.publishers.iter().flatten()
    }

    /// How many publishers there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// One more than the highest id.
    pub fn end(&self) -> usize {
        self.publishers.len()
    }

    /// Names by id, as of now.
    pub fn names(&self) -> Arc<Vec<Arc<str>>> {
        Arc::clone(&self.names)
    }

    /// Names, sorted.
    pub fn sorted_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.by_name.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The name of a model.
    pub fn model_name(&self, model: ModelId) -> &str {
        &self.models[model.index()]
    }

    /// The id of a model that some publisher serves or served.
    pub fn model(&self, name: &str) -> Option<ModelId> {
        self.models.iter().position(|known| known == name).map(ModelId::at)
    }

    /// Add a publisher whose name is new.
    pub fn add(&mut self, name: &str, model: &str, seed: u64) -> PublisherId {
        let model = self.intern_model(model);
        let id = self.free.pop().unwrap_or_else(|| {
            self.publishers.push(None);
            PublisherId::at(self.publishers.len() - 1)
        });
        let publisher = Publisher::new(name.into(), model, id, seed);
        let names = Arc::make_mut(&mut self.names);
        names.resize(self.publishers.len(), Arc::clone(&publisher.name));
        names[id.index()] = Arc::clone(&publisher.name);
        self.publishers[id.index()] = Some(publisher);
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// Remove a publisher and return it.
    pub fn remove(&mut self, name: &str) -> Option<Publisher> {
        let id = self.by_name.remove(name)?;
        self.free.push(id);
        self.publishers[id.index()].take()
    }

    fn intern_model(&mut self, name: &str) -> ModelId {
        if let Some(known) = self.model(name) {
            return known;
        }
        // The place of a model that no publisher serves any more is used again: there are never more than publishers.
        let is_used = |at: usize| self.iter().any(|publisher| publisher.model == ModelId::at(at));
        match (0..self.models.len()).find(|&at| !is_used(at)) {
            Some(at) => {
                self.models[at] = name.to_owned();
                ModelId::at(at)
            }
            None => {
                self.models.push(name.to_owned());
                ModelId::at(self.models.len() - 1)
            }
        }
    }
}
