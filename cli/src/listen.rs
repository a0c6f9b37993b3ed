//! Where the API listens, and under which address others find it there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Context;

use crate::exit::Error;

/// Where the API listens unless told otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7070";

/// Begins to listen; who connects waits until the listener is used.
///
/// # Errors
/// When the address is taken, or is none.
pub fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!("listening on {address} (choose another address with --listen; port 0 picks a free one)")
    })?;
    listener.set_nonblocking(true).context("setting up the listener")?;
    Ok(listener)
}

/// What keeps anybody from listening on `address`, as far as its text tells.
pub fn address_fault(address: &str) -> Option<String> {
    let parts = address.rsplit_once(':');
    let can = parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    (!can).then(|| format!("{address} is not an address with a port, like {LISTEN_DEFAULT}"))
}

/// An address under which a client on this machine finds one that listens everywhere.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Where other coordinators find an API that listens on `address`, unless they are told otherwise: on a host called
/// `host` where it listens everywhere.
pub fn advertised(scheme: &str, address: SocketAddr, host: &str) -> String {
    if address.ip().is_unspecified() {
        format!("{scheme}://{host}:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    }
}

/// A URL under which other coordinators are told to find this one's API.
///
/// # Errors
/// When it is none that they can use.
pub fn advertise_url(text: &str) -> Result<String, Error> {
    let refused = |why: &str| Err(Error::Usage(format!("WINDLASS_ADVERTISE_URL (--advertise-url): {why}")));
    let url = text.trim_end_matches('/');
    match url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) {
        Some(host) if host.contains('@') => refused("must hold no name and no password"),
        Some(host) if !host.is_empty() && !host.contains(['?', '#', ' ']) => Ok(url.to_owned()),
        _ => refused(&format!("{text} is not a URL like http://10.0.0.7:7070")),
    }
}

/// This host's name; `localhost` where it has none that is UTF-8.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{advertise_url, advertised, reachable};

    #[test]
    fn a_client_finds_a_server_that_listens_everywhere() {
        assert_eq!(reachable("0.0.0.0:80".parse().unwrap()).to_string(), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80".parse().unwrap()).to_string(), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80".parse().unwrap()).to_string(), "10.0.0.1:80");
    }

    #[test]
    fn others_find_it_where_it_listens_or_by_its_hosts_name() {
        let found = |address: &str| advertised("http", address.parse().unwrap(), "host7");
        assert_eq!(found("0.0.0.0:80"), "http://host7:80");
        assert_eq!(found("[::]:80"), "http://host7:80");
        assert_eq!(found("10.0.0.1:80"), "http://10.0.0.1:80");
        assert_eq!(found("[::1]:80"), "http://[::1]:80");
    }

    #[test]
    fn an_address_that_nobody_could_use_is_refused() {
        assert_eq!(advertise_url("http://10.0.0.7:7070/"), Ok("http://10.0.0.7:7070".to_owned()));
        for text in [
            "",
            "10.0.0.7:7070",
            "ftp://host",
            "http://",
            "https://",
            "http://user:pass@host",
            "http://a b",
            "http://a?b",
        ] {
            assert!(advertise_url(text).is_err(), "{text}");
        }
    }
}
