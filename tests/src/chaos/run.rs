//! One run from its seed to its judgement.
