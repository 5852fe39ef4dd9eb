//! The whole index: publishers by name, and what they share.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::hash::prefetch;
use crate::publisher::{Applied, Limits, Publisher, Shared};
use crate::table::ORPHAN;
use crate::walk::Lanes;
use crate::wire::Batch;

#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// No publisher of that name.
    Unknown(String),
    /// It exists with another model.
    Conflict(String),
    /// A hard limit.
    Limit(String),
    /// A hard limit, by the payload at this place among several.
    LimitAt(usize, String),
    /// The payload is no event batch.
    Decode(String),
    /// The query makes no sense.
    Query(String),
    /// The snapshot cannot be trusted.
    Snapshot(String),
}

impl Fault {
    /// Says which payload of several it was.
    fn of_batch(self, at: usize, of: usize) -> Self {
        let named = |message| format!("batch {} of {of}: {message}", at + 1);
        match self {
            Fault::Limit(message) => Fault::LimitAt(at, named(message)),
            Fault::Decode(message) => Fault::Decode(named(message)),
            other => other,
        }
    }
}

/// One row of a publisher's dump, sorted by hash, medium and group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub hash: u64,
    pub spelled: Option<Box<[u8]>>,
    pub parent: Option<crate::publisher::Spelled>,
    pub medium: u16,
    pub group: i32,
    pub copies: u16,
    pub attached: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DigestRow {
    pub medium: u16,
    pub group: i32,
    pub count: u64,
    pub digest: u128,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub publishers: usize,
    pub blocks: usize,
    pub orphans: usize,
    pub keys: usize,
    pub bytes: usize,
    pub conflicts: u64,
    pub refused: u64,
    pub holder_sets: usize,
}

pub struct Core {
    pub shared: Shared,
    pub publishers: Vec<Option<Publisher>>,
    pub models: Vec<String>,
    pub(crate) lanes: Lanes,
    names: HashMap<String, u32>,
    /// Names by publisher's number; shared with answers, so that a change makes a new list.
    labels: Arc<Vec<Arc<str>>>,
    free: Vec<u32>,
    batch: Batch,
    /// The publisher that was asked for last.
    latest: Cell<u32>,
}

/// Token buffer elements kept between payloads (16 MiB).
const KEEP: usize = 4 << 20;

