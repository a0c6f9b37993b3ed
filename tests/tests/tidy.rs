//! The rules of the house that a machine can hold, over every file of the repository. A ratchet: what breaks one is
//! mended, or stands in [`tidy::EXCEPTIONS`] with its reason, and an exception that nothing needs any more fails too.
//!
//! Each rule is tried on a snippet that breaks it and on one that doesn't: a check that can't fail is a defect.

mod tidy {
    mod borders;
    mod documents;
    mod rules;
    mod shape;
    mod snippets;
    mod source;
}
