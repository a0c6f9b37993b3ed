//! The cursor of a list: an opaque text that says where the next page begins, and that fits the list and the filter
//! alone for which it was made.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use shared::id::JobId;
use shared::job::StateName;
use uuid::Uuid;

use crate::store::Filter;

/// The form of what follows; another one gets another number.
const VERSION: u8 = 1;
/// The form of a cursor that is a name.
const NAMES_VERSION: u8 = 2;
/// A version byte, the list's hash, and the bytes of an id.
const BYTES: usize = 1 + 32 + 16;

/// A cursor for what comes after `last` in the list of jobs that `filter` lets through.
pub fn encode(filter: &Filter, last: JobId) -> String {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.push(VERSION);
    bytes.extend(hash(filter));
    bytes.extend(last.uuid().as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Where the cursor points, unless it is none of that list with that filter.
pub fn decode(cursor: &str, filter: &Filter) -> Option<JobId> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (version, rest) = bytes.split_first()?;
    let (list, id) = rest.split_first_chunk::<32>()?;
    let id: [u8; 16] = id.try_into().ok()?;
    (*version == VERSION && *list == hash(filter)).then(|| JobId::from(Uuid::from_bytes(id)))
}

/// A cursor for what comes after `name` in a list whose order is that of names.
pub fn after_name(name: &str) -> String {
    URL_SAFE_NO_PAD.encode([&[NAMES_VERSION], name.as_bytes()].concat())
}

/// The name that the cursor points after, unless it is none of such a list.
pub fn name_after(cursor: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (version, name) = bytes.split_first()?;
    let name = String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty() && !name.contains('\0'));
    name.filter(|_| *version == NAMES_VERSION)
}

/// Stands for the list and its filter. JSON keeps the conditions apart whatever they contain.
fn hash(filter: &Filter) -> [u8; 32] {
    let Filter { state, tag, repository, label } = filter;
    let conditions = serde_json::json!(["jobs", state.map(StateName::as_str), tag, repository, label]);
    Sha256::digest(conditions.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> JobId {
        "01934f5e-0000-7000-8000-000000000007".parse().unwrap()
    }

    fn filters() -> Vec<Filter> {
        let some = |text: &str| Some(text.to_owned());
        vec![
            Filter::default(),
            Filter { state: Some(StateName::Queued), ..Filter::default() },
            Filter { tag: some("a"), ..Filter::default() },
            Filter { repository: some("a"), ..Filter::default() },
            Filter { label: Some(("a".to_owned(), None)), ..Filter::default() },
            Filter { label: Some(("a".to_owned(), some(""))), ..Filter::default() },
            Filter { label: Some(("a".to_owned(), some("b"))), ..Filter::default() },
        ]
    }

    #[test]
    fn a_cursor_fits_its_own_filter_alone() {
        for (i, made_for) in filters().iter().enumerate() {
            let cursor = encode(made_for, id());
            for (j, used_with) in filters().iter().enumerate() {
                assert_eq!(decode(&cursor, used_with), (i == j).then(id), "{i} {j}");
            }
        }
    }

    #[test]
    fn garbage_is_no_cursor() {
        let filter = Filter::default();
        let good = encode(&filter, id());
        let longer = format!("{good}AA");
        let other_version = format!("B{}", &good[1..]);
        let garbage =
            ["", "x", "ä", "AAAA", "01934f5e-0000-7000-8000-000000000007", &good[1..], &longer, &other_version];
        for text in garbage {
            assert_eq!(decode(text, &filter), None, "{text}");
        }
    }

    #[test]
    fn a_cursor_of_names_points_after_its_name_and_is_none_of_another_list() {
        for name in ["a", "app", "Ä"] {
            assert_eq!(name_after(&after_name(name)).as_deref(), Some(name));
            assert_eq!(decode(&after_name(name), &Filter::default()), None);
        }
        for text in ["", "x", "Ag", &encode(&Filter::default(), id())] {
            assert_eq!(name_after(text), None, "{text}");
        }
    }
}
