//! Stories end to end: the real program as its users have it, real repositories, real processes, some of them killed.

mod stories {
    mod client;
    mod crashes;
    mod deploy_keys;
    mod environment;
    mod explain;
    mod flood;
    mod interrupts;
    mod keys;
    mod limits;
    mod mistakes;
    mod output;
    mod races;
    mod run;
    mod secrets;
    mod service;
    mod settings;
    mod streams;
}
