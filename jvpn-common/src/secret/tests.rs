//! Tests of the key types.
