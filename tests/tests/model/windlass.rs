//! The model: one job, two coordinators, two workers, and everything that may happen next.

use std::collections::HashSet;
use std::sync::Mutex;

use stateright::{Model, Property};

use super::book::{Book, View};
use super::breaks::Break;
use super::properties;
use super::world::{Budget, Bus, Coordinator, Reply, Said, Seen, Stop, Store, WORKERS, Word, Worker, World, Write};

/// What is looked at: which job, and what may go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub name: &'static str,
    /// Whether the job's checkout needs a deploy key that isn't registered yet.
    pub keyed: bool,
    /// Whether a coordinator that was taken for dead goes on answering, because its clock stood still with it.
    pub zombies_speak: bool,
    /// How many of the workers take offers.
    pub workers: usize,
    pub budget: Budget,
}

/// The model of one scene.
pub struct Windlass {
    pub scene: Scene,
    pub book: Book,
    broken: Option<Break>,
    /// Worlds from which the job is known to end.
    pub ending: Mutex<HashSet<u64>>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A coordinator takes a request; `kept`: the bus has it once more.
    Take {
        by: usize,
        said: Said,
        kept: bool,
        then: Then,
    },
    /// It takes a claim that has waited in its mailbox for too long.
    TakeLate {
        by: usize,
        said: Said,
    },
    /// It hears something that no worker says.
    Tell {
        by: usize,
        said: Said,
        then: Then,
    },
    /// A statement that hung is executed.
    Land {
        by: usize,
    },
    LandStray {
        write: Write,
    },
    LoseAnswer {
        by: usize,
    },
    KillSupervisor {
        by: usize,
    },
    /// `flushed`, here and below: how far the owner had published is written before.
    CrashCoordinator {
        by: usize,
        flushed: bool,
    },
    TakeOver {
        by: usize,
        flushed: bool,
    },
    Enter {
        by: usize,
    },
    Recover {
        by: usize,
        flushed: bool,
    },
    /// It notices that another has its shard.
    Notice {
        by: usize,
    },
    Publish {
        by: usize,
    },
    OfferAgain {
        by: usize,
    },
    LoseReply {
        reply: Reply,
    },
    LoseStop {
        stop: Stop,
    },
    LoseOffers,
    Hear {
        reply: Reply,
    },
    HearStop {
        stop: Stop,
        kept: bool,
    },
    Beat {
        worker: usize,
        by: usize,
    },
    TakeOffer {
        worker: usize,
        attempt: u8,
    },
    GiveUpClaim {
        worker: usize,
    },
    Start {
        worker: usize,
    },
    /// A worker says something again that is still on its way.
    SayAgain {
        said: Said,
    },
    End {
        worker: usize,
        word: Word,
    },
    CrashWorker {
        worker: usize,
    },
    RegisterKey,
}

/// What becomes of a transition that a coordinator hands over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It is committed, answered and published at once.
    Commit,
    /// Something comes before its statement is executed.
    Hang,
    /// It is committed and answered, and something comes before it is published.
    BeMute,
}

impl Windlass {
    /// The model of a scene, with at most one rule broken.
    pub fn new(scene: Scene, broken: Option<Break>) -> Self {
        Self { scene, book: Book::new(scene.keyed, broken), broken, ending: Mutex::default() }
    }

    pub fn is_broken(&self, rule: Break) -> bool {
        self.broken == Some(rule)
    }

    /// The job as it is committed.
    pub fn view(&self, world: &World) -> View {
        self.book.view(world.store.row)
    }
}

impl Model for Windlass {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let (row, facts) = self.book.first();
        let store =
            Store { row, cursor: 0, log: facts.to_vec(), epoch: 1, announced: [0; WORKERS], strays: Vec::new() };
        let owner = Coordinator { epoch: Some(1), held: Some(row), last: store.last(), ..Coordinator::default() };
        let world = World {
            store,
            coordinators: [owner, Coordinator::default()],
            workers: [Worker::default(), Worker::default()],
            bus: Bus::default(),
            key: false,
            left: self.scene.budget,
            seen: Seen::default(),
        };
        let mut world = world;
        self.settle(&mut world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        self.choices(world, actions);
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        self.spend(&mut world, action);
        self.act(&mut world, action);
        self.settle(&mut world);
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
