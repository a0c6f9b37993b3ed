//! `windlass job explain`: why a job isn't running, and the facts that say so.

use std::fmt::Write;

use serde_json::Value;

use shared::id::JobId;
use shared::view::explanation::Explanation;

use super::{JOBS, print_document, read};
use crate::args::api::Output;
use crate::client::Client;
use crate::exit::Error;
use crate::terminal::{escaped, print};

/// Prints the explanation.
pub fn explain(client: &Client, id: JobId, output: Output) -> Result<u8, Error> {
    let answer = client.get(&format!("{JOBS}/{id}/explain"))?;
    match output {
        Output::Json => print_document(&answer)?,
        Output::Table => print(&text(&read::<Explanation>(&answer)?, &read::<Value>(&answer)?))?,
    }
    Ok(0)
}

/// The summary, then each fact on lines of its own, under the names that the API gives them.
fn text(explanation: &Explanation, document: &Value) -> String {
    let mut out = format!("{}: {}\n", explanation.state, escaped(&explanation.summary));
    for reason in document.get("reasons").and_then(Value::as_array).into_iter().flatten() {
        let kind = reason.get("kind").and_then(Value::as_str).unwrap_or("?");
        // Writing to a String doesn't fail.
        let _ = writeln!(out, "\n{}", escaped(kind));
        for (name, value) in reason.as_object().into_iter().flatten().filter(|(name, _)| *name != "kind") {
            lines(&mut out, name, value);
        }
    }
    out
}

/// A fact as lines; what isn't known is left out.
fn lines(out: &mut String, name: &str, value: &Value) {
    match value {
        Value::Null => {}
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                lines(out, name, item);
            }
        }
        value => {
            let _ = writeln!(out, "  {name:<14}{}", escaped(&short(value)));
        }
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(short).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            known.map(|(name, value)| format!("{name} {}", short(value))).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn the_summary_comes_first_and_each_fact_is_a_line() {
        let document = json!({
            "id": "01934f5e-0000-7000-8000-000000000000", "state": "queued", "at": "2026-01-01T00:00:00.000000Z",
            "summary": "Worker a\u{1b}b has its tags, with all 2 slots busy.",
            "reasons": [
                {"kind": "workers_busy", "count": 1, "slots": 2, "running": 2, "workers": [
                    {"id": "01934f5e-0000-4000-8000-000000000001", "name": "a\u{1b}b", "slots": 2, "running": 2, "seen_at": null},
                ]},
                {"kind": "queued", "tags": ["x", "y"], "priority": "high", "position": 3, "at_least": false, "since": null,
                 "expires": "2026-01-02T00:00:00.000000Z"},
            ],
        });
        let explanation = serde_json::from_value(document.clone()).unwrap();
        let expected = "queued: Worker a\\u{1b}b has its tags, with all 2 slots busy.\n\
            \nworkers_busy\n  count         1\n  running       2\n  slots         2\n  \
            workers       id 01934f5e-0000-4000-8000-000000000001, name a\\u{1b}b, running 2, slots 2\n\
            \nqueued\n  at_least      false\n  expires       2026-01-02T00:00:00.000000Z\n  position      3\n  \
            priority      high\n  tags          x, y\n";
        assert_eq!(text(&explanation, &document), expected);
    }
}
