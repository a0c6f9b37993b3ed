//! The text of server-sent events.
//!
//! A message's id is the number of what it carries, so that `Last-Event-ID` says where to go on. Of the named ones,
//! `gap` tells what is missing, and `end` that nothing follows: a stream that closes without it was cut off.

use serde::Serialize;
use serde_json::Value;

/// The media type.
pub const MEDIA_TYPE: &str = "text/event-stream";
/// A comment, which readers pass over.
pub const KEEP_ALIVE: &str = ": keep-alive\n\n";
/// The last words of a stream that is cut off: none, so that the reader comes back.
pub const BROKEN_OFF: &str = "";

/// One item with its number.
pub fn message(id: u64, data: &impl Serialize) -> String {
    format!("id: {id}\ndata: {}\n\n", json(data))
}

/// Something is missing, and why.
pub fn gap(why: &str) -> String {
    format!("event: gap\ndata: {}\n\n", json(&serde_json::json!({"detail": why})))
}

/// Nothing follows.
pub fn end(data: &Value) -> String {
    format!("event: end\ndata: {data}\n\n")
}

/// JSON has no line breaks of its own, so it is one line of data.
fn json(data: &impl Serialize) -> String {
    serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned())
}
