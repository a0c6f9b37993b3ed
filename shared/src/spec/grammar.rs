//! The forms of a specification's texts, each a question with an answer for the submitter.

/// Environment names that only Windlass itself sets: a step must be able to trust them.
const RESERVED_ENV: [&str; 7] = [
    "WINDLASS_JOB_ID",
    "WINDLASS_ATTEMPT",
    "WINDLASS_FENCE",
    "WINDLASS_COMMIT",
    "WINDLASS_REF",
    "WINDLASS_REPOSITORY",
    "WINDLASS_STEP",
];

/// Why `tag` is no tag, if it isn't.
pub fn tag_fault(tag: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:/-".contains(&b);
    (!tag.bytes().all(allowed)).then_some("must be made of A-Z a-z 0-9 . _ : / - alone")
}

/// Why `name` is no name of an environment entry, if it isn't.
pub fn env_name_fault(name: &str) -> Option<&'static str> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !(starts && rest) {
        Some("must be a name made of A-Z a-z 0-9 _ that doesn't begin with a digit")
    } else if RESERVED_ENV.contains(&name) {
        Some("is set by Windlass itself and can't be given")
    } else {
        None
    }
}

/// Why `reference` is no ref, if it isn't. Whether it exists is for git to say.
pub fn ref_fault(reference: &str) -> Option<&'static str> {
    if reference.starts_with('-') {
        Some("must not begin with -")
    } else if reference.chars().any(|c| c.is_control() || c == ' ') {
        Some("must not contain spaces or control characters")
    } else {
        None
    }
}

/// Why `name` is no deploy key's name, if it isn't. A name stands in paths of the API as it is.
pub fn key_name_fault(name: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    (!begins || !name.bytes().all(allowed))
        .then_some("must be made of A-Z a-z 0-9 . _ - alone and begin with a letter or a digit")
}

/// Why `url` is no repository's URL, if it isn't.
pub fn url_fault(url: &str) -> Option<&'static str> {
    if url.starts_with('-') {
        return Some("must not begin with -");
    }
    if url.chars().any(char::is_control) {
        return Some("must not contain control characters");
    }
    if let Some(path) = url.strip_prefix("file://") {
        let (host, _) = path.split_at(path.find('/').unwrap_or(path.len()));
        return match host {
            "" | "localhost" if path.len() > host.len() => None,
            _ => Some("must name an absolute path on the worker's own host, like file:///srv/app.git"),
        };
    }
    if let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("ssh://")) {
        return authority_fault(rest);
    }
    if url.starts_with('/') {
        return None;
    }
    scp_fault(url)
}

/// The path of a repository on the worker's own host, where `url` is one.
pub fn local_path(url: &str) -> Option<&str> {
    match url.strip_prefix("file://") {
        Some(path) => Some(path.strip_prefix("localhost").unwrap_or(path)),
        None => url.starts_with('/').then_some(url),
    }
}

/// Whether `url`, which has no fault, is reached over SSH.
pub fn is_ssh(url: &str) -> bool {
    url.starts_with("ssh://") || !(url.contains("://") || url.starts_with('/'))
}

fn authority_fault(rest: &str) -> Option<&'static str> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        Some("must not hold a password")
    } else if host.is_empty() || host.starts_with(['-', ':']) || user.starts_with('-') {
        Some("must have a host after the scheme")
    } else if rest.contains(' ') {
        Some("must not contain spaces")
    } else {
        None
    }
}

/// The short form of SSH, `user@host:path`.
fn scp_fault(url: &str) -> Option<&'static str> {
    let form = "must be https://…, ssh://…, user@host:path, file://… or an absolute path";
    let Some((user, rest)) = url.split_once('@') else { return Some(form) };
    if user.contains(':') {
        return Some("must not hold a password");
    }
    let Some((host, path)) = rest.split_once(':') else { return Some(form) };
    let word = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(['/', ' ', '@']);
    (!word(user) || !word(host) || path.is_empty() || path.starts_with('-')).then_some(form)
}
