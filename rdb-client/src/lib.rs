//! FlareDB's client library.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use rdb_client::{Client, Options};
//!
//! let client = Client::connect(Options::new(["127.0.0.1:7101", "127.0.0.1:7102"])).await?;
//! let fruit = client.namespace("fruit");
//! fruit.put("apple", "red").await?;
//! let apple = fruit.get("apple").await?;
//! # Ok(())
//! # }
//! ```
//!
//! **One request's story.** [`Namespace::put`] makes an operation and hands it to the `Route` of its namespace,
//! which knows the node that leads it. Under [`Transport::Pipe`] it goes through a bounded queue to the task that owns
//! the `pipe` to that node. While messages are on their way, operations gather in the queue; whatever waits there
//! leaves in one message. The answer finds its caller by its id. If there is none, or a bad one, `attempts` decides,
//! in one place, whether the caller may try again and where.
//!
//! A [`Scan`] has a stream of its own, and begins another one where it was when that breaks.
//!
//! **What became of a write** is in the types: `Ok` is done, [`WriteError::NotDone`] is certainly not done, now or later,
//! and [`WriteError::InDoubt`] may have been done. Of an eventual namespace there is a fourth: [`WriteError::DoneHere`] is done
//! on one node, and not known to be on as many as was asked.
//!
//! **Exactly once.** Each write has a name: the client's session in the namespace, and a number. The session is opened by
//! the first write, shared by all callers of a [`Client`], and opened again by itself when the cluster no longer knows it.
//! A write whose answer was lost is sent again under its name, in the epoch of its first attempt, until it is answered or
//! its time is over; if it was executed, the cluster gives the answer of then. So `InDoubt` is left for two cases: the time was
//! over, or the session was gone when the write came again, and then it is not executed anew. [`Options::sessions`] switches
//! this off: then a write that was sent and not answered is in doubt at once.
//!
//! **Sessions of eventual mode.** What a [`Client`] was shown of an eventual namespace, by answers to reads and writes, is
//! remembered and goes along: with [`Consistency::Session`] every node shows at least that, or says that it cannot yet, and
//! another one is asked; and each write gets a version above all that was seen, so it wins over it, through whichever node.
//! All handles of one client share it; [`Namespace::new_session`] is for who serves many users, and
//! [`Namespace::session_token`] for handing a session on. See `docs/consistency.md`.
//!
//! What it does not do: it caches no data, it does not order operations of concurrent callers, and it starts no runtime.

mod attempts;
mod client;
mod conflicts;
mod error;
mod meta;
mod namespace;
mod nodes;
mod one_node;
mod options;
mod pipe;
mod quarantine;
mod route;
mod scan;
mod seen;
mod session;
mod settings;
mod status;
mod switch;
mod transaction;
mod unary;
mod values;

pub use bytes::Bytes;
pub use client::Client;
pub use conflicts::{ConflictsPage, LostWrite};
pub use error::{Attempted, Code, Error, Refusal, WriteError};
pub use meta::{ClusterStatus, NamespaceStatus, NodeStatus, RegionStatus};
pub use namespace::Namespace;
pub use options::{Options, Transport};
pub use quarantine::{QuarantinePage, QuarantinedWrite};
pub use scan::{Scan, ScanOptions};
pub use settings::{Durability, NamespaceSettings};
pub use switch::{
    Gate, Hindrance, MemberStanding, Said, SwitchCheck, SwitchEnd, SwitchOptions, SwitchPhase, SwitchStatus,
};
pub use transaction::{OperationResult, Transaction, TransactionOutcome};
pub use values::{
    Acks, CasOutcome, Consistency, Expect, Mode, ParseVersionError, Record, Served, ServedBy, Version, Write,
    Written,
};
