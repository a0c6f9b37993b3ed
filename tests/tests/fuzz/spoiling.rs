//! Inputs for a decoder: bytes that mean nothing, words of JSON in no order, and valid inputs that were spoiled a little.

use std::ops::Range;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One thing that is done to a valid input. Places are parts of the whole, so that each means something in any input.
#[derive(Debug, Clone)]
enum Spoil {
    /// One bit is turned over.
    Flip(Index, u8),
    /// What follows is gone.
    Cut(Index),
    /// A piece in the middle is gone.
    Lose(Index, Index),
    /// A piece stands twice.
    Twice(Index, Index),
    /// Something odd stands between.
    Insert(Index, Index),
    /// Some bytes stand between.
    Bytes(Index, Vec<u8>),
    /// A value of the JSON has given way to something odd.
    Swap(Index, Index),
    /// A value of the JSON has given way to another one of the same document.
    Borrow(Index, Index),
    /// A field stands twice in its object.
    Repeat(Index),
    /// An object has a field that nobody knows.
    Unknown(Index, Index),
}

/// What decoders stumble over.
static ODD: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let texts = [
        "null",
        "true",
        "[]",
        "{}",
        "\"\"",
        "0",
        "-0",
        "-1",
        "1",
        "255",
        "256",
        "65535",
        "65536",
        "4294967295",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "0.1",
        "1e5",
        "1e999",
        "-1e999",
        "1E-400",
        "1.0",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\\u0000\"",
        "\"a\\nb\"",
        "\"\u{202e}x\"",
        "\"1d\"",
        "\"0s\"",
        "\"365d\"",
        "\"99999999999999999999d\"",
        "\"1h1h1h\"",
        "\"9999-12-31T23:59:60Z\"",
        "\"0000-00-00T00:00:00Z\"",
        "\"-009999-01-02T01:59:59Z\"",
        "\"10000-01-01T00:00:00Z\"",
        "\"worker:\"",
        "\"client:\"",
        "\"exit:0\"",
        "\"exit:256\"",
        "\"00000000-0000-0000-0000-000000000000\"",
        "\"ffffffff-ffff-ffff-ffff-ffffffffffff\"",
        "[[[[[[[[[[]]]]]]]]]]",
        "{\"a\":{\"a\":{\"a\":{}}}}",
        "[null]",
        "\"-rf\"",
        "\"../../etc\"",
        ",",
        ":",
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        "\n",
        "\r\n",
        "\0",
        " ",
        "=",
        "&",
        "%",
        "%00",
        "%ff",
        "+",
        "-",
        "@",
        "://",
        "~",
        "\u{feff}",
        "\u{1b}[2J",
        "é",
        "\u{10ffff}",
        "e",
        "://u:p@h/",
    ];
    let bytes: [&[u8]; 6] =
        [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\xff\xff\xff\xff"];
    let long = ["9".repeat(400), format!("\"{}\"", "x".repeat(70_000)), format!("0.{}", "9".repeat(400))];
    let deep = [200, 100_000].map(|depth| "[".repeat(depth));
    let closed = [100, 127, 128, 5000].map(|depth| ["[".repeat(depth), "]".repeat(depth)].concat());
    let inside = format!("{}0{}", "{\"k\":".repeat(126), "}".repeat(126));
    let owned = long.into_iter().chain(deep).chain(closed).chain([inside]).map(String::into_bytes);
    // Not everything that is decoded is JSON.
    let bare = texts.iter().map(|text| text.trim_matches('"')).filter(|text| !text.is_empty());
    texts
        .iter()
        .copied()
        .chain(bare)
        .map(|text| text.as_bytes().to_vec())
        .chain(bytes.map(<[u8]>::to_vec))
        .chain(owned)
        .collect()
});

/// The words of JSON, for what looks like it.
const WORDS: [&str; 14] = ["{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"kind\"", "0", "-1.5e3", "null", "true", " "];

/// Everything that a decoder gets which knows `samples`.
pub fn inputs(samples: &[Vec<u8>]) -> BoxedStrategy<Vec<u8>> {
    let noise = vec(any::<u8>(), 0..2048);
    let words = vec(select(&WORDS[..]), 0..64).prop_map(|words| words.concat().into_bytes());
    let odd = vec(any::<Index>(), 1..4)
        .prop_map(|at| at.iter().flat_map(|at| at.get(ODD.as_slice()).clone()).collect::<Vec<u8>>());
    prop_oneof![1 => noise, 1 => words, 1 => odd, 9 => spoiled(samples)].boxed()
}

/// Spoiled forms of `samples`.
pub fn spoiled(samples: &[Vec<u8>]) -> BoxedStrategy<Vec<u8>> {
    (select(samples.to_vec()), vec(spoil(), 1..6))
        .prop_map(|(sample, spoils)| spoils.iter().fold(sample, |bytes, spoil| spoil.done_to(bytes)))
        .boxed()
}

