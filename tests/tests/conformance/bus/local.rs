//! The bus within one process under test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::bus::Bus;
use shared::bus::local::LocalBus;

use super::Medium;

/// Short, so that the cases about offers that come again are.
const SETTLE_WITHIN: Duration = Duration::from_millis(300);

pub struct LocalMedium(LocalBus);

impl LocalMedium {
    pub fn new() -> Self {
        Self(LocalBus::new(SETTLE_WITHIN))
    }
}

#[async_trait]
impl Medium for LocalMedium {
    async fn connect(&self) -> Arc<dyn Bus> {
        Arc::new(self.0.clone())
    }

    fn settle_within(&self) -> Duration {
        SETTLE_WITHIN
    }
}
