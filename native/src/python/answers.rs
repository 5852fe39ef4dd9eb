//! The two ends of a match request over HTTP, for the index service: token ids out of the JSON body, and the answer as
//! JSON.

use std::collections::HashMap;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyTuple};

use super::results::Matches;
use crate::json_tokens::split;

/// Split a body into `(the body without its token ids, the token ids as little-endian u32)`. None means that the whole
/// body has to be decoded in the usual way.
#[pyfunction]
pub fn split_token_ids<'py>(py: Python<'py>, body: &[u8]) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let Some(found) = split(body) else { return Ok(None) };
    let (before, after) = (&body[..found.from], &body[found.to..]);
    let rest = PyBytes::new_with(py, before.len() + after.len(), |whole| {
        whole[..before.len()].copy_from_slice(before);
        whole[before.len()..].copy_from_slice(after);
        Ok(())
    })?;
    let parts = [rest.into_any(), PyBytes::new(py, &found.tokens).into_any()];
    PyTuple::new(py, parts).map(Some)
}

/// One publisher as an answer names it.
struct Line {
    name: String,
    /// The row's JSON up to its first number.
    head: Vec<u8>,
    ready: bool,
}

/// What a publisher's row says of its stream: the state, when the publisher was last heard of, whether what is known of
/// it may be incomplete, and its block size if that is known.
type Status = (PyBackedStr, Option<f64>, bool, Option<u64>);

/// The publishers of one model, and answers to match queries about them as JSON.
///
/// `MatchAnswer` in `kvsync_indexer.service.match` defines the JSON, and a test compares the two. A table is made for one
/// set of publishers and replaced when that changes.
#[pyclass(frozen, module = "kvsync_native")]
pub struct AnswerTable {
    lines: Vec<Line>,
    places: HashMap<String, usize>,
}

#[pymethods]
impl AnswerTable {
    /// Rows of `(name, head, ready)`, in the order in which publishers that hold nothing are listed.
    #[new]
    fn new(rows: Vec<(String, Vec<u8>, bool)>) -> Self {
        let lines: Vec<Line> = rows.into_iter().map(|(name, head, ready)| Line { name, head, ready }).collect();
        let places = lines.iter().enumerate().map(|(at, line)| (line.name.clone(), at)).collect();
        AnswerTable { lines, places }
    }

    /// The whole answer. `statuses` has one entry per row, in the order of the rows.
    #[pyo3(signature = (matches, query_tokens, now, statuses, limit=None))]
    fn answer<'py>(
        &self,
        py: Python<'py>,
        matches: &Matches,
        query_tokens: u64,
        now: f64,
        statuses: Vec<Status>,
        limit: Option<i64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if statuses.len() != self.lines.len() {
            let message = format!("{} statuses for {} rows", statuses.len(), self.lines.len());
            return Err(PyValueError::new_err(message));
        }
        let most = limit.map_or(usize::MAX, |limit| limit.max(0) as usize);
        let mut size = u64::from(matches.found.first().map_or(0, |found| found.block_size));
        let (mut listed, mut rows) = (vec![false; self.lines.len()], 0);
        let mut out = Vec::with_capacity(64 + 192 * self.lines.len());
        for found in &matches.found {
            let Some(&place) = self.places.get(matches.name(found)) else { continue };
            listed[place] = true;
            if rows < most {
                let tiers = found.tiers.iter();
                let tiers = tiers.map(|(medium, blocks)| (&*matches.media[medium.index()], u64::from(blocks)));
                let counts = (u64::from(found.blocks), found.tokens());
                self.lines[place].write(&mut out, &statuses[place], now, counts, tiers);
                rows += 1;
            }
        }
        for place in (0..self.lines.len()).filter(|&place| !listed[place]) {
            if rows < most {
                self.lines[place].write(&mut out, &statuses[place], now, (0, 0), std::iter::empty());
                rows += 1;
            } else if size != 0 {
                break;
            }
            if size == 0 {
                size = statuses[place].3.unwrap_or(0);
            }
        }
        let blocks = query_tokens.checked_div(size).unwrap_or(0);
        let start = format!("{{\"block_size\":{size},\"query_blocks\":{blocks},\"matches\":[");
        out.pop(); // the comma after the last row, if there is a row
        PyBytes::new_with(py, start.len() + out.len() + 2, |whole| {
            let (head, rest) = whole.split_at_mut(start.len());
            head.copy_from_slice(start.as_bytes());
            rest[..out.len()].copy_from_slice(&out);
            rest[out.len()..].copy_from_slice(b"]}");
            Ok(())
        })
    }
}

impl Line {
    /// Append the publisher's row and a comma.
    fn write<'t>(
        &self,
        out: &mut Vec<u8>,
        (state, last_alive, incomplete, _): &Status,
        now: f64,
        (blocks, tokens): (u64, u64),
        tiers: impl Iterator<Item = (&'t str, u64)>,
    ) {
        out.extend_from_slice(&self.head);
        number(out, blocks);
        out.extend_from_slice(b",\"matched_tokens\":");
        number(out, tokens);
        out.extend_from_slice(b",\"tiers\":{");
        for (at, (medium, blocks)) in tiers.enumerate() {
            if at > 0 {
                out.push(b',');
            }
            text(out, medium);
            out.push(b':');
            number(out, blocks);
        }
        out.extend_from_slice(b"},\"state\":");
        text(out, if self.ready { state } else { "not_ready" });
        out.extend_from_slice(b",\"age_s\":");
        match last_alive {
            Some(heard) => microseconds(out, now - heard),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(if *incomplete { b",\"incomplete\":true}," } else { b",\"incomplete\":false}," });
    }
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Seconds to the microsecond. A negative number, which the clocks of two threads can give, is written as zero.
fn microseconds(out: &mut Vec<u8>, seconds: f64) {
    let all = (seconds.max(0.0) * 1e6).round_ties_even() as u64;
    number(out, all / 1_000_000);
    out.push(b'.');
    let mut rest = all % 1_000_000;
    let mut unit = 100_000;
    loop {
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
        if rest == 0 {
            break;
        }
        unit /= 10;
    }
}

/// A JSON string.
fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=31 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}
