//! A hasher for maps whose keys are hashes already.

/// Uses 64-bit keys as their own hashes.
#[derive(Clone, Copy, Default)]
pub(crate) struct Identity;

pub(crate) struct IdentityHasher(u64);

impl std::hash::BuildHasher for Identity {
    type Hasher = IdentityHasher;
    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher(0)
    }
}

impl std::hash::Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only 64-bit keys are hashed")
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
