//! Ports that are free.

use anyhow::{Result, bail};
use std::net::TcpListener;

/// Below those that the kernel gives to outgoing connections.
const RANGE: std::ops::Range<u16> = 11_000..28_000;
const TRIES: usize = 1_000;

/// So many, on which nothing listens now.
pub(super) fn free(count: usize) -> Result<Vec<u16>> {
    let mut held = Vec::new();
    for _ in 0..TRIES {
        if held.len() == count {
            return Ok(held.iter().map(|(port, _)| *port).collect());
        }
        let port = rand::random_range(RANGE);
        // Held until all are found, so that none is found twice.
        held.extend(TcpListener::bind(("127.0.0.1", port)).ok().map(|listener| (port, listener)));
    }
    bail!("there are no {count} free ports from {} to {}", RANGE.start, RANGE.end)
}
