//! The whole index: publishers, the blocks that they share, and the operations on them.

mod reading;

use std::sync::Arc;

pub use reading::{DigestRow, Stats};

use crate::error::CoreError;
pub use crate::frozen::BlockRow;
use crate::hash::prefetch;
use crate::ids::{PrefixKey, PublisherId, SizeNumber};
use crate::limits::Limits;
use crate::matching::{Found, Index, Matcher, PromptKeys};
use crate::publisher::Applied;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::wire::Batch;

/// The index core. `IndexCore` in `kvsync_indexer/core/protocol.py` says what each operation promises.
pub struct Core {
    pub(crate) shared: Shared,
    pub(crate) registry: Registry,
    matcher: Matcher,
    batch: Batch,
    /// Publishers whose slots or groups changed since their plans were made.
    unplanned: Vec<PublisherId>,
}

/// The context of a prompt: what must be equal, besides its tokens, for a block to be the same block.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The model's name.
    pub model: &'a str,
    /// The adapter's name, or its number in digits.
    pub lora: Option<&'a str>,
    /// The cache salt.
    pub salt: Option<&'a str>,
}

impl Context<'_> {
    /// The prefix keys of a prompt; `tokens` are little-endian u32.
    pub(crate) fn keys<'t>(&self, tokens: &'t [u8], block_size: u32, seed: u64) -> PromptKeys<'t> {
        let root = crate::hash::root_key(self.model, self.lora, self.salt, block_size, seed);
        PromptKeys::new(tokens, block_size, root, seed)
    }
}

/// How far a run of payloads is applied.
pub(crate) struct Run {
    id: PublisherId,
    /// The payload that is being applied, or the next one.
    pub at: usize,
    is_begun: bool,
    /// The next payload is in the core's buffer already.
    pub is_decoded: bool,
    work: u64,
}

impl Run {
    pub fn new(id: PublisherId) -> Self {
        Run { id, at: 0, is_begun: false, is_decoded: false, work: 0 }
    }

    /// Whether the next payload has not been decoded.
    pub fn is_before_payload(&self) -> bool {
        !self.is_begun && !self.is_decoded
    }
}

/// The token buffer that is kept between payloads, in elements (16 MiB).
const KEPT_TOKENS: usize = 4 << 20;

