//! Postgres and NATS: they are stopped and started on threads of their own, one thing after the other, while all else goes
//! on.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cluster::Database;
use crate::cluster::database::blocking;
use crate::nats::{Nats, Version};

/// The stream of offers.
const OFFERS: &str = "WINDLASS_OFFERS";
/// How long NATS may take to delete it.
const WIPED_WITHIN: Duration = Duration::from_secs(5);

/// Both servers.
pub struct Servers {
    pub postgres: Arc<Database>,
    nats: Arc<Mutex<Nats>>,
    pub nats_url: String,
    pub nats_monitoring_url: String,
    to_postgres: Errands,
    to_nats: Errands,
}

/// What is to be done to a server, in this order.
#[derive(Default)]
struct Errands {
    to_come: VecDeque<Box<dyn FnOnce() + Send>>,
    under_way: Option<JoinHandle<()>>,
}

impl Servers {
    /// Starts both; Postgres with these settings in its environment.
    pub fn start(environment: &[(String, String)]) -> Self {
        let nats = Nats::start(Version::Installed).expect("a NATS server is installed");
        Self {
            postgres: Arc::new(Database::start(environment)),
            nats_url: nats.url(),
            nats_monitoring_url: nats.monitoring_url(),
            nats: Arc::new(Mutex::new(nats)),
            to_postgres: Errands::default(),
            to_nats: Errands::default(),
        }
    }

    /// Where NATS listens, like `127.0.0.1:4222`.
    pub fn nats_address(&self) -> &str {
        self.nats_url.trim_start_matches("nats://")
    }

    pub fn postgres(&mut self, errand: impl FnOnce(&Database) + Send + 'static) {
        let postgres = Arc::clone(&self.postgres);
        self.to_postgres.to_come.push_back(Box::new(move || errand(&postgres)));
    }

    pub fn nats(&mut self, errand: impl FnOnce(&mut Nats) + Send + 'static) {
        let nats = Arc::clone(&self.nats);
        self.to_nats
            .to_come
            .push_back(Box::new(move || errand(&mut nats.lock().unwrap_or_else(PoisonError::into_inner))));
    }

    /// Goes on with what is to be done.
    ///
    /// # Panics
    /// When something of it can't be done: then the run says nothing about the coordinators.
    pub fn look(&mut self) {
        self.to_postgres.look();
        self.to_nats.look();
    }

    pub fn postgres_is_done(&self) -> bool {
        self.to_postgres.are_done()
    }

    pub fn nats_is_done(&self) -> bool {
        self.to_nats.are_done()
    }
}

impl Errands {
    fn look(&mut self) {
        if let Some(done) = self.under_way.take_if(|errand| errand.is_finished()) {
            done.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
        if self.under_way.is_none() {
            self.under_way = self.to_come.pop_front().map(thread::spawn);
        }
    }

    fn are_done(&self) -> bool {
        self.to_come.is_empty() && self.under_way.is_none()
    }
}

/// Deletes the stream of offers with all that is in it.
pub fn wipe_offers(nats: &Nats) {
    let url = nats.url();
    blocking(async move {
        let deleting = async {
            let client = async_nats::connect(url).await.expect("a connection");
            // It may not be there yet, or not again.
            let _ = async_nats::jetstream::new(client).delete_stream(OFFERS).await;
        };
        // A server that is busy with its start answers later.
        let _ = tokio::time::timeout(WIPED_WITHIN, deleting).await;
    });
}
