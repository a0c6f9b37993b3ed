//! Whom this process trusts, and what it shows of itself: the settings of TLS.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use coordinator::api::{Certificate, Unusable};
use shared::settings::Settings;
use shared::tls::Authorities;

use crate::exit::Error;

const CERTIFICATE: &str = "WINDLASS_TLS_CERT_FILE";
const KEY: &str = "WINDLASS_TLS_KEY_FILE";
const AUTHORITIES: &str = "WINDLASS_CA_FILE";

/// The authorities of one's own, where there are any.
///
/// # Errors
/// When their file can't be used.
pub fn authorities(flag: Option<&Path>, settings: &Settings) -> Result<Option<Authorities>, Error> {
    let path = told(flag, AUTHORITIES, settings);
    path.map(|path| Authorities::read(&path)).transpose().map_err(|why| Error::Usage(format!("{AUTHORITIES}: {why}")))
}

/// What the API shows of itself, where it speaks HTTPS.
///
/// # Errors
/// When one of its files is missing or can't be used.
pub fn certificate(
    certificate: Option<&Path>,
    key: Option<&Path>,
    settings: &Settings,
) -> Result<Option<Arc<Certificate>>, Error> {
    let refused = |name: &str, why: &str| Err(Error::Usage(format!("{name}: {why}")));
    match (told(certificate, CERTIFICATE, settings), told(key, KEY, settings)) {
        (None, None) => Ok(None),
        (Some(_), None) => refused(CERTIFICATE, &format!("is set without {KEY}: HTTPS needs both")),
        (None, Some(_)) => refused(KEY, &format!("is set without {CERTIFICATE}: HTTPS needs both")),
        (Some(certificate), Some(key)) => match Certificate::read(&certificate, &key) {
            Ok(read) => Ok(Some(Arc::new(read))),
            Err(Unusable::Certificate(why)) => refused(CERTIFICATE, &why),
            Err(Unusable::Key(why)) => refused(KEY, &why),
        },
    }
}

fn told(flag: Option<&Path>, name: &str, settings: &Settings) -> Option<PathBuf> {
    flag.map(Path::to_owned).or_else(|| settings.text(name).map(PathBuf::from))
}
