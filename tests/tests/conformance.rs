//! What every implementation of the two narrow waists has to pass: [`conformance::store`] for the database,
//! [`conformance::bus`] for the messages. The cases are written against the traits alone; an implementation is added
//! by one line at the end of its suite's file.

mod conformance {
    mod bus;
    mod store;
}