impl Core {
    /// An empty core; `seed` goes into every key.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Core {
            shared: Shared::new(limits, seed),
            registry: Registry::default(),
            matcher: Matcher::default(),
            batch: Batch::default(),
            unplanned: Vec::new(),
        }
    }

    /// The seed of the keys.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Make a publisher known. Doing so again with the same model is a no-op.
    pub fn add_publisher(&mut self, name: &str, model: &str) -> Result<PublisherId, CoreError> {
        if let Some(id) = self.registry.id(name) {
            let known = self.registry.model_name(self.registry.get(id).model);
            if known != model {
                let message = format!("publisher {name} serves {known}, not {model}");
                return Err(CoreError::PublisherConflict(message));
            }
            return Ok(id);
        }
        let most = self.shared.limits.max_publishers;
        if self.registry.len() >= most {
            return Err(CoreError::limit(format!("one publisher over the limit of {most}")));
        }
        self.matcher.publishers_changed();
        Ok(self.registry.add(name, model, self.shared.seed))
    }

    /// Forget a publisher.
    pub fn remove_publisher(&mut self, name: &str) {
        if let Some(mut publisher) = self.registry.remove(name) {
            self.matcher.publishers_changed();
            publisher.forget(&mut self.shared);
        }
    }

    /// Drop the blocks of a publisher and what was learnt from its events.
    pub fn clear_publisher(&mut self, name: &str) -> Result<(), CoreError> {
        let id = self.registry.find(name)?;
        self.registry.get_mut(id).0.forget(&mut self.shared);
        Ok(())
    }

    /// Begin to drop the blocks of a publisher, and return how many there are.
    pub(crate) fn begin_forget(&mut self, name: &str) -> Result<usize, CoreError> {
        let id = self.registry.find(name)?;
        Ok(self.registry.get_mut(id).0.begin_forget())
    }

    /// Drop about `left` further blocks; true if all are gone.
    pub(crate) fn forget_more(&mut self, name: &str, left: i64) -> bool {
        self.registry.id(name).is_none_or(|id| self.registry.get_mut(id).0.forget_more(&mut self.shared, left))
    }

    /// Say whether a publisher announces the removal of a device block only when its last copy goes.
    pub fn set_last_copy_only(&mut self, name: &str, on: bool) -> Result<(), CoreError> {
        let id = self.registry.find(name)?;
        self.registry.get_mut(id).0.last_copy_only = on;
        Ok(())
    }

    /// The id of a publisher, if it is known.
    pub fn publisher_id(&self, name: &str) -> Option<PublisherId> {
        self.registry.id(name)
    }

    /// The names of the publishers, sorted.
    pub fn publishers(&self) -> Vec<String> {
        self.registry.sorted_names()
    }

    /// The names of media by id, as of now.
    pub fn medium_names(&self) -> Arc<Vec<Arc<str>>> {
        self.shared.media.names()
    }

    /// The names of the publishers by id, as of now.
    pub fn publisher_names(&self) -> Arc<Vec<Arc<str>>> {
        self.registry.names()
    }

    /// Decode a payload and apply it, all or nothing.
    pub fn apply(&mut self, name: &str, data: &[u8]) -> Result<Applied, CoreError> {
        let mut applied = Applied::default();
        let mut run = Run::new(self.registry.find(name)?);
        self.apply_slice(&mut run, &[data], u64::MAX, i64::MAX, &mut applied)?;
        Ok(applied)
    }

    /// Decode the next payload of a run, and check it.
    #[inline(always)]
    fn begin(&mut self, run: &mut Run, data: &[u8]) -> Result<(), CoreError> {
        let (publisher, _) = self.registry.get_mut(run.id);
        if !run.is_decoded {
            let early = |hash: crate::ids::EngineHash| publisher.table.prefetch(hash.in_size(SizeNumber(0)));
            self.batch.decode(data, &self.shared.limits.wire, early)?;
        }
        run.is_decoded = false;
        publisher.check(&self.shared, &self.batch, data)?;
        publisher.begin();
        run.is_begun = true;
        Ok(())
    }

    /// Apply the payloads of a run further, until about `left` blocks were worked on. True if the run is done, or if its
    /// work has reached the budget. The error is that of the first payload that fails, `run.at`; those before it stay
    /// applied.
    pub(crate) fn apply_slice(
        &mut self,
        run: &mut Run,
        payloads: &[&[u8]],
        budget: u64,
        mut left: i64,
        applied: &mut Applied,
    ) -> Result<bool, CoreError> {
        while let Some(&data) = payloads.get(run.at) {
            if !run.is_begun {
                if let Some(next) = payloads.get(run.at + 1) {
                    next.iter().step_by(64).take(8).for_each(prefetch);
                }
                self.begin(run, data)?;
                left -= data.len() as i64 / 64;
            }
            let (publisher, model) = self.registry.get_mut(run.id);
            let is_done = publisher.apply_more(&mut self.shared, model, (&self.batch, data), &mut left, applied);
            self.list_for_plan(run.id);
            if !is_done {
                return Ok(false);
            }
            self.batch.shrink(KEPT_TOKENS);
            run.is_begun = false;
            run.at += 1;
            run.work += data.len() as u64 / 64;
            if run.work + applied.cleared + applied.attached >= budget {
                return Ok(true);
            }
            if left <= 0 {
                return Ok(run.at == payloads.len());
            }
        }
        Ok(true)
    }

    /// The buffer that payloads are decoded into, for a caller that decodes one without the core and puts it back.
    pub(crate) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Apply payloads in order, until the work done reaches the budget. The error names the first that fails; those
    /// before it stay applied.
    pub fn apply_many(
        &mut self,
        name: &str,
        payloads: &[&[u8]],
        budget: u64,
        applied: &mut Applied,
    ) -> Result<(), CoreError> {
        let mut run = Run::new(self.registry.find(name)?);
        let done = self.apply_slice(&mut run, payloads, budget, i64::MAX, applied);
        done.map(|_| ()).map_err(|error| error.in_batch(run.at, payloads.len()))
    }

    /// Apply the block transitions of an engine in the same process: stored and removed events without tokens, whose
    /// hashes identify the blocks. `data` holds the names of media.
    pub fn apply_runs(&mut self, name: &str, batch: &Batch, data: &[u8]) -> Result<Applied, CoreError> {
        let id = self.registry.find(name)?;
        let mut applied = Applied::default();
        let (publisher, _) = self.registry.get_mut(id);
        publisher.check(&self.shared, batch, data)?;
        publisher.apply_runs(&mut self.shared, batch, data, &mut applied);
        self.list_for_plan(id);
        Ok(applied)
    }

    /// Note that the plan of a publisher has to be made again, if it has.
    fn list_for_plan(&mut self, id: PublisherId) {
        let (publisher, _) = self.registry.get_mut(id);
        if publisher.needs_plan && !publisher.is_listed {
            publisher.is_listed = true;
            self.unplanned.push(id);
        }
    }

    /// Make the plans of publishers whose slots or groups changed.
    fn make_plans(&mut self) {
        for id in self.unplanned.drain(..) {
            if let Some(publisher) = self.registry.in_use(id).filter(|publisher| publisher.needs_plan) {
                publisher.make_plan(&self.shared.media);
            }
            if let Some(publisher) = self.registry.in_use(id) {
                publisher.is_listed = false;
            }
        }
    }

    /// The block sizes that publishers of the model use, ascending.
    pub fn block_sizes(&mut self, model: &str) -> Vec<u32> {
        self.make_plans();
        let Some(model) = self.registry.model(model) else {
            return Vec::new();
        };
        let mut sizes: Vec<u32> = Vec::new();
        for publisher in self.registry.iter().filter(|publisher| publisher.model == model) {
            for &(size, _) in &publisher.plan.rules {
                if !sizes.contains(&size) {
                    sizes.push(size);
                }
            }
        }
        sizes.sort_unstable();
        sizes
    }

    /// Who holds how much of a prompt. `tokens` are little-endian u32; `only` restricts the answer to some publishers.
    pub fn match_prompt(&mut self, context: Context, tokens: &[u8], only: Option<&[String]>) -> Vec<Found> {
        let (sizes, seed) = (self.block_sizes(context.model), self.shared.seed);
        let chains = sizes.into_iter().map(|size| (size, context.keys(tokens, size, seed)));
        self.match_chains(context.model, chains, only)
    }

    /// Who holds how much of a prompt, whose keys are given for every block size of the model's publishers.
    pub fn match_chains<K: Iterator<Item = PrefixKey>>(
        &mut self,
        model: &str,
        chains: impl Iterator<Item = (u32, K)> + Clone,
        only: Option<&[String]>,
    ) -> Vec<Found> {
        self.make_plans();
        let index = Index { registry: &self.registry, shared: &self.shared };
        self.matcher.find(index, model, only.map(|names| names.iter().map(String::as_str)), chains)
    }
}
