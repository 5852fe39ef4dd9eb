//! Reads `token_ids` of a JSON body straight into 32-bit integers.
//!
//! A prompt of 8,192 tokens is 60 KB of JSON, and making a Python object per token would take most of the time of a
//! match. Only the usual case is handled here: one object whose member `token_ids` is an array of integers from 0 to
//! 2^32-1. The body without those integers is left to a real JSON decoder, which finds everything else that is wrong
//! with it. For anything unusual (an escape in a member's name, a repeated member, another kind of value) the result is
//! `None`, and then the whole body is decoded.

/// The contents of `token_ids`: their position in the body, without the brackets, and the integers.
pub struct Split {
    pub from: usize,
    pub to: usize,
    /// Little-endian u32.
    pub tokens: Vec<u8>,
}

const NAME: &[u8] = b"token_ids";

/// Find and read `token_ids`.
pub fn split(body: &[u8]) -> Option<Split> {
    let mut at = expect(body, skip_space(body, 0), b'{')?;
    let mut found = None;
    loop {
        let (name, after) = member_name(body, skip_space(body, at))?;
        at = skip_space(body, expect(body, skip_space(body, after), b':')?);
        if name == NAME {
            if found.is_some() {
                return None;
            }
            let from = expect(body, at, b'[')?;
            let (tokens, to) = integers(body, from)?;
            at = to + 1;
            found = Some(Split { from, to, tokens });
        } else {
            at = skip_value(body, at)?;
        }
        at = skip_space(body, at);
        match body.get(at)? {
            b',' => at += 1,
            b'}' => return found,
            _ => return None,
        }
    }
}

