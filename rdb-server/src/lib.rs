//! FlareDB's node.
