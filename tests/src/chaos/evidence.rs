//! What is there in the end: notes, events, rows, and what is left over.
