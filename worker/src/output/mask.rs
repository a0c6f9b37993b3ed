//! Replaces a job's secrets in its output by `***`, also in the forms in which tools print them and across any cut of
//! the output into pieces.
//!
//! A piece is passed on up to where a secret could still be under way: only a tail that is the beginning of a form is
//! held back, until more output or its end settles it. Time alone doesn't: a step has no one to prompt, for its standard
//! input is empty, and letting the tail go would print a secret that is written in two halves.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::mem;

use aho_corasick::automaton::Automaton;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, BuildError};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use shared::secret::Secrets;
use shared::spec::SECRET_BYTES_MIN;

/// What stands in a secret's place.
pub const MASK: &[u8] = b"***";
/// Where the `base64` command breaks its lines.
const BASE64_LINE: usize = 76;

/// Where `xxd -p` breaks its lines.
const HEX_LINE: usize = 60;

/// What is to be masked, ready to be searched for.
pub struct Forms {
    search: NFA,
    /// Sorted, so that one can look up whether something begins any of them.
    sorted: Vec<Vec<u8>>,
    longest: usize,
    begins: [bool; 256],
}

/// The state of one stream.
pub struct Masker<'a> {
    /// None where there is nothing to mask.
    forms: Option<&'a Forms>,
    held: Vec<u8>,
    /// How many bytes of `held` belong to something that is masked already.
    covered: usize,
}

impl Forms {
    /// The forms of these secrets' values; none where no value is long enough.
    ///
    /// # Errors
    /// When they are too many to be searched for. A job whose secrets can't be masked must not run.
    pub fn of(secrets: &Secrets) -> Result<Option<Self>, BuildError> {
        let mut forms = BTreeSet::new();
        for secret in secrets.0.values() {
            add_forms(secret.reveal(), &mut forms);
        }
        forms.retain(|form| form.len() >= SECRET_BYTES_MIN);
        let Some(longest) = forms.iter().map(Vec::len).max() else { return Ok(None) };
        let mut begins = [false; 256];
        for first in forms.iter().filter_map(|form| form.first()) {
            if let Some(begins) = begins.get_mut(usize::from(*first)) {
                *begins = true;
            }
        }
        let sorted: Vec<Vec<u8>> = forms.into_iter().collect();
        let search = NFA::new(&sorted)?;
        Ok(Some(Self { search, sorted, longest, begins }))
    }

    /// Where secrets stand in `bytes` that begin before `until`: of those that overlap, what they cover together. What lives
    /// meanwhile is no more than that, however many forms fit at each place.
    fn covered(&self, bytes: &[u8], until: usize) -> Vec<(usize, usize)> {
        let mut covered: Vec<(usize, usize)> = Vec::new();
        // It knows searches that begin anywhere, as it was built to.
        let Ok(mut state) = self.search.start_state(Anchored::No) else { return covered };
        for (byte, end) in bytes.iter().zip(1..) {
            state = self.search.next_state(Anchored::No, state, *byte);
            if !self.search.is_match(state) {
                continue;
            }
            // The forms that end here are ends of each other, and the first is the longest: it covers the others.
            let mut start = end - self.search.pattern_len(self.search.match_pattern(state, 0));
            if start >= until {
                continue;
            }
            while let Some((first, _)) = covered.pop_if(|(_, last)| start < *last) {
                start = start.min(first);
            }
            covered.push((start, end));
        }
        covered
    }

    /// Where the longest tail of `bytes` begins that is the beginning of a form, and not a whole one only.
    fn tail(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let candidates = bytes.get(first..).unwrap_or_default().iter().enumerate();
        let begins = |byte: &u8| self.begins.get(usize::from(*byte)).copied().unwrap_or(true);
        candidates
            .filter(|(_, byte)| begins(byte))
            .map(|(offset, _)| first + offset)
            .find(|from| bytes.get(*from..).is_some_and(|tail| self.begins_longer(tail)))
            .unwrap_or(bytes.len())
    }

    /// Whether some form begins with `tail` and is longer.
    fn begins_longer(&self, tail: &[u8]) -> bool {
        let after = self.sorted.partition_point(|form| form.as_slice() <= tail);
        self.sorted.get(after).is_some_and(|form| form.starts_with(tail))
    }
}

impl<'a> Masker<'a> {
    /// A stream of which nothing has been seen.
    pub fn new(forms: Option<&'a Forms>) -> Self {
        Self { forms, held: Vec::new(), covered: 0 }
    }

