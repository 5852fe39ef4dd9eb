//! Restores arbitrary bodies with a valid header and checksum. A snapshot must be refused, or give a core that can be
//! read. docs/testing/fuzzing.md says how to run it.
#![no_main]

use kvsync_native::core::Core;
use kvsync_native::limits::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut data = b"KVSYNCIX\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    data.extend_from_slice(&(body.len() as u64).to_le_bytes());
    data.extend_from_slice(body);
    let check = kvsync_native::hash::checksum(&data);
    data.extend_from_slice(&check.to_le_bytes());
    if let Ok(core) = Core::restored(&data, Limits::default()) {
        for name in core.publishers() {
            assert!(core.dump(&name).is_ok());
        }
    }
});
