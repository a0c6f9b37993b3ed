//! Which jobs a list or a cancel is about, from a query or from a body: the same words mean the same in both.

use shared::job::StateName;
use shared::spec::{NAME_BYTES_MAX, URL_BYTES_MAX, VALUE_BYTES_MAX};

use crate::store::Filter;

/// The conditions' names.
pub const CONDITIONS: [&str; 4] = ["state", "tag", "repository", "label"];

/// Where conditions come from.
pub trait Source {
    /// What `read` makes of a condition's text; none where the condition is left out, and where it is refused, which
    /// the source notes.
    fn condition<T>(&self, name: &'static str, bytes_max: usize, read: fn(&str) -> Result<T, String>) -> Option<T>;
}

/// The filter that `source` asks for; it is complete only if nothing was refused.
pub fn read(source: &impl Source) -> Filter {
    let text = |text: &str| Ok(text.to_owned());
    Filter {
        state: source.condition("state", NAME_BYTES_MAX, str::parse::<StateName>),
        tag: source.condition("tag", NAME_BYTES_MAX, text),
        repository: source.condition("repository", URL_BYTES_MAX, text),
        label: source.condition("label", NAME_BYTES_MAX + 1 + VALUE_BYTES_MAX, label),
    }
}

/// A label's key, or its key and its value after the first `=`.
fn label(text: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = text.split_once('=').map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
    if key.is_empty() {
        return Err("must be a key, or a key and its value like team=core".to_owned());
    }
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::query::Query;

    fn of(raw: &str) -> (Filter, bool) {
        let query = Query::read(raw, &CONDITIONS);
        let filter = read(&query);
        (filter, query.finish().is_ok())
    }

    #[test]
    fn every_condition_is_read() {
        let (filter, good) = of("state=running&tag=linux&repository=/srv/app.git&label=team%3Dcore%3D1");
        assert!(good);
        assert_eq!(filter.state, Some(StateName::Running));
        assert_eq!(filter.tag.as_deref(), Some("linux"));
        assert_eq!(filter.repository.as_deref(), Some("/srv/app.git"));
        assert_eq!(filter.label, Some(("team".to_owned(), Some("core=1".to_owned()))));
        assert_eq!(of("label=team").0.label, Some(("team".to_owned(), None)));
    }

    #[test]
    fn a_condition_that_means_nothing_is_refused() {
        for raw in ["state=done", "state=", "tag=", "label==core", "repository=a%00b", "label="] {
            assert!(!of(raw).1, "{raw}");
        }
    }
}