    /// Takes `bytes` in and appends to `out` what is settled.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(forms) = self.forms else { return out.extend_from_slice(bytes) };
        self.held.extend_from_slice(bytes);
        let settled = forms.tail(&self.held);
        self.pass(forms, settled, out);
    }

    /// Appends what was still held back: the stream is over.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(forms) = self.forms {
            self.pass(forms, self.held.len(), out);
        }
    }

    /// Passes on the first `settled` bytes of what is held, with every occurrence of every form masked. Those that
    /// overlap are masked as one, so that nothing of either shows.
    fn pass(&mut self, forms: &Forms, settled: usize, out: &mut Vec<u8>) {
        let held = mem::take(&mut self.held);
        let secrets = forms.covered(&held, settled);
        // What was masked in the last piece reaches `covered` bytes into this one.
        let mut done = self.covered.min(held.len());
        for (start, end) in secrets {
            if start >= done {
                out.extend_from_slice(held.get(done..start).unwrap_or_default());
                out.extend_from_slice(MASK);
            }
            done = done.max(end);
        }
        if done < settled {
            out.extend_from_slice(held.get(done..settled).unwrap_or_default());
        }
        self.covered = done.saturating_sub(settled);
        self.held = held;
        self.held.drain(..settled);
    }
}

/// The value in all forms in which it may turn up.
fn add_forms(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    // Files end with a newline that whoever prints the secret may leave out. It is no secret: masked with the rest, it
    // would put what follows on the same line.
    let trimmed = value.trim_end_matches(['\r', '\n']);
    forms.insert(trimmed.as_bytes().to_vec());
    for value in [value, trimmed] {
        if value.len() >= SECRET_BYTES_MIN {
            add_base64(value.as_bytes(), forms);
            add_url(value, forms);
            add_json(value, forms);
            add_hex(value.as_bytes(), forms);
            forms.extend([dollar_quoted(value, false), dollar_quoted(value, true)]);
        }
    }
    add_shell(trimmed, forms);
    forms.extend(value.lines().map(|line| line.trim().as_bytes().to_vec()));
}

/// Base64 in both alphabets: alone, with and without padding, broken into lines, and from each of the three places that
/// it can have within something longer that is encoded as a whole.
fn add_base64(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    for (padded, plain) in [(&STANDARD, &STANDARD_NO_PAD), (&URL_SAFE, &URL_SAFE_NO_PAD)] {
        let alone = padded.encode(value);
        let lines: Vec<&[u8]> = alone.as_bytes().chunks(BASE64_LINE).collect();
        forms.insert(lines.join(&b'\n'));
        forms.insert(alone.into_bytes());
        forms.insert(plain.encode(value).into_bytes());
        for before in 0..3 {
            let mut longer = vec![0; before];
            longer.extend_from_slice(value);
            let encoded = plain.encode(&longer).into_bytes();
            // The first and the last character may hold bits of the neighbours.
            let (first, last) = ((before * 8).div_ceil(6), longer.len() * 8 / 6);
            forms.extend(encoded.get(first..last).map(<[u8]>::to_vec));
        }
    }
}

/// Percent-encoding as the common libraries do it: they differ in what they leave as it is.
fn add_url(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    for (kept, blank) in [("-._~", "%20"), ("-._~/", "%20"), ("-._~!'()*", "%20"), ("-._*", "+"), ("-._~", "+")] {
        let mut upper = String::new();
        for byte in value.bytes() {
            match char::from(byte) {
                ' ' => upper.push_str(blank),
                plain if plain.is_ascii_alphanumeric() || kept.contains(plain) => upper.push(plain),
                _ => {
                    let _ = write!(upper, "%{byte:02X}");
                }
            }
        }
        forms.insert(lower_escapes(&upper).into_bytes());
        forms.insert(upper.into_bytes());
    }
}

/// The same percent-encoding with hex digits in lower case.
fn lower_escapes(upper: &str) -> String {
    let mut digits = 0;
    let lower = |c: char| {
        let escaped = digits > 0;
        digits = if c == '%' { 2_u8 } else { digits.saturating_sub(1) };
        if escaped { c.to_ascii_lowercase() } else { c }
    };
    upper.chars().map(lower).collect()
}

