//! Where the API is, and whether that is this machine.

use std::net::IpAddr;
use std::path::Path;

use crate::data_dir::{token_file, url_file};
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
    /// The address that was told, or that the `dev` of `data_dir` has noted, or the default.
    ///
    /// # Errors
    /// When it is no HTTP URL.
    pub fn find(told: Option<String>, data_dir: Option<&Path>) -> Result<Self, Error> {
        let noted = || std::fs::read_to_string(url_file(data_dir?)).ok();
        let text = told.or_else(noted).unwrap_or_else(|| DEFAULT.to_owned());
        let base = text.trim().trim_end_matches('/');
        let host = base.strip_prefix("http://").or_else(|| base.strip_prefix("https://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['@', '?', '#', ' ']) => {
                Ok(Self { base: base.to_owned() })
            }
            _ => Err(Error::Usage(format!("WINDLASS_URL: {base} is not a URL like {DEFAULT}"))),
        }
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

/// The token that this machine's `dev` keeps in `data_dir`, if there is one.
///
/// # Errors
/// When it is there and can't be read.
pub fn local_token(data_dir: &Path) -> Result<Option<String>, Error> {
    let path = token_file(data_dir);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::failed(format_args!("{}: {error}; or set WINDLASS_TOKEN", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    fn address(text: &str) -> Address {
        Address::find(Some(text.to_owned()), None).unwrap()
    }

    #[test]
    fn the_address_is_the_one_told_then_the_one_noted_then_the_default() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Address::find(None, Some(dir.path())).unwrap().base, "http://127.0.0.1:7070");
        std::fs::write(dir.path().join("url"), "http://127.0.0.1:4242\n").unwrap();
        assert_eq!(Address::find(None, Some(dir.path())).unwrap().base, "http://127.0.0.1:4242");
        let told = Address::find(Some("https://ci.example/".into()), Some(dir.path())).unwrap();
        assert_eq!(told.base, "https://ci.example");
        assert!(Address::find(Some("ftp://x".into()), None).is_err());
        assert!(Address::find(Some("http://user@x".into()), None).is_err());
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
