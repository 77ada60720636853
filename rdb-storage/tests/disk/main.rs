//! A node's disk from outside: what a start accepts and refuses, what a crash leaves, and in which order the log writer
//! reports. One program for all, since each that links RocksDB takes long to build.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod data;
#[cfg(test)]
mod dropped_logs;
#[cfg(test)]
mod files;
#[cfg(test)]
mod log;
#[cfg(test)]
mod log_writer;
#[cfg(test)]
mod origin_logs;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod start;
#[cfg(test)]
mod support;
