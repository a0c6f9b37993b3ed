//! A job's events as a list for people.

use maud::{Markup, html};
use serde_json::Value;
use shared::job::{Event, OutcomeView};
use shared::time::Time;
use shared::view::EventView;

use super::words;

/// The most characters of what an event brings with it.
const DETAIL_CHARS_MAX: usize = 300;
/// The most characters of who did it: a worker's id is told from others by less than all of it.
const ACTOR_CHARS_MAX: usize = 24;

/// The list; `is_whole` where no events come before these.
pub fn show(events: &[Event], is_whole: bool) -> Markup {
    let first = events.first().map(|event| event.at);
    html! {
        @if !is_whole { p.hint { "Earlier events are left out here; the API has them." } }
        ol.timeline {
            @for event in events {
                @let view = EventView::from(event);
                li {
                    span.offset { (offset(first, event.at)) }
                    span.kind { (view.kind.replace('_', " ")) }
                    span.detail { (detail(&view)) }
                    span.actor title=(words::visible(&view.actor)) { (words::cut(&words::visible(&view.actor), ACTOR_CHARS_MAX)) }
                }
            }
        }
    }
}

fn offset(first: Option<Time>, at: Time) -> Markup {
    let passed = words::length(first.map_or_else(Default::default, |first| at.since(first)));
    html! { time datetime=(at) title=(words::stamp(at)) { "+" (passed) } }
}

/// What an event brings with it, in a line.
fn detail(event: &EventView) -> String {
    let more = &event.more;
    let text = |name: &str| more.get(name).and_then(Value::as_str).map(str::to_owned);
    let outcome = || serde_json::from_value::<OutcomeView>(Value::Object(more.clone())).ok();
    let step = || {
        let number = more.get("step").map(Value::to_string).unwrap_or_default();
        text("name").map_or_else(|| number.clone(), |name| format!("{number} ({name})"))
    };
    let said = match &*event.kind {
        "step_started" => step(),
        "step_finished" => match (more.get("exit_code").or(more.get("code")), more.get("signal")) {
            (Some(code), _) if !code.is_null() => format!("{}: exit code {code}", step()),
            (_, Some(signal)) if !signal.is_null() => format!("{}: signal {signal}", step()),
            _ => step(),
        },
        "failed" | "retried" => outcome().map(|outcome| outcome.to_string()).unwrap_or_default(),
        "key_try" => {
            let answer = more.get("answer").map(|answer| answer.as_str().map_or(answer.to_string(), str::to_owned));
            [answer, text("why")].into_iter().flatten().collect::<Vec<_>>().join(": ")
        }
        "queued" | "assigned" | "succeeded" | "started" => String::new(),
        _ => {
            let named = ["why", "message", "key", "commit", "until"].into_iter().filter_map(text);
            named.collect::<Vec<_>>().join(", ")
        }
    };
    words::cut(&words::visible(&said), DETAIL_CHARS_MAX)
}
