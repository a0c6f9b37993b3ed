//! The bus over a real NATS server under test: one server a case.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::bus::Bus;
use shared::bus::nats::{NatsBus, NatsOptions, Role};
use tests::nats::{Nats, Version};

use super::{Medium, SOON};

/// Short, so that the cases about offers that come again are, and long enough for what must come before.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

pub struct NatsMedium(Nats);

impl NatsMedium {
    pub fn start(version: Version) -> Option<Self> {
        Nats::start(version).map(Self)
    }
}

#[async_trait]
impl Medium for NatsMedium {
    async fn connect(&self) -> Arc<dyn Bus> {
        let usual = NatsOptions::new(self.0.url(), Role::Coordinator);
        let options = NatsOptions { settle_within: SETTLE_WITHIN, connect_within: SOON, ..usual };
        Arc::new(NatsBus::connect(options).await.expect("a server that fits"))
    }

    fn settle_within(&self) -> Duration {
        SETTLE_WITHIN
    }
}
