//! What only NATS can do wrong.
