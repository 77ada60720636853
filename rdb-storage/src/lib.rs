//! FlareDB's disk: the two RocksDB instances, the log writer, the data and a node's identity.
