//! The pure ring: the job's one transition function, the specification's grammar and the plain values, without any I/O
//! but a settings file. It runs in seconds and is exhaustive where that is possible.

mod pure {
    mod acts;
    mod builders;
    mod details;
    mod documents;
    mod edges;
    mod events;
    mod explain;
    mod promises;
    mod retry;
    mod sequences;
    mod situations;
    mod spec_fields;
    mod spec_forms;
    mod spec_limits;
    mod table;
    mod values;
    mod walk;
}
