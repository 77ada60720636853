//! The nemesis: real `rdb-server` processes under faults, and a verdict on what their clients saw.
//!
//! [`Plan::draw`] turns a seed into a cluster, workloads and a schedule of faults. [`run`] starts the nodes, lets the
//! workloads' clients work and be recorded, strikes, heals, reads everything at every node, and judges: the checks look at
//! the history, and a run in which nothing happened fails like one that lost data.
//!
//! [`idle`] is no such run: it measures what many idle namespaces cost. Nor is [`modes`]: eventual namespaces, and the switch
//! between the modes, held against bars.
//!
//! Three tables are there to be added to, one file each and one line in its table: `faults`, `workloads` and `checks`.
//!
//! Unlike a simulated world, a run is not the same twice: the seed repeats what is done, not when the machine does it.
//!
//! It shares no code with the server: it knows it by its binary, its configuration file, its wire and its client library.

mod checks;
mod cluster;
mod demand;
mod dice;
mod faults;
mod growth;
mod history;
mod idle;
mod lab;
mod modes;
mod peek;
mod picture;
mod plan;
mod probe;
mod report;
mod resources;
mod run;
mod soak;
mod switching;
mod verdict;
mod watch;
mod workloads;

pub use checks::{CHECKS, Check, Finding};
pub use faults::{FAULTS, Fault};
pub use growth::Growth;
pub use history::{Entry, History, Line, Request, Seen, Used};
pub use idle::{Idle, NodeCost, idle};
pub use modes::{Case, Figure, ModesArgs, Outcome, modes};
pub use picture::write_page;
pub use plan::{Plan, Wanted};
pub use report::Report;
pub use resources::Peak;
pub use run::{Place, has_hosts, has_memory_caps, run};
pub use verdict::judge;
pub use workloads::{WORKLOADS, Workload};
