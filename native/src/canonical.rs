//! Canonical bytes of scalars: a tag per value, with the length in front of everything of variable length, so that two
//! sequences share their bytes only if they are equal. `kvsync_events/canonical.py` is the definition.

pub(crate) fn push_nil(out: &mut Vec<u8>) {
    out.push(b'N');
}

pub(crate) fn push_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { b'T' } else { b'F' });
}

pub(crate) fn push_int(out: &mut Vec<u8>, value: i128) {
    out.push(b'I');
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn push_double(out: &mut Vec<u8>, value: f64) {
    out.push(b'D');
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    push_sized(out, b'S', text);
}

pub(crate) fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_sized(out, b'B', bytes);
}

pub(crate) fn push_list(out: &mut Vec<u8>, length: usize) {
    out.push(b'L');
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

pub(crate) fn push_map(out: &mut Vec<u8>, length: usize) {
    out.push(b'M');
    out.extend_from_slice(&(length as u32).to_le_bytes());
}

fn push_sized(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
}
