//! The certificate that the API shows, with its key: read from their files at the start, and again when those have changed.
//!
//! Files that can't be used, or don't belong together yet, change nothing: what was read last goes on to count.

use std::fmt::{self, Display};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use shared::tls;
use tokio::time::Instant;

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate with its key, in two PEM files.
pub struct Certificate {
    files: Files,
    current: Mutex<Current>,
}

/// Why a certificate can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("{0}")]
    Certificate(String),
    #[error("{0}")]
    Key(String),
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

struct Current {
    certified: Arc<CertifiedKey>,
    /// Of the files as they were read, or tried.
    changed: Changed,
    looked_at: Instant,
}

/// When each file was changed last; nothing where it isn't there.
type Changed = [Option<SystemTime>; 2];

impl Certificate {
    /// The certificate (or its chain, its own first) and the key in these files.
    ///
    /// # Errors
    /// What is wrong with which file; nothing of the key is told.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, Unusable> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let changed = files.changed();
        let current = Current { certified: Arc::new(files.read()?), changed, looked_at: Instant::now() };
        Ok(Self { files, current: Mutex::new(current) })
    }

    /// How the API is served with it.
    pub(super) fn served(self: Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions()?;
        Ok(builder.with_no_client_auth().with_cert_resolver(self))
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked_at.elapsed() >= LOOK_EVERY {
            current.looked_at = Instant::now();
            let changed = self.files.changed();
            if changed != current.changed {
                current.changed = changed;
                match self.files.read() {
                    Ok(certified) => {
                        tracing::info!("the API's certificate is another one now");
                        current.certified = Arc::new(certified);
                    }
                    Err(error) => tracing::warn!(%error, "the API's certificate has changed and can't be used"),
                }
            }
        }
        Arc::clone(&current.certified)
    }
}

impl Files {
    fn changed(&self) -> Changed {
        [&self.certificate, &self.key].map(|path| fs::metadata(path).and_then(|file| file.modified()).ok())
    }

    fn read(&self) -> Result<CertifiedKey, Unusable> {
        let of_certificate =
            |why: &dyn Display| Unusable::Certificate(format!("{}: {why}", self.certificate.display()));
        let of_key = |why: &dyn Display| Unusable::Key(format!("{}: {why}", self.key.display()));
        let bytes = fs::read(&self.certificate).map_err(|error| of_certificate(&error))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let chain = chain.map_err(|error| of_certificate(&error))?;
        if chain.is_empty() {
            return Err(of_certificate(&"holds no certificate: it must be PEM"));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| of_key(&error))?;
        let certified = CertifiedKey::from_der(chain, key, &tls::provider());
        certified.map_err(|error| of_key(&format_args!("doesn't belong to {}: {error}", self.certificate.display())))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.files.certificate.display())
    }
}
