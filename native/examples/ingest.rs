//! Measures how fast payloads are applied, phase by phase, and beside a bare loop over two hash maps. The difference is
//! what the core costs on top of reading the bytes and remembering the blocks.
//!
//!     cargo run --release --no-default-features --example ingest [-- BLOCKS_PER_EVENT]
//!
//! With an argument, only `apply` runs, repeatedly and without output, for use under a profiler.
use kvsync_native::core::Core;
use kvsync_native::hash::{local_hash, splitmix, token_bytes};
use kvsync_native::limits::Limits;
use kvsync_native::reference::two_maps;
use kvsync_native::wire::{Batch, WireLimits};

const BLOCKS: usize = 204_800;

/// Payloads of one event each, as vLLM 0.24 and newer send them.
fn payloads(blocks_per_event: usize) -> Vec<Vec<u8>> {
    let mut state = blocks_per_event as u64;
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        splitmix(state)
    };
    (0..BLOCKS / blocks_per_event)
        .map(|_| {
            let mut out = vec![0x93, 0xcb];
            out.extend_from_slice(&1.5f64.to_be_bytes());
            out.extend_from_slice(&[0x91, 0x88]);
            let text = |out: &mut Vec<u8>, text: &str| {
                out.push(0xa0 | text.len() as u8);
                out.extend_from_slice(text.as_bytes());
            };
            let array = |out: &mut Vec<u8>, len: usize| {
                out.push(0xdc);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            };
            text(&mut out, "type");
            text(&mut out, "BlockStored");
            text(&mut out, "block_hashes");
            array(&mut out, blocks_per_event);
            for _ in 0..blocks_per_event {
                out.push(0xcf);
                out.extend_from_slice(&(next() | 1 << 63).to_be_bytes());
            }
            text(&mut out, "parent_block_hash");
            out.push(0xc0);
            text(&mut out, "token_ids");
            array(&mut out, blocks_per_event * 16);
            for _ in 0..blocks_per_event * 16 {
                out.push(0xce);
                out.extend_from_slice(&(65_536 + next() as u32 % 90_000).to_be_bytes());
            }
            text(&mut out, "block_size");
            out.push(16);
            text(&mut out, "lora_id");
            out.push(0xc0);
            text(&mut out, "medium");
            text(&mut out, "GPU");
            text(&mut out, "lora_name");
            out.push(0xc0);
            out.push(0);
            out
        })
        .collect()
}

fn best(mut run: impl FnMut() -> f64) -> f64 {
    (0..9).map(|_| run()).fold(f64::MAX, f64::min) * 1e9 / BLOCKS as f64
}

extern "C" {
    fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
}

/// Processor time of this thread in seconds, so that other work on the machine does not count. Needs 64-bit Linux.
fn thread_seconds() -> f64 {
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0; 2];
    // Safety: `time` has the layout of a timespec on 64-bit Linux.
    assert_eq!(unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    time[0] as f64 + time[1] as f64 / 1e9
}

fn timed(work: impl FnOnce()) -> f64 {
    let start = thread_seconds();
    work();
    thread_seconds() - start
}

fn main() {
    println!("ns per block; {BLOCKS} blocks of 16 tokens, best of 9");
    let only = std::env::args().nth(1).and_then(|size| size.parse::<usize>().ok());
    for size in [1, 32, 512].into_iter().filter(|size| only.is_none_or(|only| only == *size)) {
        let all = payloads(size);
        if only.is_some() {
            for _ in 0..30 {
                let mut core = Core::new(Limits::default(), 0);
                core.add_publisher("p", "m").unwrap();
                all.iter().for_each(|data| assert!(core.apply("p", data).is_ok()));
            }
            continue;
        }
        let limits = WireLimits::default();
        let mut batch = Batch::default();
        let decode = best(|| timed(|| all.iter().for_each(|data| batch.decode(data, &limits, |_| ()).unwrap())));
        let reference = best(|| timed(|| assert!(two_maps(all.iter().map(Vec::as_slice)).is_ok())));
        let apply = best(|| {
            let mut core = Core::new(Limits::default(), 0);
            core.add_publisher("p", "m").unwrap();
            timed(|| all.iter().for_each(|data| assert!(core.apply("p", data).is_ok())))
        });
        let hashes = best(|| {
            let mut sum = 0;
            let tokens: Vec<u32> = (0..16 * size as u32).collect();
            let time = timed(|| {
                for _ in 0..BLOCKS / size {
                    for block in std::hint::black_box(&tokens).chunks_exact(16) {
                        sum ^= local_hash(token_bytes(block), 1).0;
                    }
                }
            });
            std::hint::black_box(sum);
            time
        });
        println!(
            "{size:4} per event: decode {decode:6.1}  hash {hashes:5.1}  two maps {reference:6.1}  apply {apply:6.1}"
        );
    }
}
