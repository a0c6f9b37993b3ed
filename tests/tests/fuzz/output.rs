//! What a step writes: masking, and cutting into lines.

use shared::log::LINE_BYTES_MAX;
use shared::secret::{Secret, Secrets};
use shared::time::Time;
use worker::fuzzed::{Forms, Masker, Segmenter};

use super::campaign::{Bounds, alone, campaign, campaign_of, share};

/// How much of a pipe is read at once.
const READ_BYTES: usize = 64 * 1024;
/// A MiB of output comes in sixteen pieces; what lives at a time is a piece's.
const OUTPUT: Bounds = Bounds { largest: 1024 * 1024, peak: 8, total: 64, fixed: 4 << 20 };

fn forms(values: &[String]) -> Option<Forms> {
    let named = values.iter().enumerate().map(|(number, value)| (format!("S{number}"), Secret::new(value.clone())));
    Forms::of(&Secrets(named.collect())).expect("they can be searched for")
}

fn masked(forms: Option<&Forms>, output: &[u8]) -> Vec<u8> {
    let (mut masker, mut out) = (Masker::new(forms), Vec::new());
    for piece in output.chunks(READ_BYTES) {
        masker.push(piece, &mut out);
    }
    masker.finish(&mut out);
    out
}

#[test]
fn any_output_is_masked_within_bounds() {
    let value = "hunter2-\"hunter2\"\nline two \u{e9}/+=";
    let forms = forms(&[value.to_owned(), "aaaaaaaa".to_owned()]);
    let samples = [format!("before {value} after\n"), "aaaaaaaaaaaaaaaaaaaa".to_owned(), "hunter2-\"hunt".to_owned()];
    campaign("masked output", OUTPUT, &samples.map(String::into_bytes), |bytes| {
        let out = masked(forms.as_ref(), bytes);
        assert!(!out.windows(8).any(|part| part == b"aaaaaaaa"), "a secret shows");
    });
}

#[test]
fn any_output_is_cut_into_lines_within_bounds() {
    let samples = ["one\ntwo\nthr", "half a character \u{20ac}", "\r\n\r\n"].map(|text| text.as_bytes().to_vec());
    campaign("lines of output", OUTPUT, &samples, |bytes| {
        let (mut segmenter, mut out, at) = (Segmenter::default(), Vec::new(), Time::from_micros(1));
        for piece in bytes.chunks(READ_BYTES) {
            segmenter.push(piece, at, &mut out);
            segmenter.flush(&mut out);
            assert!(out.iter().all(|piece| piece.text.split('\n').all(|line| line.len() <= LINE_BYTES_MAX)));
            out.clear();
        }
        segmenter.finish(&mut out);
    });
}

#[test]
fn any_secrets_become_forms_within_bounds() {
    // All secrets of a job have 256 KiB together at most; a value has an eighth of that.
    // The factor is what the search takes for each byte of some hundred forms.
    let bounds = Bounds { largest: 32 * 1024, peak: 16_000, total: 40_000, fixed: 1 << 20 };
    let samples = ["hunter2", "a\nbcde\n\"'$`\\!\t\u{1b}\u{7f}", "{\"a\": \"<b>&c</b>/\u{e9}\"}"];
    let run = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        // Each value has 32 KiB at most.
        let values = text.as_bytes().chunks(32 * 1024).map(|value| String::from_utf8_lossy(value).into_owned());
        drop(forms(&values.collect::<Vec<_>>()));
    };
    let most = campaign_of("forms of secrets", share(16), bounds, &samples.map(|text| text.as_bytes().to_vec()), run);
    println!("forms of secrets: {most:?}");
    // What shares no beginnings with itself takes the most.
    let numbers: Vec<String> = (1..2000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    alone("forms of a secret without order", bounds, numbers.concat().as_bytes(), run);
}

#[test]
fn many_secrets_of_one_letter_do_not_multiply_what_masking_takes() {
    // Every line of a secret is masked by itself: these are hundreds, and each stands at every place of the output.
    let lines: Vec<String> = (4..250).map(|length| "a".repeat(length)).collect();
    let forms = forms(&[lines.join("\n")]);
    alone("one letter", OUTPUT, &vec![b'a'; OUTPUT.largest], |bytes| {
        assert_eq!(masked(forms.as_ref(), bytes), b"***");
    });
}

#[test]
fn a_secret_that_almost_begins_everywhere_does_not_slow_masking_down() {
    let secret = format!("{}b", "a".repeat(30_000));
    let forms = forms(std::slice::from_ref(&secret));
    let almost = format!("{}c", "a".repeat(29_999)).repeat(8);
    alone("almost", OUTPUT, almost.as_bytes(), |bytes| {
        assert_eq!(masked(forms.as_ref(), bytes).len(), almost.len());
    });
}
