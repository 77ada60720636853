//! What can go wrong, in words that say what to do about it.

use crate::values::Version;
use std::fmt;
use std::time::Duration;

/// The cluster's stable error codes.
pub use rdb_proto::v1::Code;

/// How often a call was tried, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attempted {
    /// Times that a node was asked.
    pub tries: u32,
    /// Since the call began.
    pub waited: Duration,
}

impl fmt::Display for Attempted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.tries == 1 { "try" } else { "tries" };
        write!(f, "{} {word} in {:.1} s", self.tries, self.waited.as_secs_f64())
    }
}

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The options cannot work.
    #[error("{0}")]
    Options(String),
    /// No node accepted a connection.
    #[error("cannot reach {nodes} ({reason}, {attempted})")]
    Unreachable {
        /// Those that were tried.
        nodes: String,
        /// What the last one's connection failed of.
        reason: String,
        /// How often it was tried.
        attempted: Attempted,
    },
    /// The connection broke before the answer came.
    #[error("lost the connection to {node} before it answered ({reason}, {attempted})")]
    Lost {
        /// The node that was asked.
        node: String,
        /// How the connection ended.
        reason: String,
        /// How often it was tried.
        attempted: Attempted,
    },
    /// Time ran out.
    #[error("no answer from {node} ({attempted}){}", Before(.before))]
    TimedOut {
        /// The node that was asked last.
        node: String,
        /// What the attempt before the last one failed of.
        before: Option<String>,
        /// How often it was tried.
        attempted: Attempted,
    },
    /// A node answered that it did not, or could not.
    #[error("{} ({node}, {})", .0.message, .0.attempted, node = .0.node)]
    Refused(Box<Refusal>),
}

/// A node's own word on why a call failed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// For programs.
    pub code: Code,
    /// What failed and why.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// The node that said so.
    pub node: String,
    /// How often it was tried.
    pub attempted: Attempted,
}

struct Before<'a>(&'a Option<String>);

impl fmt::Display for Before<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(before) => write!(f, "; before: {before}"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Error::Options(_) => "see the options' documentation".into(),
            Error::Unreachable { .. } => {
                "are the nodes running, and are these their client addresses?".into()
            }
            Error::Lost { .. } => {
                "the node may have stopped or be cut off; ask for the cluster's status".into()
            }
            Error::TimedOut { .. } => {
                "the cluster may be overloaded or without a leader; ask for its status, or allow more time"
                    .into()
            }
            Error::Refused(refusal) if refusal.hint.is_empty() => hint_for(refusal.code).into(),
            Error::Refused(refusal) => refusal.hint.clone(),
        }
    }

    /// The cluster's code, where a node answered with one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Error::Refused(refusal) => Some(refusal.code),
            _ => None,
        }
    }
}

/// For an answer that brought no hint of its own.
fn hint_for(code: Code) -> &'static str {
    match code {
        Code::NamespaceNotFound => "list the namespaces, or create this one",
        Code::NamespaceExists => "use it as it is, or choose another name",
        Code::NotLeader | Code::NoLeader | Code::LeaderLost | Code::Superseded => {
            "an election runs or a majority is out of reach; ask for the cluster's status"
        }
        Code::NodeUnreachable => "start that node, or name another one",
        Code::ResourceExhausted => "send less at a time, or look for a full disk or an overloaded node",
        Code::RequiresStrong => "use a strong namespace for this",
        Code::Internal => "this is a defect; the node's log says more",
        _ => "ask for the cluster's status",
    }
}

/// Why a write was not acknowledged, and what became of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Certainly not applied, now or later. It may be sent again.
    #[error("{0}")]
    NotDone(Error),
    /// It may have been applied, or may be yet. Read before sending it again.
    #[error("{0}")]
    InDoubt(Error),
    /// Of an eventual namespace: applied on the node that was asked, as this version, and it will spread from there. It is not
    /// known to be on as many members as was asked. It need not be sent again.
    #[error("{1}")]
    DoneHere(Version, Error),
}

impl WriteError {
    /// Why, without what became of the write.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            WriteError::NotDone(error) | WriteError::InDoubt(error) | WriteError::DoneHere(_, error) => error,
        }
    }

    /// The same for a call that writes nothing, and can be in no doubt.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            WriteError::NotDone(error) | WriteError::InDoubt(error) | WriteError::DoneHere(_, error) => error,
        }
    }
}