impl Core {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Core {
            shared: Shared::new(limits, seed),
            publishers: Vec::new(),
            models: Vec::new(),
            lanes: Lanes::default(),
            names: HashMap::new(),
            labels: Arc::default(),
            free: Vec::new(),
            batch: Batch::default(),
            latest: Cell::new(0),
        }
    }

    pub fn add_publisher(&mut self, name: &str, model: &str) -> Result<u32, Fault> {
        if let Some(&number) = self.names.get(name) {
            let known = &self.models[self.get(number).model as usize];
            if known != model {
                return Err(Fault::Conflict(format!("publisher {name} serves {known}, not {model}")));
            }
            return Ok(number);
        }
        let most = self.shared.limits.max_publishers;
        if self.names.len() >= most {
            return Err(Fault::Limit(format!("one publisher over the limit of {most}")));
        }
        let model = self.intern_model(model);
        let number = self.free.pop().unwrap_or_else(|| {
            self.publishers.push(None);
            self.publishers.len() as u32 - 1
        });
        let publisher = Publisher::new(name.into(), model, number, self.shared.seed);
        let labels = Arc::make_mut(&mut self.labels);
        labels.resize(self.publishers.len(), Arc::clone(&publisher.name));
        labels[number as usize] = Arc::clone(&publisher.name);
        self.publishers[number as usize] = Some(publisher);
        self.names.insert(name.to_owned(), number);
        self.lanes.changed();
        Ok(number)
    }

    fn intern_model(&mut self, model: &str) -> u32 {
        if let Some(at) = self.models.iter().position(|known| known == model) {
            return at as u32;
        }
        // A name nobody uses any more makes room: there are never more models than publishers.
        let used = |at: usize| self.publishers.iter().flatten().any(|one| one.model as usize == at);
        match (0..self.models.len()).find(|&at| !used(at)) {
            Some(at) => {
                self.models[at] = model.to_owned();
                at as u32
            }
            None => {
                self.models.push(model.to_owned());
                self.models.len() as u32 - 1
            }
        }
    }

    pub fn number(&self, name: &str) -> Option<u32> {
        // Payloads of one publisher come one after the other.
        if let Some(Some(publisher)) = self.publishers.get(self.latest.get() as usize) {
            if *publisher.name == *name {
                return Some(publisher.number);
            }
        }
        let number = self.names.get(name).copied()?;
        self.latest.set(number);
        Some(number)
    }

    /// Names by publisher's number, as of now.
    pub fn labels(&self) -> Arc<Vec<Arc<str>>> {
        Arc::clone(&self.labels)
    }

    pub fn find(&self, name: &str) -> Result<u32, Fault> {
        self.number(name).ok_or_else(|| Fault::Unknown(format!("no publisher named {name}")))
    }

    pub fn get(&self, number: u32) -> &Publisher {
        self.publishers[number as usize].as_ref().expect("a known publisher")
    }

    /// Decode a payload and apply it, all or nothing.
    pub fn apply(&mut self, name: &str, data: &[u8]) -> Result<Applied, Fault> {
        let number = self.find(name)?;
        let mut tally = Applied::default();
        self.apply_to(number, data, &mut tally)?;
        Ok(tally)
    }

    /// As `apply`; what was done is added to `tally`.
    pub fn apply_to(&mut self, number: u32, data: &[u8], tally: &mut Applied) -> Result<(), Fault> {
        let publisher = self.publishers[number as usize].as_mut().expect("a known publisher");
        let early = |hash| publisher.table.prefetch(hash);
        let limits = &self.shared.limits.wire;
        self.batch.decode(data, limits, early).map_err(|reason| Fault::Decode(reason.to_owned()))?;
        publisher.check(&self.shared, &self.batch, data).map_err(Fault::Limit)?;
        let model = &self.models[publisher.model as usize];
        publisher.apply(&mut self.shared, model, &self.batch, data, tally);
        self.batch.shrink(KEEP);
        Ok(())
    }

    /// Apply payloads in order; the first that fails is named, those before it stay applied.
    pub fn apply_many(&mut self, name: &str, payloads: &[&[u8]], tally: &mut Applied) -> Result<(), Fault> {
        let number = self.find(name)?;
        for (at, data) in payloads.iter().enumerate() {
            if let Some(next) = payloads.get(at + 1) {
                next.iter().step_by(64).take(8).for_each(prefetch);
            }
            self.apply_to(number, data, tally).map_err(|fault| fault.of_batch(at, payloads.len()))?;
        }
        Ok(())
    }

    pub fn remove_publisher(&mut self, name: &str) -> usize {
        let Some(number) = self.names.remove(name) else {
            return 0;
        };
        let dropped = match self.publishers[number as usize].take() {
            Some(mut publisher) => publisher.forget(&mut self.shared),
            None => 0,
        };
        self.free.push(number);
        self.lanes.changed();
        dropped
    }

    pub fn clear_publisher(&mut self, name: &str) -> Result<usize, Fault> {
        let number = self.find(name)?;
        let publisher = self.publishers[number as usize].as_mut().expect("a known publisher");
        Ok(publisher.forget(&mut self.shared))
    }

    /// Names, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    pub fn digest(&self, name: &str) -> Result<Vec<DigestRow>, Fault> {
        let publisher = self.get(self.find(name)?);
        let mut rows: Vec<DigestRow> = publisher
            .slots
            .iter()
            .filter(|slot| slot.count > 0)
            .map(|slot| DigestRow { medium: slot.medium, group: slot.group, count: slot.count, digest: slot.digest })
            .collect();
        rows.sort_by_key(|row| (self.shared.media.name(row.medium), row.group));
        Ok(rows)
    }

    /// Every resident block; parents of attached ones by the tag of their key, the smallest hash where several fit.
    pub fn dump(&self, name: &str) -> Result<Vec<Row>, Fault> {
        let publisher = self.get(self.find(name)?);
        let mut by_tag: HashMap<u32, u64> = HashMap::with_capacity(publisher.table.len());
        for entry in publisher.table.iter().filter(|entry| entry.node != ORPHAN) {
            let tag = self.shared.nodes.get(entry.node).key as u32;
            by_tag.entry(tag).and_modify(|hash| *hash = (*hash).min(entry.hash)).or_insert(entry.hash);
        }
        let spelled = |hash: u64| publisher.spelled.get(&hash).cloned();
        let mut rows: Vec<Row> = publisher
            .table
            .iter()
            .map(|entry| {
                let slot = &publisher.slots[entry.slot as usize];
                let attached = entry.node != ORPHAN;
                let parent = if attached {
                    let tag = self.shared.nodes.get(entry.node).parent_tag;
                    let above = if tag == 0 { None } else { by_tag.get(&tag).copied() };
                    above.map(|hash| match spelled(hash) {
                        Some(bytes) => crate::publisher::Spelled::Bytes(bytes),
                        None => crate::publisher::Spelled::Number(hash),
                    })
                } else {
                    publisher.orphans.get(&entry.hash).and_then(|orphan| orphan.parent.clone())
                };
                Row {
                    hash: entry.hash,
                    spelled: spelled(entry.hash),
                    parent,
                    medium: slot.medium,
                    group: slot.group,
                    copies: entry.copies,
                    attached,
                }
            })
            .collect();
        let media = &self.shared.media;
        rows.sort_unstable_by(|one, two| {
            (one.hash, media.name(one.medium), one.group).cmp(&(two.hash, media.name(two.medium), two.group))
        });
        Ok(rows)
    }

    pub fn stats(&self, name: Option<&str>) -> Result<Stats, Fault> {
        let chosen: Vec<&Publisher> = match name {
            Some(name) => vec![self.get(self.find(name)?)],
            None => self.publishers.iter().flatten().collect(),
        };
        let mut stats = Stats { publishers: chosen.len(), ..Stats::default() };
        for publisher in &chosen {
            stats.blocks += publisher.table.len();
            stats.orphans += publisher.orphans.len();
            stats.bytes += publisher.bytes();
            stats.conflicts += publisher.conflicts;
            stats.refused += publisher.refused;
        }
        if name.is_none() {
            stats.keys = self.shared.nodes.len();
            stats.bytes += self.shared.nodes.bytes() + self.lanes.bytes();
            stats.holder_sets = self.shared.nodes.holders.distinct();
        } else {
            let mut nodes: Vec<u32> =
                chosen[0].table.iter().map(|entry| entry.node).filter(|&node| node != ORPHAN).collect();
            nodes.sort_unstable();
            nodes.dedup();
            stats.keys = nodes.len();
        }
        Ok(stats)
    }
}
