//! Which form of an answer a request asks for in its `Accept` header.

use actix_web::http::header::{ACCEPT, HeaderMap};

/// A form that an answer can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    /// Plain text.
    Text,
    /// Server-sent events.
    Events,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Text => "text/plain",
            Self::Events => "text/event-stream",
        }
    }
}

/// The one of `offered` that is asked for most; JSON where none is asked for by its name.
pub fn wanted(headers: &HeaderMap, offered: &[Form]) -> Form {
    let values = headers.get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    let ranges = values.flat_map(|value| value.split(','));
    let mut best = (Form::Json, 0);
    for (form, weight) in ranges.filter_map(|range| weighed(range, offered)) {
        if weight > best.1 {
            best = (form, weight);
        }
    }
    best.0
}

/// The form that a media range names, with its weight in thousandths.
fn weighed(range: &str, offered: &[Form]) -> Option<(Form, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next()?;
    let form = *offered.iter().find(|form| name.eq_ignore_ascii_case(form.media_type()))?;
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((form, quality.map_or(1000, thousandths)))
}

/// A weight like `0.75`; 0 for one that can't be read.
fn thousandths(quality: &str) -> u32 {
    let (whole, fraction) = quality.split_once('.').unwrap_or((quality, ""));
    match (whole, fraction.len()) {
        ("1", _) => 1000,
        ("0", ..=3) => format!("{fraction:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn the_form_asked_for_most_is_taken() {
        use Form::{Events, Json, Text};
        let cases = [
            ("", Json),
            ("*/*", Json),
            ("image/png", Json),
            ("text/plain", Text),
            ("TEXT/plain; charset=utf-8", Text),
            ("text/event-stream, */*", Events),
            ("text/plain;q=0.5, text/event-stream;q=0.75", Events),
            ("text/plain;q=0", Json),
            ("application/json;q=0.1, text/plain;q=0.05", Json),
        ];
        for (accept, form) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(accept));
            assert_eq!(wanted(&headers, &[Json, Text, Events]), form, "{accept}");
        }
    }

    #[test]
    fn what_is_not_offered_is_not_taken() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/plain, text/event-stream;q=0.1"));
        assert_eq!(wanted(&headers, &[Form::Json, Form::Events]), Form::Events);
    }
}
