//! The worker: it claims attempts, prepares them, runs their steps and reports what became of them.
