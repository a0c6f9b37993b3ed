//! How times, lengths of time and other people's words are written on the page. Pure.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use maud::{Markup, html};
use shared::spec::{Action, JobSpec};
use shared::time::Time;

/// The most characters of a job's title.
const TITLE_CHARS_MAX: usize = 80;

/// A length of time with two units at most, like `1 h 5 m` or `1.4 s`.
pub fn length(time: Duration) -> String {
    let (seconds, tenths) = (time.as_secs(), time.subsec_millis() / 100);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, 0) => format!("{} ms", time.subsec_millis()),
        (0, 0, 0, s) if s < 10 => format!("{s}.{tenths} s"),
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} m {s} s"),
        (0, h, m, _) => format!("{h} h {m} m"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

/// How long ago something was, in one unit.
pub fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} m ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A time as how long ago it is, with the time itself for who points at it and for programs.
pub fn when(at: Time, now: Time) -> Markup {
    html! { time datetime=(at) title=(stamp(at)) { (ago(now.since(at))) } }
}

/// A time to the second.
pub fn stamp(at: Time) -> String {
    let text = at.to_string();
    match text.split_once('.') {
        Some((second, _)) => second.replace('T', " ") + " UTC",
        None => text,
    }
}

/// Other people's words with every character that would hide, or change the order of, what stands beside it written out.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            // Writing into a string can't fail.
            let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn is_hidden(c: char) -> bool {
    let directs = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let empty = matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{2028}' | '\u{2029}');
    directs || empty || (c.is_control() && c != '\n' && c != '\t')
}

/// What a job is called where it has to be called something: its first step's name, or what that runs.
pub fn title(spec: &JobSpec) -> String {
    let Some(first) = spec.steps.first() else { return "A job without steps".to_owned() };
    let runs = || match &first.action {
        Action::Run(script) => script.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("").to_owned(),
        Action::Exec(argv) => argv.join(" "),
    };
    let name = first.name.clone().filter(|name| !name.trim().is_empty()).unwrap_or_else(runs);
    let name = if name.trim().is_empty() { "a step without a name".to_owned() } else { name };
    cut(&visible(&name), TITLE_CHARS_MAX)
}

/// At most `most` characters of a text, with a sign where it is cut.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => text.get(..end).unwrap_or("").to_owned() + "…",
        None => text.to_owned(),
    }
}

/// How many of something, like `1 step` and `2 steps`.
pub fn counted(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// A text as part of a URL's query.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_has_two_units_at_most() {
        let of = |ms| length(Duration::from_millis(ms));
        assert_eq!([of(0), of(449), of(9999), of(10_000)], ["0 ms", "449 ms", "9.9 s", "10 s"]);
        assert_eq!([of(61_000), of(3_660_000), of(90_000_000)], ["1 m 1 s", "1 h 1 m", "1 d 1 h"]);
        let ago = |s| ago(Duration::from_secs(s));
        assert_eq!([ago(59), ago(60), ago(7200), ago(172_800)], ["59 s ago", "1 m ago", "2 h ago", "2 d ago"]);
    }

    #[test]
    fn nothing_hides_in_other_peoples_words() {
        assert_eq!(visible("a\u{202e}b\0c"), "a⟨U+202E⟩b⟨U+0000⟩c");
        assert_eq!(visible("\u{1b}[31mred"), "⟨U+001B⟩[31mred");
        assert_eq!(visible("grün 漢字\n\tשלום"), "grün 漢字\n\tשלום");
    }

    #[test]
    fn a_text_is_cut_between_its_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöü", 2), "äö…");
    }

    #[test]
    fn a_parameter_is_encoded_byte_by_byte() {
        assert_eq!(encoded("team=a&b ü"), "team%3Da%26b%20%C3%BC");
    }
}
