//! The ring of the model: the protocol around the production `Job::apply` and `Event::outgoing`, checked over every order in
//! which things can happen, within a bound.
//!
//! How much may go wrong in one run is a budget, which bounds the model: within it the check is exhaustive.
//! `WINDLASS_MODEL_DEPTH=n` gives every budget `n` more of whatever it has (0 unless set; 1 takes hours and gigabytes), and
//! adds the scenes that are too large for every day. Each scene says how many states it has: run with `--nocapture`.
//!
//! What is whose: `world` says what there is, `windlass` and `choices` what can happen, `steps` what follows of itself,
//! `coordinator` and `worker` what each does, `book` asks the production code, `properties` and `fairness` say what must hold,
//! `scenes` is what is checked, `breaks` shows that each property bites.
//!
//! A coordinator's mailbox is not modelled apart from the bus: requests that wait in it in some order are requests on the bus
//! that are taken in that order, and a crash loses them as the bus would. That the next is taken only when the last is
//! committed is the supervisor's doing, and broken in `breaks`.

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
