//! What a walk knows of one publisher.

use super::found::Tiers;
use crate::groups::ResidencyRule;
use crate::ids::MediumId;

/// Blocks `start..end` that the publisher's slots held in the same way, and the tier they are in.
#[derive(Clone, Copy, Debug)]
struct Segment {
    start: u32,
    end: u32,
    medium: Option<MediumId>,
}

/// The state of one publisher in a walk along a chain of keys. A segment is a run of blocks with equal residency masks.
#[derive(Clone, Debug, Default)]
pub(super) struct MatchCursor {
    /// The stamp of the query whose walk the cursor takes part in.
    pub stamp: u64,
    /// The slots that hold the blocks of the current segment.
    pub mask: u64,
    /// The first block of the current segment.
    since: u32,
    /// The length of the match so far.
    pub blocks: u32,
    /// The tier of the current segment, for publishers without window groups.
    medium: MediumId,
    /// The publisher's match cannot get longer.
    pub out: bool,
    /// Slots of the publisher change at the current block.
    pub changed: bool,
    has_windows: bool,
    tiers: Tiers,
    /// Per window group: the first block of the current run of resident blocks, or NO_RUN.
    runs: Vec<u32>,
    /// For publishers with window groups: all segments so far.
    segments: Vec<Segment>,
}

const NO_RUN: u32 = u32::MAX;

impl MatchCursor {
    /// Join the walk of the query with this stamp.
    #[inline(always)]
    pub fn reset(&mut self, stamp: u64) {
        self.stamp = stamp;
        self.mask = 0;
        self.since = 0;
        self.blocks = 0;
        self.out = false;
        self.changed = false;
        self.tiers = Tiers::default();
    }

    /// Begin the first segment, whose mask is known; `rule` is None if no chain of this block size can match.
    #[inline]
    pub fn start(&mut self, rule: Option<&ResidencyRule>) {
        let Some(rule) = rule else {
            self.has_windows = false;
            self.out = true;
            return;
        };
        self.has_windows = !rule.windows.is_empty();
        if self.has_windows {
            self.runs.clear();
            self.runs.resize(rule.windows.len(), NO_RUN);
            self.segments.clear();
        }
        self.enter(rule);
    }

    /// Begin a segment with a new mask. The match ends here if a full-attention group does not hold the block.
    #[inline]
    pub fn enter(&mut self, rule: &ResidencyRule) {
        if self.has_windows {
            self.out = !rule.held(self.mask);
            return;
        }
        match rule.tier(self.mask) {
            Some(medium) if rule.held(self.mask) => self.medium = medium,
            _ => self.out = true,
        }
    }

    /// End the current segment before block `at`. Only publishers with window groups need their `rule` for that.
    #[inline]
    pub fn close<'r>(&mut self, at: u32, rule: impl FnOnce() -> Option<&'r ResidencyRule>) {
        if self.has_windows {
            if let Some(rule) = rule() {
                self.close_windows(rule, at);
            }
        } else if at > self.since {
            self.tiers.add(self.medium, at - self.since);
            self.since = at;
            self.blocks = at;
        }
    }

    /// End a segment of a publisher with window groups. The match reaches to its end if every window is resident there.
    fn close_windows(&mut self, rule: &ResidencyRule, at: u32) {
        if at == self.since {
            return;
        }
        let mut resident = true;
        for (run, window) in self.runs.iter_mut().zip(&rule.windows) {
            if self.mask & window.mask == 0 {
                *run = NO_RUN;
                resident = false;
            } else {
                if *run == NO_RUN {
                    *run = self.since;
                }
                resident &= at - *run >= window.needed.min(at);
            }
        }
        if resident {
            self.blocks = at;
        }
        self.segments.push(Segment { start: self.since, end: at, medium: rule.tier(self.mask) });
        self.since = at;
    }

    /// The tiers of the matched blocks, once all segments are closed.
    #[inline]
    pub fn take_tiers(&mut self) -> Tiers {
        if self.has_windows {
            for segment in &self.segments {
                let end = segment.end.min(self.blocks);
                if let (Some(medium), true) = (segment.medium, end > segment.start) {
                    self.tiers.add(medium, end - segment.start);
                }
            }
        }
        std::mem::take(&mut self.tiers)
    }
}
