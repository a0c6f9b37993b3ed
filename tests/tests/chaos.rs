//! The chaos ring: what judges a run of chaos, held against histories that are true and against falsified ones; and runs
//! themselves.

mod chaos {
    mod judged;
    mod seeds;
}
