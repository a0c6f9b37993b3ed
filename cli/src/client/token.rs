//! The token that goes with each request: from the variable or its file, or from the data directory of this machine's
//! `dev`.

use std::path::Path;

use shared::secret::Secret;
use shared::settings::Settings;

use crate::data_dir::token_file;
use crate::exit::Error;

/// The token that the variable, or the file that it names, holds.
///
/// # Errors
/// When that can't be read, or can't be a token.
pub fn told(settings: &Settings) -> Result<Option<Secret>, Error> {
    let name = if settings.text("WINDLASS_TOKEN").is_some() { "WINDLASS_TOKEN" } else { "WINDLASS_TOKEN_FILE" };
    settings.secret("WINDLASS_TOKEN")?.map(|text| checked(&text, name)).transpose()
}

/// The token that this machine's `dev` keeps in `data_dir`, if there is one.
///
/// # Errors
/// When it is there and can't be read, or can't be a token.
pub fn kept(data_dir: &Path) -> Result<Option<Secret>, Error> {
    let path = token_file(data_dir);
    match std::fs::read_to_string(&path) {
        Ok(text) => checked(&text, &path.display().to_string()).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::failed(format_args!("{}: {error}; or set WINDLASS_TOKEN", path.display()))),
    }
}

/// What a header can carry: one word of visible ASCII.
///
/// # Errors
/// When it is something else, without any of it.
pub fn checked(text: &str, source: &str) -> Result<Secret, Error> {
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::Usage(format!("{source}: holds no token: a token is one word of visible ASCII characters")));
    }
    Ok(Secret::new(token.to_owned()))
}

#[cfg(test)]
mod tests {
    use shared::settings::Settings;

    use super::{kept, told};

    #[test]
    fn what_cannot_be_a_token_is_refused_under_the_name_that_it_came_by() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        for garbage in ["two words", "line\nline", "gr\u{fc}n", "\u{1}", "\n"] {
            std::fs::write(&file, garbage).unwrap();
            let line = format!("{:?}", kept(dir.path()).unwrap_err());
            assert!(line.contains(file.to_str().unwrap()) && line.contains("holds no token"), "{line}");
            let variable = |name: &str| (name == "WINDLASS_TOKEN").then(|| garbage.to_owned());
            let line = format!("{:?}", told(&Settings::new(&variable)).unwrap_err());
            assert!(line.contains("WINDLASS_TOKEN: holds no token"), "{line}");
            assert!(!line.contains("words"), "none of it is shown: {line}");
        }
        let by_file = |name: &str| (name == "WINDLASS_TOKEN_FILE").then(|| file.to_str().unwrap().to_owned());
        std::fs::write(&file, "two words").unwrap();
        let line = format!("{:?}", told(&Settings::new(&by_file)).unwrap_err());
        assert!(line.contains("WINDLASS_TOKEN_FILE: holds no token"), "{line}");
        std::fs::write(&file, " s3cret\r\n").unwrap();
        assert_eq!(told(&Settings::new(&by_file)).unwrap().unwrap().reveal(), "s3cret");
        assert_eq!(kept(dir.path()).unwrap().unwrap().reveal(), "s3cret");
    }
}