/// The inside of a JSON string: plain, with everything beyond ASCII escaped, with `<>&` escaped, with `/` escaped.
fn add_json(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    let Ok(quoted) = serde_json::to_string(value) else { return };
    let plain = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    let escaped = |which: fn(char) -> bool| {
        let mut text = String::new();
        for c in plain.chars() {
            if which(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(text, "\\u{unit:04x}");
                }
            } else {
                text.push(c);
            }
        }
        text.into_bytes()
    };
    forms.insert(escaped(|c| !c.is_ascii()));
    forms.insert(escaped(|c| "<>&".contains(c)));
    forms.insert(plain.replace('/', "\\/").into_bytes());
    forms.insert(plain.as_bytes().to_vec());
}

/// Hex in both cases, alone, broken into lines, and with a blank or a colon between the bytes.
fn add_hex(value: &[u8], forms: &mut BTreeSet<Vec<u8>>) {
    let hex = |between: &str| {
        let digits: Vec<String> = value.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.join(between)
    };
    let plain = hex("");
    let lines: Vec<&[u8]> = plain.as_bytes().chunks(HEX_LINE).collect();
    forms.insert(lines.join(&b'\n'));
    for text in [hex(" "), hex(":"), plain] {
        forms.insert(text.to_uppercase().into_bytes());
        forms.insert(text.into_bytes());
    }
}

/// As shells quote it, where that isn't the value itself between two quotes: single quotes broken up, double quotes with
/// escapes, every odd character escaped (`printf %q`).
fn add_shell(value: &str, forms: &mut BTreeSet<Vec<u8>>) {
    forms.insert(value.replace('\'', r"'\''").into_bytes());
    forms.insert(value.replace('\'', "'\"'\"'").into_bytes());
    let escaped = |which: fn(char) -> bool| {
        let mut text = String::new();
        for c in value.chars() {
            if which(c) {
                text.push('\\');
            }
            text.push(c);
        }
        text.into_bytes()
    };
    forms.insert(escaped(|c| "\"\\$`".contains(c)));
    forms.insert(escaped(|c| "\"\\$`!".contains(c)));
    forms.insert(escaped(|c| c.is_ascii() && !c.is_ascii_alphanumeric() && !"_-./:@%+=#~".contains(c)));
}

