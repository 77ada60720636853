//! Fuzzing of everything that reads bytes from outside: from peers, from clients, from the disk, from the configuration.
//!
//! A target is a plain function: it takes bytes, hands them to the product's own code, and says whether that took them. It panics
//! where a promise is broken; otherwise it must not panic, whatever the bytes are. `./x fuzz` gives it to libFuzzer, with this
//! crate's binary; `tests/slice.rs` gives it its seeds, the inputs that once broke something, and a little of everything, without
//! the engine.
//!
//! What is read behind a checksum is given the right one by its target, since the engine would never find it.
//!
//! RocksDB reads its own files and is not fuzzed.

mod memory;
mod parts;
mod tally;
pub mod targets;

pub use tally::Tally;
pub use targets::{TARGETS, Target};
