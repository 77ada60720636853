//! A cluster that forgets, to try client programs against without a disk or a consensus in the way: the fake that the
//! client's own tests use, three nodes on ports 7101 to 7103 (or from the port that is the argument).

#[path = "../tests/fake/mod.rs"]
mod fake;

fn main() {
    let base: u16 = std::env::args().nth(1).map_or(7101, |port| port.parse().expect("a port"));
    let mut cluster = fake::Cluster::start(0);
    for (id, port) in (1..=3).zip(base..) {
        cluster.start_node(id, ([127, 0, 0, 1], port).into());
    }
    loop {
        std::thread::park();
    }
}
