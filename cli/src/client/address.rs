//! Where the API is, and whether that is this machine.

use std::net::IpAddr;
use std::path::Path;

use shared::settings::Settings;

use crate::data_dir::url_file;
use crate::exit::Error;

/// Where `windlass dev` listens unless told otherwise.
const DEFAULT: &str = "http://127.0.0.1:7070";

/// The API's address.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    /// Scheme and host, without a slash at the end.
    pub base: String,
}

impl Address {
    /// The address that the flag or the variable tells, or that the `dev` of `data_dir` has noted, or the default.
    ///
    /// # Errors
    /// When it is no HTTP URL.
    pub fn find(flag: Option<&str>, settings: &Settings, data_dir: Option<&Path>) -> Result<Self, Error> {
        let told = flag.map(|url| ("--url".to_owned(), url.to_owned()));
        let variable = || Some(("WINDLASS_URL".to_owned(), settings.text("WINDLASS_URL")?));
        let noted = || {
            let note = url_file(data_dir?);
            Some((note.display().to_string(), std::fs::read_to_string(note).ok()?))
        };
        let found = told.or_else(variable).or_else(noted);
        let (source, text) = found.unwrap_or_else(|| ("the default".to_owned(), DEFAULT.to_owned()));
        checked(&source, &text)
    }

    /// Whether it is an address that never leaves this machine.
    pub fn is_local(&self) -> bool {
        let authority = self.base.split('/').nth(2).unwrap_or("");
        let host = match authority.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(""),
            None => authority.split(':').next().unwrap_or(""),
        };
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

/// The address that `text` is, which came by `source`.
///
/// # Errors
/// When it is no HTTP URL.
pub fn checked(source: &str, text: &str) -> Result<Address, Error> {
    let base = text.trim().trim_end_matches('/');
    let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
    match host {
        Some(host) if host.contains('@') => {
            Err(Error::Usage(format!("{source}: must hold no name and no password: the token stands for both")))
        }
        Some(host) if !host.is_empty() && !host.contains(['?', '#', ' ']) => Ok(Address { base: base.to_owned() }),
        _ => Err(Error::Usage(format!("{source}: {base} is not a URL like {DEFAULT}"))),
    }
}

#[cfg(test)]
mod tests {
    use shared::settings::Settings;

    use super::Address;
    use crate::exit::Error;

    fn address(text: &str) -> Address {
        Address::find(Some(text), &Settings::new(&|_| None), None).unwrap()
    }

    #[test]
    fn the_address_is_the_one_told_then_the_one_noted_then_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let nothing = Settings::new(&|_| None);
        let noted = |settings: &Settings| Address::find(None, settings, Some(dir.path())).unwrap().base;
        assert_eq!(noted(&nothing), "http://127.0.0.1:7070");
        std::fs::write(dir.path().join("url"), "http://127.0.0.1:4242\n").unwrap();
        assert_eq!(noted(&nothing), "http://127.0.0.1:4242");
        let lookup = |name: &str| (name == "WINDLASS_URL").then(|| "http://ci.example".to_owned());
        let variable = Settings::new(&lookup);
        assert_eq!(noted(&variable), "http://ci.example");
        let told = Address::find(Some("https://flag.example/"), &variable, Some(dir.path())).unwrap();
        assert_eq!(told.base, "https://flag.example");
    }

    #[test]
    fn what_is_no_address_is_refused_under_the_name_that_it_came_by() {
        let refusal = |flag: Option<&str>, variable: &str| {
            let lookup = |_: &str| Some(variable.to_owned());
            match Address::find(flag, &Settings::new(&lookup), None) {
                Err(Error::Usage(line)) => line,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refusal(Some("foo"), "http://a"), "--url: foo is not a URL like http://127.0.0.1:7070");
        assert_eq!(refusal(None, "ftp://x"), "WINDLASS_URL: ftp://x is not a URL like http://127.0.0.1:7070");
        let secret = refusal(None, "http://user:hunter2@x");
        assert!(secret.contains("no password") && !secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn only_this_machine_gets_the_token_of_its_dev() {
        for local in ["http://127.0.0.1:7070", "http://localhost", "http://[::1]:80", "http://127.9.9.9"] {
            assert!(address(local).is_local(), "{local}");
        }
        for other in
            ["http://10.0.0.1:7070", "http://localhost.example", "https://127.0.0.1.example", "http://[::2]:80"]
        {
            assert!(!address(other).is_local(), "{other}");
        }
    }
}
