//! The repository's files as the rules see them: text, and code without its comments and literals.

use std::path::Path;

/// One file with its path from the repository's root.
#[derive(Debug, Clone)]
pub struct File {
    pub path: String,
    pub text: String,
    /// The text with every comment, string and character literal blanked; line breaks stay.
    pub code: String,
}

/// A function with a body: its name, its first line (from 1) and how many lines it has.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

/// What holds no source: what cargo makes, and what git and editors keep.
const SKIPPED: [&str; 3] = ["target", ".git", ".sqlx"];

impl File {
    pub fn new(path: &str, text: &str) -> Self {
        let code = if has_ending(path, "rs") { blanked(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub fn is_rust(&self) -> bool {
        has_ending(&self.path, "rs")
    }

    /// Whether it is part of what is shipped, rather than of the tests' crate.
    pub fn is_shipped(&self) -> bool {
        self.is_rust() && !self.path.starts_with("tests/")
    }

    /// The code of tests in it: all of it in the tests' crate, else what follows the first `#[cfg(test)]`.
    pub fn test_code(&self) -> &str {
        if self.is_shipped() {
            self.code.find("#[cfg(test)]").map_or("", |start| &self.code[start..])
        } else {
            &self.code
        }
    }

    /// Every function in it that has a body, nested ones too.
    pub fn functions(&self) -> Vec<Function> {
        let starts = words(&self.code, "fn").into_iter();
        starts.filter_map(|start| function(&self.code, start)).collect()
    }
}

/// Every file of the repository that is text, in order of the paths.
pub fn repository() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests' crate stands in the repository");
    let mut files = Vec::new();
    collect(root, root, &mut files);
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<File>) {
    for entry in std::fs::read_dir(dir).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if SKIPPED.contains(&name) || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files);
        } else if let (Ok(text), Ok(inside)) = (std::fs::read_to_string(&path), path.strip_prefix(root)) {
            files.push(File::new(&inside.to_string_lossy(), &text));
        }
    }
}

pub fn has_ending(path: &str, ending: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == ending)
}

/// Where `word` stands in `code` as a word of its own.
pub fn words(code: &str, word: &str) -> Vec<usize> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let alone = |start: &usize| !code[..*start].ends_with(part) && !code[start + word.len()..].starts_with(part);
    code.match_indices(word).map(|(start, _)| start).filter(alone).collect()
}

/// The number of the line that holds byte `place`, from 1.
pub fn line_of(text: &str, place: usize) -> usize {
    text[..place].matches('\n').count() + 1
}

/// The end of the block whose opening brace stands at `open`, the closing brace included.
pub fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (place, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + place + 1;
        }
    }
    code.len()
}

/// The function whose `fn` stands at `start`; none for a type like `fn(u8)` and for a declaration without a body.
fn function(code: &str, start: usize) -> Option<Function> {
    let name: String =
        code[start + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let mut depth = 0;
    for (place, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '{' if depth == 0 && !name.is_empty() => {
                let end = block_end(code, start + place);
                let lines = code[start..end].matches('\n').count() + 1;
                return Some(Function { name, line: line_of(code, start), lines });
            }
            ';' | '{' | '}' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// `text` with comments and literals replaced by spaces, line breaks kept.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = comment(rest).or_else(|| if after_word { None } else { raw_string(rest) });
        if let Some(length) = skipped.or_else(|| string(rest)).or_else(|| character(rest)) {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        } else {
            let length = rest.chars().next().map_or(0, char::len_utf8);
            code.push_str(&rest[..length]);
            rest = &rest[length..];
        }
    }
    code
}

fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    text.starts_with("/*").then(|| text.find("*/").map_or(text.len(), |end| end + 2))
}

/// The length of `r"…"`, `r#"…"#` and their `b` and `c` forms.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inside.find(&close).map_or(inside.len(), |end| end + close.len());
    Some(text.len() - inside.len() + end)
}

fn string(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('"')?;
    let mut escaped = false;
    for (place, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(place + 2),
            _ => {}
        }
    }
    Some(text.len())
}

/// The length of a character literal; a lifetime is none.
fn character(text: &str) -> Option<usize> {
    let inside = text.strip_prefix('\'')?;
    if inside.starts_with('\\') {
        return inside[2..].find('\'').map(|end| end + 4);
    }
    let first = inside.chars().next()?.len_utf8();
    inside[first..].starts_with('\'').then_some(first + 2)
}

#[cfg(test)]
mod tests {
    use super::{File, Function};

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_kept() {
        for (text, code) in [
            ("a(); // b();\nc", "a();        \nc"),
            ("a /* b\n */ c", "a     \n    c"),
            (r#"a("b\"c", d)"#, "a(      , d)"),
            ("a(r#\"b\"c\"#, d)", "a(        , d)"),
            ("a('b', '\\'', '\"', &'d e)", "a(   ,     ,    , &'d e)"),
            ("for x in y", "for x in y"),
        ] {
            assert_eq!(File::new("a.rs", text).code, code, "{text}");
        }
    }

    #[test]
    fn functions_are_found_with_their_lengths() {
        let text = "trait T { fn a(&self, b: [u8; 4]); }\n\
                    pub async fn long(\n    b: fn(u8) -> u8,\n) -> u8 {\n    if b { \"}\" }\n    fn inner() {}\n}\n";
        let found = File::new("a.rs", text).functions();
        let function = |name: &str, line, lines| Function { name: name.to_owned(), line, lines };
        assert_eq!(found, [function("long", 2, 6), function("inner", 6, 1)]);
    }
}
