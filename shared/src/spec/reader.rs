//! Reads JSON from outside field by field and collects every mistake, where a derived decoder stops at the first.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::fmt::{self, Display, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// The most mistakes that one answer lists: one for each job of the largest batch.
const ERRORS_MAX: usize = super::JOBS_MAX;
/// The most bytes of a field's path that an answer repeats: keys come from outside.
const PATH_BYTES_MAX: usize = 300;
/// The most bytes of a text that stands for a time, a period or one of a few words.
const PARSED_BYTES_MAX: usize = 300;

/// A field that is refused, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Its path in the request, like `steps[0].run`.
    pub field: String,
    pub detail: String,
}

impl FieldError {
    /// `field` is refused because of `detail`.
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub struct Errors(RefCell<Vec<FieldError>>);

impl Errors {
    /// Notes one. At the first beyond [`ERRORS_MAX`] the answer says that there are more, and drops the rest.
    pub fn add(&self, path: &(impl Display + ?Sized), detail: impl Display) {
        let mut errors = self.0.borrow_mut();
        match errors.len().cmp(&ERRORS_MAX) {
            Ordering::Less => errors.push(FieldError::new(cut(path), detail.to_string())),
            Ordering::Equal => errors.push(FieldError::new("body", "has more mistakes than are listed here")),
            Ordering::Greater => {}
        }
    }

    /// `value`, or all the mistakes if there are any.
    ///
    /// # Errors
    /// The mistakes, in the order in which they were found; also where there is no value.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Vec<FieldError>> {
        let errors = self.0.into_inner();
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            _ => Err(errors),
        }
    }
}

/// One value with its place in the request.
#[derive(Debug, Clone)]
pub struct Node<'a> {
    pub value: &'a Value,
    pub path: String,
    errors: &'a Errors,
}

impl<'a> Node<'a> {
    /// The whole request, called `path` in mistakes about it as a whole.
    pub fn root(value: &'a Value, path: &str, errors: &'a Errors) -> Self {
        Self { value, path: path.to_owned(), errors }
    }

    /// Notes a mistake about this value.
    pub fn refuse(&self, detail: impl Display) {
        self.errors.add(&self.path, detail);
    }

    /// The value as an object. `inside` is what its fields' paths begin with: the empty string at the root.
    pub fn object(&self, inside: &str) -> Option<Object<'a>> {
        let fields = self.value.as_object();
        if fields.is_none() {
            self.refuse("must be an object");
        }
        fields.map(|fields| Object {
            fields,
            path: inside.to_owned(),
            errors: self.errors,
            known: RefCell::new(Vec::new()),
        })
    }

    /// The value as an object whose fields' paths begin with its own.
    pub fn nested(&self) -> Option<Object<'a>> {
        self.object(&self.path)
    }

    /// The value as an array of `min` to `max` elements.
    pub fn array(&self, min: usize, max: usize) -> Option<Vec<Node<'a>>> {
        let Some(elements) = self.value.as_array() else {
            self.refuse("must be an array");
            return None;
        };
        if !(min..=max).contains(&elements.len()) {
            self.refuse(format_args!("must have {min} to {max} elements, not {}", elements.len()));
            return None;
        }
        let node = |(i, value)| Node { value, path: format!("{}[{i}]", self.path), errors: self.errors };
        Some(elements.iter().enumerate().map(node).collect())
    }

    /// The value as a text of 1 to `max` bytes without NUL.
    pub fn text(&self, max: usize) -> Option<&'a str> {
        let text = self.text_or_empty(max)?;
        if text.is_empty() {
            self.refuse("must not be empty");
            return None;
        }
        Some(text)
    }

    /// The value as a text of at most `max` bytes without NUL.
    pub fn text_or_empty(&self, max: usize) -> Option<&'a str> {
        let Some(text) = self.value.as_str() else {
            self.refuse("must be a string");
            return None;
        };
        match text_fault(text, max) {
            Some(fault) => {
                self.refuse(fault);
                None
            }
            None => Some(text),
        }
    }

    /// The value as a text that `T` can be read from.
    pub fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        match self.text(PARSED_BYTES_MAX)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(error);
                None
            }
        }
    }

    /// The value as a whole number from `min` to `max`.
    pub fn number(&self, min: u32, max: u32) -> Option<u32> {
        let number = self.value.as_u64().and_then(|n| u32::try_from(n).ok()).filter(|n| (min..=max).contains(n));
        if number.is_none() {
            self.refuse(format_args!("must be a whole number from {min} to {max}"));
        }
        number
    }

    /// The value as `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.refuse("must be true or false");
        }
        value
    }
}

/// An object whose fields are asked for by name; what nobody asked for is refused.
#[derive(Debug)]
pub struct Object<'a> {
    fields: &'a Map<String, Value>,
    path: String,
    errors: &'a Errors,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Object<'a> {
    /// The field of that name; `null` counts as left out.
    pub fn get(&self, name: &'static str) -> Option<Node<'a>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&name) {
            known.push(name);
        }
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        Some(Node { value, path: self.path_of(name), errors: self.errors })
    }

    /// The field of that name, refused where it is missing.
    pub fn require(&self, name: &'static str) -> Option<Node<'a>> {
        let node = self.get(name);
        if node.is_none() {
            self.errors.add(&self.path_of(name), "is required");
        }
        node
    }

    /// Every field of a map whose keys are the submitter's own: at most `max`.
    pub fn entries(&self, max: usize) -> Vec<(&'a str, Node<'a>)> {
        if self.fields.len() > max {
            self.errors.add(&self.path, format_args!("must have at most {max} entries, not {}", self.fields.len()));
            return Vec::new();
        }
        let entry = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), Node { value, path: self.path_of(key), errors: self.errors })
        };
        self.fields.iter().map(entry).collect()
    }

    /// Refuses the fields that nobody asked for.
    pub fn finish(self) {
        let known = self.known.borrow();
        for name in self.fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let detail = format!("is not a known field; known here: {}", known.join(", "));
            self.errors.add(&self.path_of(name), detail);
        }
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// What is wrong with a text from outside, if anything: its length or a NUL.
pub fn text_fault(text: &str, max: usize) -> Option<String> {
    if text.len() > max {
        Some(format!("must have at most {max} bytes, not {}", text.len()))
    } else if text.contains('\0') {
        Some("must not contain NUL".to_owned())
    } else {
        None
    }
}

/// As much of a path as an answer repeats. The rest isn't even written: whoever sends a long key with many mistakes below it
/// would have it written for each of them.
fn cut(path: &(impl Display + ?Sized)) -> String {
    let mut head = Head(String::new());
    let whole = write!(head, "{path}").is_ok();
    if whole { head.0 } else { head.0 + "…" }
}

/// The beginning of a text; writing ends with an error where there is more.
struct Head(String);

impl Write for Head {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(PATH_BYTES_MAX.saturating_sub(self.0.len()));
        let (head, rest) = text.split_at(end);
        self.0.push_str(head);
        if rest.is_empty() { Ok(()) } else { Err(fmt::Error) }
    }
}
