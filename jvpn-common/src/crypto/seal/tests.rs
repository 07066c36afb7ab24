//! Tests of sealing.
