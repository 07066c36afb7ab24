//! The gateway engine against a hand-driven client.
