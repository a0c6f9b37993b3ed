//! TLS as all our connections have it: whose certificates are trusted, and what a connection of ours asks of the other side.
//! One implementation (rustls on ring) throughout.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

/// The authorities of one's own, in place of the public ones.
#[derive(Debug, Clone)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
}

impl Authorities {
    /// The certificates that the PEM file at `path` holds.
    ///
    /// # Errors
    /// What is wrong with the file, which the text names.
    pub fn read(path: &Path) -> Result<Self, String> {
        let fault = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let bytes = std::fs::read(path).map_err(|error| fault(&error))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let certificates = certificates.map_err(|error| fault(&error))?;
        if certificates.is_empty() {
            return Err(fault(&"holds no certificate: it must have the authority's, in PEM"));
        }
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone()).map_err(|error| fault(&error))?;
        }
        Ok(Self { certificates })
    }

    /// Each certificate, in DER.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }
}

/// The cryptography that TLS is done with.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// What a connection of ours asks of the other side: a certificate for its name, from one of `authorities`, or else from a
/// public one.
///
/// # Errors
/// When that can't be set up, which only a defect explains.
pub fn client(authorities: Option<&Authorities>) -> Result<ClientConfig, Error> {
    telling(authorities, Refused::default())
}

/// The same, where `refused` gets to know what was last found wrong with the other side's certificate.
///
/// # Errors
/// When that can't be set up, which only a defect explains.
pub fn telling(authorities: Option<&Authorities>, refused: Refused) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(own) => drop(roots.add_parsable_certificates(own.certificates.iter().cloned())),
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
    let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    // It asks for all that the usual one asks for: it is that one, and notes what it says.
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Telling { verifier, refused }));
    Ok(builder.with_no_client_auth())
}

/// What was last found wrong with a certificate. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Refused(Arc<Mutex<Option<String>>>);

impl Refused {
    /// Takes the note away.
    pub fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[derive(Debug)]
struct Telling {
    verifier: Arc<WebPkiServerVerifier>,
    refused: Refused,
}

impl ServerCertVerifier for Telling {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.verifier.verify_server_cert(own, between, name, ocsp, now);
        let note = verified.as_ref().err().map(ToString::to_string);
        *self.refused.0.lock().unwrap_or_else(PoisonError::into_inner) = note;
        verified
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
