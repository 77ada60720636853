//! FlareDB's client library.
