//! The index's own keys. The definition, and what a collision means, is in `kvsync_indexer/core/keys.py`; both must
//! give the same numbers, which the differential tests check.

use xxhash_rust::xxh3::xxh3_64_with_seed;

const FOLD_PARENT: u64 = 0xA076_1D64_78BD_642F;
const FOLD_TEXT: u64 = 0xE703_7ED1_A0B4_28DB;
const PLAIN: u64 = 0x8EBC_6AF0_9C88_C6E3;
const KEYED: u64 = 0x5899_65CC_7537_4CC3;

/// 64 x 64 -> 128 bits, the halves folded together.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

/// The key of the block with this text after this parent.
#[inline(always)]
pub fn mix(parent: u64, text: u64) -> u64 {
    fold(parent ^ FOLD_PARENT, text ^ FOLD_TEXT) ^ parent ^ text.rotate_left(29)
}

/// Where an engine hash goes in a table: publishers choose their hashes, so they are spread with the core's seed.
#[inline(always)]
pub fn spread(hash: u64, seed: u64) -> u64 {
    fold(hash ^ FOLD_TEXT, seed ^ FOLD_PARENT)
}

/// Finalizer of splitmix64 (Steele, Lea, Flood, 2014).
#[inline(always)]
pub fn splitmix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// What one hash adds to the digest of a set (`kvsync_events.SetDigest`).
#[inline(always)]
pub fn digest_term(hash: u64) -> u128 {
    let high = splitmix(hash.wrapping_add(0x9E37_79B9_7F4A_7C15));
    let low = splitmix(hash ^ 0xD1B5_4A32_D192_ED03);
    (high as u128) << 64 | low as u128
}

/// Text of a block without keys of its own; `tokens` are its little-endian u32s.
#[inline]
pub fn text_of(tokens: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(tokens, seed ^ PLAIN)
}

/// Text of a block with keys of its own in canonical form.
pub fn keyed_text_of(tokens: &[u8], extra: &[u8], seed: u64) -> u64 {
    let mut body = Vec::with_capacity(tokens.len() + extra.len() + 4);
    body.extend_from_slice(tokens);
    body.extend_from_slice(extra);
    body.extend_from_slice(&(tokens.len() as u32).to_le_bytes());
    xxh3_64_with_seed(&body, seed ^ KEYED)
}

/// What the first block of a chain has for a parent.
pub fn root_key(model: &str, lora: Option<&str>, salt: Option<&str>, block_size: u32, seed: u64) -> u64 {
    let mut out = Vec::with_capacity(64);
    push_text(&mut out, model);
    for part in [lora, salt] {
        match part {
            Some(text) => push_text(&mut out, text),
            None => out.push(b'N'),
        }
    }
    push_int(&mut out, block_size as i128);
    xxh3_64_with_seed(&out, seed)
}

// Canonical bytes: a tag a value, lengths in front; see keys.py.

pub fn push_int(out: &mut Vec<u8>, value: i128) {
    out.push(b'I');
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn push_double(out: &mut Vec<u8>, value: f64) {
    out.push(b'D');
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn push_text(out: &mut Vec<u8>, text: &str) {
    push_sized(out, b'S', text.as_bytes());
}

pub fn push_sized(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
}

pub fn push_list(out: &mut Vec<u8>, length: usize) {
    out.push(b'L');
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

/// Of a snapshot.
pub fn checksum(data: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(data)
}

/// Token ids as the bytes that are hashed.
#[inline(always)]
pub fn token_bytes(tokens: &[u32]) -> &[u8] {
    // Safety: any u32 is four bytes; on a big-endian machine the caller has swapped them (`to_le`).
    unsafe { std::slice::from_raw_parts(tokens.as_ptr().cast(), tokens.len() * 4) }
}

/// Ask for a cache line that will be read soon.
#[inline(always)]
pub fn prefetch<T>(_at: &T) {
    #[cfg(target_arch = "x86_64")]
    // Safety: a prefetch of a valid reference; it has no effect on memory.
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
            assert_ne!(mix(FOLD_PARENT, x), mix(FOLD_PARENT, x ^ 1));
            assert_ne!(mix(x, FOLD_TEXT), mix(x ^ 1, FOLD_TEXT));
        }
    }

    #[test]
    fn the_digest_is_the_one_of_the_events_package() {
        assert_eq!(
            format!("{:032x}", digest_term(1)),
            format!("{:032x}", {
                let high = splitmix(1u64.wrapping_add(0x9E37_79B9_7F4A_7C15)) as u128;
                high << 64 | splitmix(1 ^ 0xD1B5_4A32_D192_ED03) as u128
            })
        );
    }

    #[test]
    fn contexts_have_roots_of_their_own() {
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
