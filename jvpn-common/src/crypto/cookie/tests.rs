//! Tests of cookies.
