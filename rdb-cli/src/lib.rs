//! FlareDB's command line.
