//! Deploy keys, what is kept secret beside them, and the audit.

use async_trait::async_trait;

use shared::id::{CoordinatorId, JobId, Shard};

use super::PostgresStore;
use crate::store::{AuditLine, DeployKey, Error, KeyPut, Keys, MasterKeyCheck, Place, Resealed};

const NOT_YET: &str = "deploy keys are not stored yet";

#[async_trait]
impl Keys for PostgresStore {
    async fn put_key(&self, _: CoordinatorId, _: &DeployKey, _: Option<u32>, _: &AuditLine) -> Result<KeyPut, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn remove_key(&self, _: CoordinatorId, _: &str, _: &AuditLine) -> Result<bool, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn key(&self, _: &str) -> Result<Option<DeployKey>, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn keys(&self, _: Option<&str>, _: u32) -> Result<Vec<DeployKey>, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn registered(&self, _: &[String]) -> Result<Vec<String>, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn unblocked(&self, _: &[Shard], _: Option<JobId>, _: u32) -> Result<Vec<(JobId, String)>, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn audit(&self, _: CoordinatorId, _: &AuditLine) -> Result<bool, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn audited(&self, _: &str, _: u32) -> Result<Vec<AuditLine>, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn sealed_otherwise(&self, _: &[u8], _: Option<&Place>, _: u32) -> Result<Vec<(Place, Vec<u8>)>, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn reseal(&self, _: CoordinatorId, _: &[Resealed]) -> Result<u32, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn master_keys(&self) -> Result<Vec<MasterKeyCheck>, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn add_master_key(&self, _: CoordinatorId, _: &MasterKeyCheck) -> Result<bool, Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }

    async fn remove_master_keys(&self, _: CoordinatorId, _: &[String]) -> Result<(), Error> {
        Err(Error::Unavailable(NOT_YET.to_owned()))
    }
}
