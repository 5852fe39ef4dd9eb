//! What the index service asks of the native part beside the core itself: the two ends of a match request.

use std::collections::HashMap;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::results::Matches;
use crate::json_tokens::split;

/// `(the body without them, token ids as little-endian u32)`; None: decode the body in the usual way.
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

/// Name, head, ready, machine, link: see `Line`.
type RowParts = (String, Vec<u8>, bool, Py<PyAny>, Py<PyAny>);

/// One publisher as an answer names it.
struct Line {
    name: String,
    /// The row's JSON up to its first number.
    head: Vec<u8>,
    ready: bool,
    machine: Py<PyAny>,
    link: Py<PyAny>,
}

/// The publishers of one model, and answers to match queries about them as JSON.
///
/// What the JSON is, is said by `MatchAnswer` in `kvsync_indexer.service.match`; a test compares the two. It is made for
/// one set of publishers and thrown away when that changes.
#[pyclass(frozen, module = "kvsync_native")]
pub struct AnswerTable {
    lines: Vec<Line>,
    places: HashMap<String, usize>,
}

#[pymethods]
impl AnswerTable {
    /// Rows of `(name, head, ready, machine, link)`, in the order in which they are listed when they hold nothing.
    #[new]
    fn new(rows: Vec<RowParts>) -> Self {
        let lines: Vec<Line> = rows
            .into_iter()
            .map(|(name, head, ready, machine, link)| Line { name, head, ready, machine, link })
            .collect();
        let places = lines.iter().enumerate().map(|(at, line)| (line.name.clone(), at)).collect();
        AnswerTable { lines, places }
    }

    /// The whole answer.
    #[pyo3(signature = (matches, query_tokens, now, limit=None))]
    fn answer<'py>(
        &self,
        py: Python<'py>,
        matches: &Matches,
        query_tokens: u64,
        now: f64,
        limit: Option<i64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let most = limit.map_or(usize::MAX, |limit| limit.max(0) as usize);
        let mut size = u64::from(matches.found.first().map_or(0, |found| found.block_size));
        let (mut listed, mut rows) = (vec![false; self.lines.len()], 0);
        let mut out = Vec::with_capacity(64 + 192 * self.lines.len());
        for found in &matches.found {
            let Some(&place) = self.places.get(matches.name(found)) else { continue };
            listed[place] = true;
            if rows < most {
                let tiers = found.tiers.first.iter().chain(&found.tiers.more).copied();
                let tiers = tiers.map(|(medium, blocks)| (&*matches.media[medium as usize], u64::from(blocks)));
                let tokens = u64::from(found.blocks) * u64::from(found.block_size);
                self.row(py, &mut out, place, now, (u64::from(found.blocks), tokens), tiers)?;
                rows += 1;
            }
        }
        for place in (0..self.lines.len()).filter(|&place| !listed[place]) {
            if rows < most {
                self.row(py, &mut out, place, now, (0, 0), std::iter::empty())?;
                rows += 1;
            } else if size != 0 {
                break;
            }
            if size == 0 {
                let known = self.lines[place].link.bind(py).getattr(intern!(py, "block_size"))?;
                size = known.extract::<Option<u64>>()?.unwrap_or(0);
            }
        }
        let blocks = query_tokens.checked_div(size).unwrap_or(0);
        let start = format!("{{\"block_size\":{size},\"query_blocks\":{blocks},\"matches\":[");
        out.pop(); // the last row's comma, if there is a row
        PyBytes::new_with(py, start.len() + out.len() + 2, |whole| {
            let (head, rest) = whole.split_at_mut(start.len());
            head.copy_from_slice(start.as_bytes());
            rest[..out.len()].copy_from_slice(&out);
            rest[out.len()..].copy_from_slice(b"]}");
            Ok(())
        })
    }
}

impl AnswerTable {
    fn row<'t>(
        &self,
        py: Python<'_>,
        out: &mut Vec<u8>,
        place: usize,
        now: f64,
        (blocks, tokens): (u64, u64),
        tiers: impl Iterator<Item = (&'t str, u64)>,
    ) -> PyResult<()> {
        let line = &self.lines[place];
        let machine = line.machine.bind(py);
        out.extend_from_slice(&line.head);
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
        let state = machine.getattr(intern!(py, "state"))?;
        text(out, if line.ready { state.cast::<PyString>()?.to_str()? } else { "not_ready" });
        out.extend_from_slice(b",\"age_s\":");
        match machine.getattr(intern!(py, "last_alive"))?.extract::<Option<f64>>()? {
            Some(heard) => microseconds(out, now - heard),
            None => out.extend_from_slice(b"null"),
        }
        let incomplete = machine.getattr(intern!(py, "incomplete"))?.is_truthy()?;
        out.extend_from_slice(if incomplete { b",\"incomplete\":true}," } else { b",\"incomplete\":false}," });
        Ok(())
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

/// Seconds to the microsecond; below zero (clocks of two threads) is zero.
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