/// The inside of `$'…'`, which shows what can't be printed; bash escapes what is beyond ASCII where the locale doesn't know it.
fn dollar_quoted(value: &str, ascii: bool) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in value.bytes() {
        match byte {
            b'\\' | b'\'' => text.extend([b'\\', byte]),
            b'\n' => text.extend(br"\n"),
            b'\r' => text.extend(br"\r"),
            b'\t' => text.extend(br"\t"),
            0x1b => text.extend(br"\E"),
            0..0x20 | 0x7f => text.extend(format!("\\{byte:03o}").bytes()),
            0x80.. if ascii => text.extend(format!("\\{byte:03o}").bytes()),
            plain => text.push(plain),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use shared::secret::Secret;

    use super::*;

    fn forms(values: &[&str]) -> Option<Forms> {
        let named = values.iter().enumerate().map(|(i, value)| (format!("S{i}"), Secret::new((*value).to_owned())));
        Forms::of(&Secrets(named.collect())).unwrap()
    }

    fn masked(forms: Option<&Forms>, pieces: &[&[u8]]) -> String {
        let mut masker = Masker::new(forms);
        let mut out = Vec::new();
        for piece in pieces {
            masker.push(piece, &mut out);
        }
        masker.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_secret_is_masked_across_every_cut() {
        let forms = forms(&["hunter2!", "line one\nline two\n", "abab-abab"]).unwrap();
        let text = b"a hunter2! b line one\nline two\nx abab-abab-abab hunterhunter2! line one";
        let whole = masked(Some(&forms), &[text]);
        assert_eq!(whole, "a *** b ***\nx *** hunter*** ***");
        for one in 0..text.len() {
            for two in one..text.len() {
                assert_eq!(masked(Some(&forms), &[&text[..one], &text[one..two], &text[two..]]), whole);
            }
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(masked(Some(&forms), &bytes), whole);
    }

    #[test]
    fn of_forms_that_end_together_the_longest_is_masked() {
        for values in [["cdef", "bcdef", "abcdef"], ["abcdef", "cdef", "bcdef"], ["xabcdef", "cdef", "def!"]] {
            let forms = forms(&values);
            let shown = values.iter().map(|value| format!("-{value}-"));
            for text in shown {
                assert_eq!(masked(forms.as_ref(), &[text.as_bytes()]), "-***-", "{values:?}");
            }
        }
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_either() {
        let forms = forms(&["abcdef", "defghi", "cdef"]).unwrap();
        assert_eq!(masked(Some(&forms), &[b"xabcd", b"efghiy"]), "x***y");
        assert_eq!(masked(Some(&forms), &[b"abcdefabcdef"]), "******");
    }

    #[test]
    fn only_what_may_become_a_secret_is_held_back() {
        let forms = forms(&["secret-value"]).unwrap();
        let mut masker = Masker::new(Some(&forms));
        let mut out = Vec::new();
        masker.push(b"Password: ", &mut out);
        assert_eq!(out, b"Password: ");
        masker.push(b"sec", &mut out);
        assert_eq!(out, b"Password: ");
        masker.push(b"ond", &mut out);
        assert_eq!(out, b"Password: second");
    }

    #[test]
    fn encoded_forms_are_masked_too() {
        let value = "p@ss \"word\"/é?<tag>&more";
        let forms = forms(&[value]).unwrap();
        let json = serde_json::to_string(value).unwrap();
        let ascii = json.replace('é', "\\u00e9");
        let html = json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        let url = "p%40ss%20%22word%22%2F%C3%A9%3F%3Ctag%3E%26more";
        let form = url.replace("%20", "+");
        for text in [&json, &ascii, &html, url, &url.to_lowercase(), &form, value] {
            let shown = masked(Some(&forms), &[b"<", text.as_bytes(), b">"]);
            assert!(!shown.contains("word") && shown.contains("***"), "{text} became {shown}");
        }
    }

    #[test]
    fn base64_is_masked_wherever_the_secret_lies_in_it() {
        let value = "correct horse battery staple, and then some more than one line of it holds";
        let forms = forms(&[value]).unwrap();
        for before in ["", "x", "xy", "xyz"] {
            for after in ["", "q", "qr"] {
                for engine in [&STANDARD, &URL_SAFE] {
                    let text = engine.encode(format!("{before}{value}{after}"));
                    let shown = masked(Some(&forms), &[text.as_bytes()]);
                    assert!(shown.contains("***") && shown.len() <= before.len() * 2 + after.len() * 2 + 9, "{shown}");
                }
            }
        }
        let wrapped = STANDARD.encode(value).as_bytes().chunks(76).collect::<Vec<_>>().join(&b'\n');
        assert_eq!(masked(Some(&forms), &[&wrapped]), "***");
    }

    #[test]
    fn hex_is_masked_in_the_ways_in_which_tools_print_it() {
        let value = "a secret of more than thirty bytes\u{e9}";
        let forms = forms(&[value]).unwrap();
        let digits: Vec<String> = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        let wrapped = digits.concat().as_bytes().chunks(60).collect::<Vec<_>>().join(&b'\n');
        let wrapped = String::from_utf8(wrapped).unwrap();
        for text in [digits.concat(), digits.join(" "), digits.join(":"), digits.concat().to_uppercase(), wrapped] {
            assert_eq!(masked(Some(&forms), &[b"00", text.as_bytes(), b"ff"]), "00***ff", "{text}");
        }
    }

    #[test]
    fn what_shells_make_of_a_secret_is_masked() {
        let value = "it's \"two\"\n$words\t\\ `and` more\u{e9}, (all)!";
        let forms = forms(&[value]).unwrap();
        let bash = |script: &str, locale: &str| {
            let run =
                std::process::Command::new("bash").args(["-c", script]).env("V", value).env("LC_ALL", locale).output();
            run.ok().filter(|output| output.status.success()).map(|output| [output.stdout, output.stderr].concat())
        };
        let line = value.lines().next().unwrap();
        let Some(quoted) = bash("printf %q \"$V\"", "C") else {
            eprintln!("there is no bash here: its quoting is not shown");
            return;
        };
        for said in [Some(quoted), bash("printf %q \"$V\"", "C.UTF-8"), bash("set -x; : \"$V\"", "C.UTF-8")] {
            let shown = masked(Some(&forms), &[&said.unwrap()]);
            assert!(shown.contains("***") && !shown.contains("words") && !shown.contains("two"), "{shown}");
        }
        for text in ["it'\\''s \"two\"", "it'\"'\"'s \"two\"", "it's \\\"two\\\"", "it\\'s\\ \\\"two\\\""] {
            let forms = self::forms(&[line]).unwrap();
            assert_eq!(masked(Some(&forms), &[text.as_bytes()]), "***", "{text}");
        }
    }

    #[test]
    fn too_short_a_value_masks_nothing() {
        assert!(forms(&["abc", ""]).is_none());
        assert_eq!(masked(None, &[b"abc"]), "abc");
    }
}
