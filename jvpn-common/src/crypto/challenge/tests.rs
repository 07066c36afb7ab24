//! Tests of the challenge cookie.
