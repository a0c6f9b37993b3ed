//! Reads the text of a JSON document so that nothing in it is passed over: a key that stands twice in an object is a
//! mistake, where the usual readers keep the last one and say nothing.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::reader::{Errors, FieldError};
use super::{JOBS_MAX, STEPS_MAX};

/// The most arrays and objects of a document: more than the largest batch has, whose jobs have one of each for a step and few
/// beside. In memory each takes a hundred times what the shortest of them take in a text.
const CONTAINERS_MAX: usize = JOBS_MAX * 2 * (STEPS_MAX + 16);

/// Why a text is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It has more arrays and objects than [`CONTAINERS_MAX`].
    Containers,
    /// It isn't JSON: where, and why.
    Syntax(String),
    /// These keys stand twice.
    Doubled(Vec<FieldError>),
}

/// The document that `text` holds.
///
/// # Errors
/// See [`Fault`].
pub fn read(text: &str) -> Result<Value, Fault> {
    let doubled = Errors::default();
    let mut parser = serde_json::Deserializer::from_str(text);
    let left = Cell::new(Some(CONTAINERS_MAX));
    let place = Place { path: &Path::Root, doubled: &doubled, left: &left };
    let value = place.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    let value = value.map_err(|error| match left.get() {
        Some(_) => Fault::Syntax(error.to_string()),
        None => Fault::Containers,
    })?;
    doubled.finish(Some(value)).map_err(Fault::Doubled)
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containers => write!(f, "has more than {CONTAINERS_MAX} arrays and objects"),
            Self::Syntax(why) => write!(f, "is not JSON: {why}"),
            Self::Doubled(errors) => {
                let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
                write!(f, "has a key that stands twice: {}", fields.join(", "))
            }
        }
    }
}

/// Where a value stands. Nothing is allocated for it unless something there is wrong.
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Path::Root, key) => f.write_str(key),
            Self::Key(inside, key) => write!(f, "{inside}.{key}"),
            Self::Index(inside, index) => write!(f, "{inside}[{index}]"),
        }
    }
}

/// Reads the value that stands there.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path<'a>,
    doubled: &'a Errors,
    /// How many more arrays and objects there may be; none where there was one too many.
    left: &'a Cell<Option<usize>>,
}

impl Place<'_> {
    /// Counts an array or an object.
    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(1)));
        if self.left.get().is_some() { Ok(()) } else { Err(E::custom("too many arrays and objects")) }
    }
}

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        self.count()?;
        let mut array = Vec::new();
        loop {
            let path = Path::Index(self.path, array.len());
            match elements.next_element_seed(Place { path: &path, ..self })? {
                Some(element) => array.push(element),
                None => return Ok(array.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.count()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let path = Path::Key(self.path, &key);
            let value = entries.next_value_seed(Place { path: &path, ..self })?;
            if object.contains_key(&key) {
                self.doubled.add(&path, "stands twice");
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{CONTAINERS_MAX, Fault, JOBS_MAX, STEPS_MAX, read};

    fn doubled(text: &str) -> Vec<String> {
        match read(text) {
            Err(Fault::Doubled(errors)) => errors.into_iter().map(|error| error.field).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_document_is_read_like_any_json() {
        let text =
            r#" {"a": [1, -2, 0.5, 1e30, 18446744073709551615, "x\n\u00e9", true, null, {}, []], "b": {"a": 1}} "#;
        assert_eq!(read(text), Ok(serde_json::from_str(text).unwrap()));
        assert_eq!(read("7"), Ok(json!(7)));
    }

    #[test]
    fn every_key_that_stands_twice_is_named_by_its_path() {
        assert_eq!(doubled(r#"{"a": 1, "a": 1}"#), ["a"]);
        assert_eq!(
            doubled(r#"{"steps": [{}, {"run": "a", "run": "b"}], "env": {"A": "1", "A": "2"}}"#),
            ["steps[1].run", "env.A"]
        );
        assert_eq!(doubled(r#"[{"a": 1, "\u0061": 2}]"#), ["[0].a"]);
    }

    #[test]
    fn a_document_of_too_many_arrays_and_objects_is_refused_and_the_largest_batch_is_not() {
        let batch = |steps: usize| {
            let job = json!({"steps": vec![json!({"exec": ["a"]}); steps], "env": {}, "tags": [], "labels": {}, "secrets": {}});
            json!({"jobs": vec![job; JOBS_MAX]}).to_string()
        };
        assert!(read(&batch(STEPS_MAX)).is_ok());
        assert_eq!(read(&batch(STEPS_MAX + 16)), Err(Fault::Containers));
        assert!(read(&format!("[{}[]]", "[],".repeat(CONTAINERS_MAX - 2))).is_ok());
        assert_eq!(read(&format!("[{}[]]", "{},".repeat(CONTAINERS_MAX - 1))), Err(Fault::Containers));
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        for text in ["", "{", "{} {}", "[1,]", "{\"a\" 1}", "nul", "1e999"] {
            assert!(matches!(read(text), Err(Fault::Syntax(_))), "{text}: {:?}", read(text));
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(read(&deep), Err(Fault::Syntax(why)) if why.contains("recursion")));
        assert_eq!(serde_json::from_str::<Value>("1e999").is_err(), read("1e999").is_err());
    }
}
