//! Ports that are free now and stay so.
//!
//! A node that is killed needs its ports again when it is started anew. Those that the kernel gives for port 0 come from
//! the range from which it also takes the source ports of outgoing connections, of which a test has many: between the
//! two starts one of them may take a node's port. So ports are taken below that range. Each is tried by binding it, and
//! whoever finds one taken all the same tries again with others.

use std::collections::HashSet;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex};

/// Taken by tests of this process, whether they run yet or not.
static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// A port on which nothing listens.
pub fn free() -> u16 {
    let mut taken = TAKEN.lock().unwrap();
    loop {
        let port = rand::random_range(11_000..28_000);
        if !taken.contains(&port) && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
}
