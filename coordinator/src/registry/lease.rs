//! Tells what a registry knows of an attempt's lease, to whoever explains the job.

use actix::{Context, Handler, Message, MessageResult};

use shared::id::JobId;

use super::{Jobs, Registry};
use crate::leases::Known;

impl Jobs {
    /// The lease of a job's live attempt; none where none is known here.
    pub async fn lease(&self, job: JobId) -> Option<Known> {
        self.registry(job)?.send(LeaseOf(job)).await.ok().flatten()
    }
}

/// Asks for the lease of a job's attempt.
#[derive(Message)]
#[rtype(result = "Option<Known>")]
struct LeaseOf(JobId);

impl Handler<LeaseOf> for Registry {
    type Result = MessageResult<LeaseOf>;

    fn handle(&mut self, LeaseOf(job): LeaseOf, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.leases.known(job))
    }
}
