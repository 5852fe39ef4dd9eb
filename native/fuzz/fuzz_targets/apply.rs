//! Any bytes as payloads, one after the other: no panic, a refused payload changes nothing, and what is held can be
//! saved and restored. `cargo +nightly fuzz run apply` in `native/`.
#![no_main]

use kvsync_native::core::Core;
use kvsync_native::publisher::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|payloads: Vec<Vec<u8>>| {
    let limits = Limits { max_blocks: 10_000, max_orphans: 100, ..Limits::default() };
    let mut core = Core::new(limits, 1);
    core.add_publisher("a", "m").unwrap();
    for payload in &payloads {
        let before = core.snapshot();
        if core.apply("a", payload).is_err() {
            assert_eq!(core.snapshot(), before);
        }
    }
    let saved = core.snapshot();
    let restored = Core::restored(&saved, limits).unwrap();
    assert_eq!(restored.snapshot(), saved);
    assert_eq!(restored.digest("a").unwrap().len(), core.digest("a").unwrap().len());
    core.remove_publisher("a");
    assert_eq!(core.shared.nodes.len(), 0);
});
