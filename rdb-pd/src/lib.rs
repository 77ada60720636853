//! FlareDB's placement: the catalog of namespaces, regions and nodes, and the rules that place them.
//!
//! The catalog is the state machine of the meta Raft group, which runs inside the servers. A node that creates a
//! namespace proposes a [`Command`]; every node applies it to its own [`Catalog`] and then starts or ends the regions
//! that the catalog names. Pure, like `rdb-core`: no clock, thread, socket or disk.

mod catalog;
mod command;
mod lifecycle;
mod machine;
mod placement;
mod settings;

pub use catalog::{Catalog, Namespace, RegisteredNode, Stage};
pub use command::{Answer, Command, NAME_BYTES_MAX, check_name};
pub use lifecycle::{Holding, Standing, Step};
pub use machine::{Applied, Machine};
pub use rdb_core::switch::Mode;
pub use settings::{Durability, KEEP_LOST_SECONDS_MAX, Settings};
