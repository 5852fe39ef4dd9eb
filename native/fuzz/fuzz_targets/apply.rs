//! Applies arbitrary bytes as a sequence of payloads, each preceded by its length in two little-endian bytes. The core
//! must not panic, a refused payload must change nothing, and a snapshot must restore the same state.
//! docs/testing/fuzzing.md says how to run it.
#![no_main]

use kvsync_native::core::Core;
use kvsync_native::limits::Limits;
use libfuzzer_sys::fuzz_target;

fn payloads(mut data: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while let [low, high, rest @ ..] = data {
        let len = u16::from_le_bytes([*low, *high]) as usize;
        let (payload, behind) = rest.split_at(len.min(rest.len()));
        found.push(payload);
        data = behind;
    }
    found
}

/// The digests without the ids of media, which differ between cores.
fn digest(core: &Core, name: &str) -> Vec<(i32, u64, u128)> {
    core.digest(name).unwrap().iter().map(|row| (row.group.0, row.count, row.digest)).collect()
}

fuzz_target!(|data: &[u8]| {
    let limits = Limits { max_blocks: 10_000, max_orphans: 100, ..Limits::default() };
    let mut core = Core::new(limits, 1);
    core.add_publisher("a", "m").unwrap();
    core.add_publisher("b", "m").unwrap();
    for (at, payload) in payloads(data).into_iter().enumerate() {
        let name = if at % 4 == 3 { "b" } else { "a" };
        let before = core.snapshot();
        if core.apply(name, payload).is_err() {
            assert_eq!(core.snapshot(), before);
        }
    }
    let saved = core.snapshot();
    let restored = Core::restored(&saved, limits).unwrap();
    assert_eq!(restored.snapshot(), saved);
    for name in ["a", "b"] {
        assert_eq!(digest(&restored, name), digest(&core, name));
    }
    core.remove_publisher("a");
    core.remove_publisher("b");
    assert_eq!(core.stats(None).unwrap().keys, 0);
});