fn skip_space(body: &[u8], mut at: usize) -> usize {
    while matches!(body.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

fn expect(body: &[u8], at: usize, byte: u8) -> Option<usize> {
    (*body.get(at)? == byte).then_some(at + 1)
}

/// A name without escapes, and the position after it.
fn member_name(body: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let from = expect(body, at, b'"')?;
    let length = body[from..].iter().position(|&byte| byte == b'"' || byte == b'\\')?;
    (body[from + length] == b'"').then_some((&body[from..from + length], from + length + 1))
}

/// The position after the string that begins at `at`.
fn skip_string(body: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        match *body.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The position after any value. Strings are parsed; of everything else, only the brackets are counted.
fn skip_value(body: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match *body.get(at)? {
            b'"' => {
                at = skip_string(body, at)?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            b',' | b']' | b'}' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

/// The integers up to the closing bracket, and its position.
fn integers(body: &[u8], from: usize) -> Option<(Vec<u8>, usize)> {
    let mut tokens = Vec::with_capacity((body.len() - from) / 6 * 4);
    let mut at = skip_space(body, from);
    if *body.get(at)? == b']' {
        return Some((tokens, at));
    }
    loop {
        let (value, after) = integer(body, at)?;
        tokens.extend_from_slice(&value.to_le_bytes());
        at = skip_space(body, after);
        match *body.get(at)? {
            b',' => at = skip_space(body, at + 1),
            b']' => return Some((tokens, at)),
            _ => return None,
        }
    }
}

/// A JSON number, if it is an integer that fits in 32 bits, and the position after it.
///
/// Up to seven digits are read at once. Token ids have five or six digits in no particular order, so a loop over the
/// digits would consist mostly of mispredicted branches.
#[inline]
fn integer(body: &[u8], from: usize) -> Option<(u32, usize)> {
    let Some(word) = body.get(from..from + 8) else { return long_integer(body, from) };
    let digits = u64::from_le_bytes(word.try_into().ok()?) ^ 0x3030_3030_3030_3030;
    // The high bit of each byte that is not a digit. A carry only reaches bytes after the first of those.
    let others = (digits.wrapping_add(0x7676_7676_7676_7676) | digits) & 0x8080_8080_8080_8080;
    let count = others.trailing_zeros() as usize / 8;
    if count == 0 || count == 8 || (count > 1 && word[0] == b'0') {
        return if count == 8 { long_integer(body, from) } else { None };
    }
    // Leading zeros make it eight digits, with the first one in the lowest byte. Then pairs, fours and all are combined.
    let eight = digits << (64 - 8 * count);
    let pairs = (eight.wrapping_mul(10).wrapping_add(eight >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let value = (fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff;
    Some((value as u32, from + count))
}

/// As `integer`, digit by digit.
fn long_integer(body: &[u8], from: usize) -> Option<(u32, usize)> {
    let mut at = from;
    let mut value = 0u64;
    while let Some(digit) = body.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit < 10) {
        value = value * 10 + u64::from(digit);
        at += 1;
        if at - from > 10 {
            return None; // 4294967295 has ten digits
        }
    }
    let plain = at - from == 1 || (at > from && body[from] != b'0');
    plain.then(|| u32::try_from(value).ok()).flatten().map(|value| (value, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<(Vec<u32>, String)> {
        split(body.as_bytes()).map(|found| {
            let tokens = found.tokens.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
            (tokens, format!("{}{}", &body[..found.from], &body[found.to..]))
        })
    }

    #[test]
    fn the_usual_case() {
        let got = read(r#"{"model":"m","token_ids":[1, 22,333 ,4294967295,0], "limit": 3}"#).unwrap();
        assert_eq!(got, (vec![1, 22, 333, 4294967295, 0], r#"{"model":"m","token_ids":[], "limit": 3}"#.into()));
        assert_eq!(read("{\"token_ids\" : [\n]}").unwrap().0, Vec::<u32>::new());
        let nested = r#"{"extra_keys":[[{"token_ids":[9]},"]}\"["]],"token_ids":[ 5 ]}"#;
        assert_eq!(read(nested).unwrap().0, vec![5]);
    }

    #[test]
    fn numbers_of_every_length() {
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let number = (state >> 32) as u32 >> (state % 32) as u32;
            for tail in [",", "]", " ", ", 12345678", "]}", ":;<=>?@/"] {
                let text = format!("{number}{tail}");
                let length = text.len() - tail.len();
                assert_eq!(integer(text.as_bytes(), 0), Some((number, length)), "{text}");
                assert_eq!(long_integer(text.as_bytes(), 0), Some((number, length)), "{text}");
            }
        }
        for bad in ["", "x", ",1234567", "00,     ", "01234567", "012,    ", "-1,      ", "4294967296,", "99999999999"]
        {
            assert_eq!(integer(bad.as_bytes(), 0), None, "{bad}");
        }
    }

    #[test]
    fn everything_unusual_is_left_to_a_json_decoder() {
        for body in [
            "",
            "[1]",
            "{",
            "{}",
            r#"{"model":"m"}"#,
            r#"{"token_ids":null}"#,
            r#"{"token_ids":[1,]}"#,
            r#"{"token_ids":[1, ]}"#,
            r#"{"token_ids":[,1]}"#,
            r#"{"token_ids":[1 2]}"#,
            r#"{"token_ids":[-1]}"#,
            r#"{"token_ids":[1.0]}"#,
            r#"{"token_ids":[1e3]}"#,
            r#"{"token_ids":[01]}"#,
            r#"{"token_ids":["1"]}"#,
            r#"{"token_ids":[4294967296]}"#,
            r#"{"token_ids":[99999999999999999999]}"#,
            r#"{"token_ids":[[1]]}"#,
            r#"{"token_ids":[1],"token_ids":[2]}"#,
            r#"{"token_ids":[1],"token\u005fids":[2]}"#,
            r#"{"token_ids":[1"#,
            r#"{"token_ids":[1]"#,
            r#"{"token_ids":[1]]"#,
            r#"{"token_ids":[1],}"#,
            r#"{"token_ids":[true]}"#,
            r#"{"a":"\"#,
            r#"{"a":"\",", "token_ids":[1]"#,
        ] {
            assert!(split(body.as_bytes()).is_none(), "{body}");
        }
    }
}
