//! Which database a process is told to keep its jobs in. The URL may hold a password: it comes by variable or file only,
//! and nothing of it is ever shown.

use std::path::PathBuf;

use shared::secret::Secret;
use shared::settings::Settings;

use crate::exit::Error;

/// The variable that names it.
const NAME: &str = "WINDLASS_DATABASE_URL";

/// A database as it was named.
pub enum Database {
    /// The whole URL.
    Postgres(Secret),
    Sqlite(PathBuf),
}

/// The cluster's database, for the command `who`.
///
/// # Errors
/// When it isn't named, or is another kind of database.
pub fn of_cluster(who: &str, settings: &Settings) -> Result<Secret, Error> {
    match named(settings)? {
        Some(Database::Postgres(url)) => Ok(url),
        Some(Database::Sqlite(_)) => Err(refused(&format!(
            "sqlite:// is where `windlass dev` keeps its jobs, which is for one coordinator alone; {who} is for a \
             cluster's, like postgres://user@host/windlass"
        ))),
        None => Err(refused(&format!(
            "is not set: {who} needs to know where Postgres is, like postgres://user@host/windlass"
        ))),
    }
}

/// The file of the embedded database, where one is named.
///
/// # Errors
/// When another kind of database is named.
pub fn of_dev(settings: &Settings) -> Result<Option<PathBuf>, Error> {
    match named(settings)? {
        None => Ok(None),
        Some(Database::Sqlite(path)) => Ok(Some(path)),
        Some(Database::Postgres(_)) => Err(refused(
            "postgres:// is for `windlass coordinator`; dev keeps its jobs in SQLite: unset it, or name a file with \
             sqlite://PATH",
        )),
    }
}

fn named(settings: &Settings) -> Result<Option<Database>, Error> {
    settings.secret(NAME)?.map(|url| parsed(&url)).transpose()
}

/// A database as its URL names it.
///
/// # Errors
/// When it is none, without any of it.
pub fn parsed(url: &str) -> Result<Database, Error> {
    if let Some(path) = url.strip_prefix("sqlite://") {
        if path.is_empty() || path.contains('?') {
            return Err(refused("sqlite:// must be followed by a file's path, and nothing else"));
        }
        return Ok(Database::Sqlite(PathBuf::from(path)));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Database::Postgres(Secret::new(url.to_owned())));
    }
    Err(refused("must begin with postgres:// or sqlite://"))
}

fn refused(why: &str) -> Error {
    Error::Usage(format!("{NAME}: {why}"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use shared::settings::Settings;

    use super::{of_cluster, of_dev};

    #[test]
    fn each_kind_of_process_has_its_own_kind_of_database() {
        let with = |url: &'static str| move |name: &str| (name == "WINDLASS_DATABASE_URL").then(|| url.to_owned());
        let postgres = with("postgres://windlass:hunter2@db/windlass");
        let sqlite = with("sqlite:///var/lib/windlass.db");
        let nothing = with("");
        assert!(of_cluster("coordinator", &Settings::new(&postgres)).is_ok());
        assert_eq!(of_dev(&Settings::new(&sqlite)), Ok(Some(PathBuf::from("/var/lib/windlass.db"))));
        assert_eq!(of_dev(&Settings::new(&nothing)), Ok(None));
        let refusals = [
            (format!("{:?}", of_dev(&Settings::new(&postgres)).unwrap_err()), "windlass coordinator"),
            (format!("{:?}", of_cluster("coordinator", &Settings::new(&sqlite)).unwrap_err()), "windlass dev"),
            (format!("{:?}", of_cluster("coordinator", &Settings::new(&nothing)).unwrap_err()), "is not set"),
        ];
        for (refusal, words) in refusals {
            assert!(refusal.contains("WINDLASS_DATABASE_URL: ") && refusal.contains(words), "{refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn what_is_no_database_is_refused_without_being_shown() {
        for url in ["mysql://root:hunter2@db", "hunter2", "sqlite://", "sqlite:///a?mode=hunter2"] {
            let lookup = |name: &str| (name == "WINDLASS_DATABASE_URL").then(|| url.to_owned());
            let refusal = format!("{:?}", of_dev(&Settings::new(&lookup)).unwrap_err());
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
