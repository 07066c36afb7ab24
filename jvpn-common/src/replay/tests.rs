//! Tests of the replay windows.
