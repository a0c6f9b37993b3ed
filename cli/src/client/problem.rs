//! What a server's refusal (problem+json, RFC 9457) tells a person.

use serde::Deserialize;

use shared::spec::reader::FieldError;

/// As much of a problem as is shown.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    title: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<FieldError>,
}

/// The lines for an answer of `status` with that body: one for each refused field, or else what it says in general.
pub fn lines(status: u16, body: &str) -> Vec<String> {
    let Ok(problem) = serde_json::from_str::<Problem>(body) else {
        return vec![format!("the server answers with status {status} and no reason")];
    };
    if !problem.errors.is_empty() {
        return problem.errors.iter().map(|error| format!("{}: {}", error.field, error.detail)).collect();
    }
    let said = [problem.detail, problem.title].into_iter().find(|text| !text.is_empty());
    vec![said.unwrap_or_else(|| format!("the server answers with status {status} and no reason"))]
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn every_refused_field_has_a_line() {
        let body = r#"{"title": "no", "errors": [{"field": "steps", "detail": "must be there"},
                       {"field": "tags[0]", "detail": "must be a text"}]}"#;
        assert_eq!(lines(422, body), ["steps: must be there", "tags[0]: must be a text"]);
    }

    #[test]
    fn without_fields_the_reason_is_the_line() {
        assert_eq!(lines(404, r#"{"title": "Not found", "detail": "there is no such job"}"#), ["there is no such job"]);
        assert_eq!(lines(404, r#"{"title": "Not found"}"#), ["Not found"]);
        assert_eq!(lines(502, "<html>"), ["the server answers with status 502 and no reason"]);
    }
}
