//! A cluster that speaks TLS alone: its API, Postgres and NATS have certificates from an authority of its own.

use std::path::Path;

use crate::certificates::{Authority, Pair};
use crate::nats::{Nats, Version};

use super::{Cluster, Database};
use crate::windlass;

/// What stands for a cluster.
#[derive(Debug)]
pub struct Secured {
    pub authority: Authority,
    /// The API's.
    pub pair: Pair,
}

impl Secured {
    /// A coordinator's settings.
    pub(super) fn settings(&self, postgres: &Database) -> [(&'static str, String); 4] {
        [
            ("WINDLASS_DATABASE_URL", secured_url(postgres, &self.authority)),
            ("WINDLASS_CA_FILE", shown(&self.authority.file())),
            ("WINDLASS_TLS_CERT_FILE", shown(&self.pair.certificate)),
            ("WINDLASS_TLS_KEY_FILE", shown(&self.pair.key)),
        ]
    }
}

impl Cluster {
    /// Postgres and NATS with TLS, and nobody on them yet. All certificates are for 127.0.0.1, and for no name.
    pub fn secured() -> Self {
        let authority = Authority::new();
        let pair = authority.vouch("server", "IP:127.0.0.1");
        let settings = [
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", shown(&pair.certificate)),
            format!("ssl_key_file={}", shown(&pair.key)),
        ];
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let mut cluster = Self::bare_of(windlass::path(), || Database::durable(&settings));
        cluster.nats = Nats::secured(Version::Installed, &pair).expect("a NATS server is installed");
        cluster.secured = Some(Secured { pair: authority.vouch("api", "IP:127.0.0.1"), authority });
        cluster
    }

    /// What stands for it.
    ///
    /// # Panics
    /// When it speaks no TLS.
    pub fn authority(&self) -> &Authority {
        &self.secured.as_ref().expect("a secured cluster").authority
    }

    /// The database's URL for who trusts `authority` alone, and that only in the server's own name.
    pub fn database_url(&self, authority: &Authority) -> String {
        secured_url(&self.postgres, authority)
    }
}

fn secured_url(postgres: &Database, authority: &Authority) -> String {
    format!("{}?sslmode=verify-full&sslrootcert={}", postgres.url(), authority.file().display())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
