//! The ring of the model: the protocol around the production `Job::apply` and `Event::outgoing`, checked over every order in
//! which things can happen, within a bound.
//!
//! How much may go wrong in one run is a budget, which bounds the model: within it the check is exhaustive.
//! `WINDLASS_MODEL_DEPTH=n` gives every budget `n` more of each (0 unless set; 1 takes long).

mod model {
    mod book;
    mod breaks;
    mod choices;
    mod coordinator;
    mod fairness;
    mod properties;
    mod scenes;
    mod steps;
    mod windlass;
    mod worker;
    mod world;
}
