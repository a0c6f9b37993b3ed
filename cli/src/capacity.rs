//! What a worker offers: its slots and its tags, from flags and variables.

use serde_json::json;

use shared::settings::Settings;
use shared::spec::parse_single;
use shared::spec::reader::FieldError;

use crate::exit::Error;

/// How many jobs a worker runs at once, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    pub slots: u32,
    /// Sorted, without doubles.
    pub tags: Vec<String>,
}

impl Capacity {
    /// What the flags say, or else the variables, or else as many slots as there are CPUs and no tags.
    ///
    /// # Errors
    /// When it can't be.
    pub fn read(slots: Option<u32>, tags: &[String], settings: &Settings) -> Result<Self, Error> {
        let cpus = || std::thread::available_parallelism().map_or(1, |n| n.get().try_into().unwrap_or(1));
        let slots = settings.flag_or(slots, "WINDLASS_SLOTS")?.unwrap_or_else(cpus);
        if !(1..=worker::SLOTS_MAX).contains(&slots) {
            return Err(Error::Usage(format!("--slots: must be from 1 to {}", worker::SLOTS_MAX)));
        }
        let from_variable = || settings.text("WINDLASS_TAG").unwrap_or_default();
        let tags = if tags.is_empty() { split(&from_variable()) } else { tags.to_vec() };
        Ok(Self { slots, tags: checked(&tags)? })
    }
}

/// `tags` sorted and without doubles, if a job could ask for each of them.
///
/// # Errors
/// When none could.
pub fn checked(tags: &[String]) -> Result<Vec<String>, Error> {
    let asks = json!({"steps": [{"run": "true"}], "tags": tags});
    let asked = parse_single(&asks, None);
    let refused = |error: &FieldError| format!("--tag: {} {}", tags.join(", "), error.detail);
    asked.map(|job| job.spec.tags).map_err(|errors| Error::Usage(errors.first().map(refused).unwrap_or_default()))
}

/// The tags that a text with commas names.
pub fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use shared::settings::Settings;

    use super::Capacity;
    use crate::exit::Error;

    fn capacity(slots: Option<u32>, tags: &[&str], variables: &[(&str, &str)]) -> Result<Capacity, Error> {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
        Capacity::read(slots, &tags, &Settings::new(&lookup))
    }

    #[test]
    fn an_empty_variable_counts_as_unset_and_a_flag_wins() {
        let unset = capacity(None, &[], &[("WINDLASS_SLOTS", ""), ("WINDLASS_TAG", "")]).unwrap();
        assert!(unset.slots >= 1 && unset.tags.is_empty());
        let set = [("WINDLASS_SLOTS", "7"), ("WINDLASS_TAG", "b,, a, b")];
        let from_variables = capacity(None, &[], &set).unwrap();
        assert_eq!((from_variables.slots, from_variables.tags), (7, vec!["a".to_owned(), "b".to_owned()]));
        let from_flags = capacity(Some(2), &["c"], &set).unwrap();
        assert_eq!((from_flags.slots, from_flags.tags), (2, vec!["c".to_owned()]));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (name, value) in
            [("WINDLASS_SLOTS", "many"), ("WINDLASS_SLOTS", "0"), ("WINDLASS_SLOTS", "4097"), ("WINDLASS_TAG", "a b")]
        {
            assert!(capacity(None, &[], &[(name, value)]).is_err(), "{value}");
        }
    }
}