fn spoil() -> impl Strategy<Value = Spoil> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0..8_u8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        1 => at().prop_map(Spoil::Cut),
        1 => (at(), at()).prop_map(|(from, to)| Spoil::Lose(from, to)),
        1 => (at(), at()).prop_map(|(from, to)| Spoil::Twice(from, to)),
        2 => (at(), at()).prop_map(|(at, what)| Spoil::Insert(at, what)),
        1 => (at(), vec(any::<u8>(), 1..16)).prop_map(|(at, bytes)| Spoil::Bytes(at, bytes)),
        6 => (at(), at()).prop_map(|(at, what)| Spoil::Swap(at, what)),
        2 => (at(), at()).prop_map(|(at, other)| Spoil::Borrow(at, other)),
        1 => at().prop_map(Spoil::Repeat),
        2 => (at(), at()).prop_map(|(at, what)| Spoil::Unknown(at, what)),
    ]
}

impl Spoil {
    fn done_to(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        let length = bytes.len();
        let place = |at: &Index| at.index(length + 1);
        let range = |from: &Index, to: &Index| {
            let (from, to) = (place(from), place(to));
            from.min(to)..from.max(to)
        };
        match self {
            Self::Flip(at, bit) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Cut(at) => bytes.truncate(place(at)),
            Self::Lose(from, to) => drop(bytes.drain(range(from, to))),
            Self::Twice(from, to) => {
                let range = range(from, to);
                let piece = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, piece);
            }
            Self::Insert(at, what) => put(&mut bytes, place(at), what.get::<Vec<u8>>(&ODD)),
            Self::Bytes(at, what) => put(&mut bytes, place(at), what),
            Self::Swap(at, what) => {
                if let Some(value) = pick(&values(&bytes), *at) {
                    bytes.splice(value, what.get(ODD.as_slice()).iter().copied());
                }
            }
            Self::Borrow(at, other) => {
                let values = values(&bytes);
                if let (Some(value), Some(other)) = (pick(&values, *at), pick(&values, *other)) {
                    let other = bytes[other].to_vec();
                    bytes.splice(value, other);
                }
            }
            Self::Repeat(at) => {
                if let Some(field) = pick(&fields(&bytes), *at) {
                    let again = [&bytes[field.clone()], b","].concat();
                    put(&mut bytes, field.start, &again);
                }
            }
            Self::Unknown(at, what) => {
                if let Some(field) = pick(&fields(&bytes), *at) {
                    let unknown = [b"\"unknown\":", what.get(ODD.as_slice()).as_slice(), b","].concat();
                    put(&mut bytes, field.start, &unknown);
                }
            }
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

fn pick(ranges: &[Range<usize>], at: Index) -> Option<Range<usize>> {
    (!ranges.is_empty()).then(|| at.get::<Range<usize>>(ranges).clone())
}

/// Where the values of a JSON text stand, keys too, as far as it is one.
fn values(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        let end = token_end(text, at);
        match byte {
            b'{' | b'[' => open.push(at),
            b'}' | b']' => found.extend(open.pop().map(|from| from..end)),
            b',' | b':' | b' ' | b'\n' => {}
            _ => found.push(at..end),
        }
        at = end;
    }
    found
}

/// Where the fields of its objects stand, each with its key.
fn fields(text: &[u8]) -> Vec<Range<usize>> {
    let values = values(text);
    let follows = |key: &Range<usize>| {
        let colon = text.get(key.end) == Some(&b':');
        let value = values.iter().find(|value| colon && value.start == key.end + 1)?;
        Some(key.start..value.end)
    };
    values.iter().filter_map(follows).collect()
}

fn token_end(text: &[u8], at: usize) -> usize {
    let rest = &text[at..];
    let length = match rest.first() {
        Some(b'"') => {
            let mut escaped = false;
            let end = rest.iter().skip(1).position(|byte| {
                let ends = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |end| end + 2)
        }
        Some(b'{' | b'}' | b'[' | b']' | b',' | b':' | b' ' | b'\n') => 1,
        _ => rest.iter().position(|byte| b"{}[],:\" \n".contains(byte)).unwrap_or(rest.len()).max(1),
    };
    at + length
}

#[test]
fn the_values_and_fields_of_a_document_are_found() {
    let text = br#"{"a":[1,"x\"}"],"b":{"c":null}}"#;
    let shown = |ranges: Vec<Range<usize>>| {
        ranges.into_iter().map(|range| String::from_utf8_lossy(&text[range]).into_owned()).collect::<Vec<_>>()
    };
    let whole = String::from_utf8_lossy(text);
    assert_eq!(
        shown(values(text)),
        ["\"a\"", "1", r#""x\"}""#, r#"[1,"x\"}"]"#, "\"b\"", "\"c\"", "null", "{\"c\":null}", &whole]
    );
    assert_eq!(shown(fields(text)), [r#""a":[1,"x\"}"]"#, r#""b":{"c":null}"#, "\"c\":null"]);
}
