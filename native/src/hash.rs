//! Local hashes, prefix keys and the other hash functions. The definitions, and what a collision means, are in
//! `kvsync_indexer/core/keys.py`; both implementations must give the same numbers, which the differential tests check.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::canonical::{push_int, push_nil, push_text};
use crate::ids::{BlockId, EngineHash, LocalHash, PrefixKey};

const FOLD_PARENT: u64 = 0xA076_1D64_78BD_642F;
const FOLD_LOCAL: u64 = 0xE703_7ED1_A0B4_28DB;
const PLAIN: u64 = 0x8EBC_6AF0_9C88_C6E3;
const KEYED: u64 = 0x5899_65CC_7537_4CC3;

/// The 128-bit product of both numbers, its halves combined by exclusive or.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// The key of the block with this local hash after the block with this key.
#[inline(always)]
pub fn mix(parent: PrefixKey, local: LocalHash) -> PrefixKey {
    let (parent, local) = (parent.0, local.0);
    PrefixKey(fold(parent ^ FOLD_PARENT, local ^ FOLD_LOCAL) ^ parent ^ local.rotate_left(29))
}

/// Where a block belongs in a table. Publishers choose their hashes, so the core's seed spreads them.
#[inline(always)]
pub(crate) fn spread(id: BlockId, seed: u64) -> u64 {
    fold(id.0 ^ FOLD_LOCAL, seed ^ FOLD_PARENT)
}

/// The finalizer of splitmix64 (Steele, Lea and Flood, 2014).
#[inline(always)]
pub fn splitmix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// What one hash adds to the digest of a set (`kvsync_events.SetDigest`).
#[inline(always)]
pub(crate) fn digest_term(hash: EngineHash) -> u128 {
    let high = splitmix(hash.0.wrapping_add(0x9E37_79B9_7F4A_7C15));
    let low = splitmix(hash.0 ^ 0xD1B5_4A32_D192_ED03);
    (high as u128) << 64 | low as u128
}

/// The key of a block whose engine hash identifies it together with everything before it (`IndexCore.apply_runs`).
#[inline(always)]
pub(crate) fn identity_key(hash: EngineHash) -> PrefixKey {
    PrefixKey(splitmix(hash.0))
}

/// The local hash of a block without extra keys; `tokens` are its token ids as little-endian u32.
#[inline]
pub fn local_hash(tokens: &[u8], seed: u64) -> LocalHash {
    LocalHash(xxh3_64_with_seed(tokens, seed ^ PLAIN))
}

/// The local hash of a block with extra keys, which are given in canonical form.
pub(crate) fn keyed_local_hash(tokens: &[u8], extra: &[u8], seed: u64) -> LocalHash {
    let mut body = Vec::with_capacity(tokens.len() + extra.len() + 4);
    body.extend_from_slice(tokens);
    body.extend_from_slice(extra);
    body.extend_from_slice(&(tokens.len() as u32).to_le_bytes());
    LocalHash(xxh3_64_with_seed(&body, seed ^ KEYED))
}

/// The key that the first block of a chain has for its parent.
pub(crate) fn root_key(model: &str, lora: Option<&str>, salt: Option<&str>, block_size: u32, seed: u64) -> PrefixKey {
    let mut out = Vec::with_capacity(64);
    push_text(&mut out, model.as_bytes());
    for part in [lora, salt] {
        match part {
            Some(text) => push_text(&mut out, text.as_bytes()),
            None => push_nil(&mut out),
        }
    }
    push_int(&mut out, block_size as i128);
    PrefixKey(xxh3_64_with_seed(&out, seed))
}

/// The checksum of a snapshot.
pub fn checksum(data: &[u8]) -> u64 {
    xxh3_64(data)
}

/// Token ids as the bytes that are hashed. They must be little-endian in memory already (`to_le`).
#[inline(always)]
pub fn token_bytes(tokens: &[u32]) -> &[u8] {
    // Safety: every u32 is four initialised bytes, and u8 has no alignment.
    unsafe { std::slice::from_raw_parts(tokens.as_ptr().cast(), tokens.len() * 4) }
}

/// Start loading the cache line of a value that will be read soon.
#[inline(always)]
pub(crate) fn prefetch<T>(_at: &T) {
    #[cfg(target_arch = "x86_64")]
    // Safety: the address comes from a reference, and a prefetch has no effect on memory.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(_at).cast());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_input_of_mix_can_cancel_the_other() {
        for x in [0, 1, u64::MAX] {
            assert_ne!(mix(PrefixKey(FOLD_PARENT), LocalHash(x)), mix(PrefixKey(FOLD_PARENT), LocalHash(x ^ 1)));
            assert_ne!(mix(PrefixKey(x), LocalHash(FOLD_LOCAL)), mix(PrefixKey(x ^ 1), LocalHash(FOLD_LOCAL)));
        }
    }

    #[test]
    fn the_digest_is_the_one_of_the_events_package() {
        // SetDigest([1]).hex() of kvsync_events
        assert_eq!(format!("{:032x}", digest_term(EngineHash(1))), "910a2dec89025cc101d60447fea35413");
    }

    #[test]
    fn every_part_of_a_context_changes_the_root() {
        let mut roots = vec![
            root_key("m", None, None, 16, 0),
            root_key("m", None, None, 32, 0),
            root_key("m", None, None, 16, 1),
            root_key("m", Some("x"), None, 16, 0),
            root_key("m", None, Some("x"), 16, 0),
            root_key("mx", None, None, 16, 0),
        ];
        roots.sort_unstable();
        roots.dedup();
        assert_eq!(roots.len(), 6);
    }
}
