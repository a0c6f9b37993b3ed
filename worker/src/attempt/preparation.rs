//! What is done before an attempt's first step: the deploy key goes into an agent of the attempt's own, and the commit
//! into the work tree.

use std::ffi::OsString;

use shared::id::CommitId;
use shared::job::{Failure, Progress};
use shared::spec::Repository;

use super::Attempt;
use super::environment::{self, Environment, StepSsh};
use super::processes::{Cut, Processes};
use crate::checkout::Git;
use crate::checkout::ssh::{self, DeployKey};
use crate::deploy_key::FetchedKey;
use crate::ssh_agent::SshAgent;

/// What the steps find.
#[derive(Default)]
pub(super) struct Prepared {
    /// What stands in the work tree.
    pub commit: Option<CommitId>,
    /// The agent of the deploy key where the steps may use it; otherwise it is gone.
    pub agent: Option<SshAgent>,
    /// How they use it.
    pub ssh: Option<StepSsh>,
}

impl Attempt {
    /// Prepares all that the steps need. Without `in_steps` the agent is gone when it returns.
    pub(super) async fn prepare(&self, processes: &mut Processes, key: Option<FetchedKey>) -> Result<Prepared, Cut> {
        let Some(repository) = &self.grant.spec.repository else { return Ok(Prepared::default()) };
        let Some((agent, key)) = self.agent(processes, repository, key)? else {
            let commit = Some(self.check_out(processes, repository, None).await?);
            return Ok(Prepared { commit, ..Prepared::default() });
        };
        let commit = self.check_out(processes, repository, Some(&key)).await;
        if commit.is_ok() && repository.deploy_key.as_ref().is_some_and(|key| key.in_steps) {
            let git_ssh_command = ssh::command(&self.directories.ssh());
            let ssh = Some(StepSsh { agent: agent.socket().to_owned(), git_ssh_command });
            return Ok(Prepared { commit: Some(commit?), agent: Some(agent), ssh });
        }
        agent.end().await;
        Ok(Prepared { commit: Some(commit?), ..Prepared::default() })
    }

    /// Puts the deploy key's private half into an agent, which alone has it from then on.
    fn agent(
        &self,
        processes: &Processes,
        repository: &Repository,
        key: Option<FetchedKey>,
    ) -> Result<Option<(SshAgent, DeployKey)>, Cut> {
        let (Some(FetchedKey { private_key, known_hosts }), Some(named)) = (key, &repository.deploy_key) else {
            return Ok(None);
        };
        let failed = |why: &dyn std::fmt::Display| {
            Cut::Failed(Failure::Internal { message: format!("using deploy key {}: {why}", named.name) })
        };
        let keeper = processes.keeper().ok_or_else(|| failed(&"the attempt's keeper is gone"))?;
        let agent = SshAgent::start(&self.agents, &private_key, keeper).map_err(|error| failed(&error))?;
        let key = DeployKey {
            name: named.name.clone(),
            agent: agent.socket().to_owned(),
            public: agent.public_half().to_owned(),
            known_hosts,
        };
        Ok(Some((agent, key)))
    }

    async fn check_out(
        &self,
        processes: &mut Processes,
        repository: &Repository,
        key: Option<&DeployKey>,
    ) -> Result<CommitId, Cut> {
        let mut env: Environment =
            environment::identity(&self.grant).into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        env.extend(std::env::var_os("PATH").map(|path| (OsString::from("PATH"), path)));
        env.extend(self.config.git_env.iter().cloned());
        let say = |text: &str| self.say(None, text);
        let directories = &self.directories;
        let (own, limits) = (&*self.config.data_dir, self.config.git_limits());
        let mut git = Git { processes, directories, own, env, mirrors: &self.mirrors, key, limits, say: &say };
        let commit = git.check_out(repository, self.grant.commit.as_ref()).await?;
        self.tell(Progress::CheckedOut { commit: commit.clone() });
        let reference = repository.reference.as_deref().unwrap_or("HEAD");
        self.say(None, &format!("checked out {commit} ({reference}) of {}", repository.url));
        Ok(commit)
    }
}
