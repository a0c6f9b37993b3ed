//! Inputs as large as there can be, each of a form that has cost somebody memory or time: deep, wide, long, and many of
//! something small.

use std::fmt::Write;

/// One of each form, of about `length` bytes.
pub fn giants(length: usize) -> Vec<Vec<u8>> {
    let filled = |before: &str, unit: &str, after: &str| {
        let room = length.saturating_sub(before.len() + after.len());
        [before, &unit.repeat(room / unit.len()), after].concat().into_bytes()
    };
    let doubled = {
        // Whoever notes the path of each has much to write.
        let key = "k".repeat(length / 2);
        filled(&format!("{{\"{key}\":{{"), "\"a\":1,", "\"a\":1}}")
    };
    vec![
        vec![0; length],
        vec![0xff; length],
        filled("", "x", ""),
        filled("", "x\n", ""),
        filled("", "\n", ""),
        filled("", " ", ""),
        filled("", "9", ""),
        filled("0.", "9", ""),
        filled("\"", "x", "\""),
        filled("\"", "\\u0000", "\""),
        filled("\"", "é", "\""),
        filled("", "[", ""),
        filled("", "{\"\":", ""),
        nested("[", "]", length),
        nested("{\"\":", "}", length),
        filled("[", "0,", "0]"),
        filled("[", "\"\",", "\"\"]"),
        filled("[", "[],", "[]]"),
        filled("[", "[0],", "[]]"),
        filled("[", "{},", "{}]"),
        filled("[", "{\"\":0},", "{}]"),
        filled("[", "{\"\":{\"\":{\"\":{\"\":0}}}},", "{}]"),
        filled("{", "\"a\":1,", "\"a\":1}"),
        doubled,
        filled("", "a=b&", ""),
        filled("", "://a:b@", ""),
        filled("", "fatal: http://a:b@c/\n", ""),
        filled("", "%41", ""),
        filled("", "1d", ""),
        filled("", "data: {}\n\n", ""),
        filled("a", ",a", ""),
        numbered(length),
    ]
}

/// As deep as it is long.
fn nested(open: &str, close: &str, length: usize) -> Vec<u8> {
    let depth = length / (open.len() + close.len() + 1);
    [open.repeat(depth), "0".to_owned(), close.repeat(depth)].concat().into_bytes()
}

/// An object of as many keys as have room, all different.
fn numbered(length: usize) -> Vec<u8> {
    let mut text = String::from("{");
    for number in 0.. {
        if text.len() + 20 > length {
            break;
        }
        write!(text, "\"k{number}\":0,").expect("a text takes all");
    }
    text.push_str("\"\":0}");
    text.into_bytes()
}
