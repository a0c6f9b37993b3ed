//! Reads a URL's query: strictly, so that a misspelt or doubled parameter is refused by name and never passed over.

use std::fmt::Display;
use std::ops::RangeInclusive;

use shared::spec::reader::{Errors, text_fault};

use super::filter;
use super::problem::Problem;

/// The largest number of an event or a line that can be asked for: no store counts further.
pub const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// The parameters that were given, and what is wrong with them.
pub struct Query {
    values: Vec<(&'static str, String)>,
    errors: Errors,
}

impl Query {
    /// Takes in the part of a URL after `?`. A parameter that isn't in `known` is a mistake.
    pub fn read(raw: &str, known: &[&'static str]) -> Self {
        let mut query = Self { values: Vec::new(), errors: Errors::default() };
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name).unwrap_or_else(|| name.to_owned());
            let Some(known_name) = known.iter().find(|known| **known == name) else {
                let detail = match known {
                    [] => "is not a known parameter; there is none here".to_owned(),
                    _ => format!("is not a known parameter; known here: {}", known.join(", ")),
                };
                query.refuse(&name, detail);
                continue;
            };
            match decoded(value) {
                _ if query.values.iter().any(|(earlier, _)| earlier == known_name) => {
                    query.refuse(known_name, "must be given once");
                }
                Some(value) => query.values.push((known_name, value)),
                None => query.refuse(known_name, "is not UTF-8 in percent-encoding"),
            }
        }
        query
    }

    /// A parameter's text of 1 to `max` bytes without NUL.
    pub fn text(&self, name: &str, max: usize) -> Option<&str> {
        let (_, value) = self.values.iter().find(|(given, _)| *given == name)?;
        let fault = if value.is_empty() { Some("must not be empty".to_owned()) } else { text_fault(value, max) };
        match fault {
            Some(fault) => {
                self.refuse(name, fault);
                None
            }
            None => Some(value),
        }
    }

    /// A parameter that is `true` or `false`.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        const BYTES_MAX: usize = 8;
        match self.text(name, BYTES_MAX)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                self.refuse(name, "must be true or false");
                None
            }
        }
    }

    /// A parameter that is a whole number of that range.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        /// More than the digits of any `u64`.
        const DIGITS_MAX: usize = 32;
        let text = self.text(name, DIGITS_MAX)?;
        let number = whole_number(text).filter(|number| range.contains(number));
        if number.is_none() {
            self.refuse(name, format_args!("must be a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A parameter that is a whole number of that range, which ends within 32 bits.
    pub fn small_number(&self, name: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        self.number(name, range).and_then(|number| u32::try_from(number).ok())
    }

    /// Notes that a parameter can't be accepted.
    pub fn refuse(&self, name: &str, detail: impl Display) {
        self.errors.add(name, detail);
    }

    /// All the mistakes, if there are any.
    pub fn finish(self) -> Result<(), Problem> {
        self.errors.finish(Some(())).map_err(Problem::malformed_fields)
    }
}

impl filter::Source for Query {
    fn condition<T>(&self, name: &'static str, bytes_max: usize, read: fn(&str) -> Result<T, String>) -> Option<T> {
        let value = read(self.text(name, bytes_max)?);
        value.inspect_err(|fault| self.refuse(name, fault)).ok()
    }
}

/// A number in plain digits: `parse` alone would take `+1` as well.
pub fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A text in the encoding of forms: `%41` for a byte, `+` for a space. Bytes that aren't UTF-8 are refused, where the
/// usual decoders replace them.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => (hex(rest.next()?)? << 4) | hex(rest.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["state", "label", "limit"];

    fn faults(query: Query) -> Vec<(String, String)> {
        let problem = serde_json::to_value(query.finish().unwrap_err()).unwrap();
        assert_eq!(problem["status"], 400);
        let errors = problem["errors"].as_array().unwrap();
        errors.iter().map(|e| (e["field"].as_str().unwrap().into(), e["detail"].as_str().unwrap().into())).collect()
    }

    #[test]
    fn a_parameter_is_decoded() {
        let query = Query::read("label=team%3Dc%C3%B6re+1&&limit=7", &KNOWN);
        assert_eq!(query.text("label", 255), Some("team=cöre 1"));
        assert_eq!(query.number("limit", 1..=1000), Some(7));
        assert_eq!(query.text("state", 255), None);
        assert!(query.finish().is_ok());
    }

    #[test]
    fn every_mistake_is_named() {
        let query = Query::read("stat=x&label=a&label=b&state=%ff&limit=%zz", &KNOWN);
        let fields: Vec<String> = faults(query).into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["stat", "label", "state", "limit"]);
    }

    #[test]
    fn what_is_no_number_of_the_range_is_refused() {
        for text in ["", "0", "1001", "-1", "+1", "1.0", "x", "%201", "99999999999999999999", "1%00"] {
            let raw = format!("limit={text}");
            let query = Query::read(&raw, &KNOWN);
            assert_eq!(query.number("limit", 1..=1000), None, "{text}");
            assert_eq!(faults(query).first().unwrap().0, "limit", "{text}");
        }
    }

    #[test]
    fn a_route_without_parameters_says_so() {
        let query = Query::read("x=1", &[]);
        assert_eq!(faults(query), [("x".to_owned(), "is not a known parameter; there is none here".to_owned())]);
    }
}
