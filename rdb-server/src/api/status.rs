//! The one table from what can go wrong to what a client is told: a stable code, whether anything was applied, when to
//! try again, and a sentence that says what to do.

use super::acks::Held;
use crate::budget::Refused;
use crate::config::Member;
use crate::disk::Lack;
use crate::eventual::waiting::{Acks, Applied, Unmet};
use crate::transport::SILENCE_MAX;
use bytes::Bytes;
use prost::Message as _;
use rdb_core::apply::{ENTRY_READ_BYTES_MAX, FOUND_BYTES_MAX};
use rdb_core::eventual::hlc::MAJORITY_OFFSET_MS_MAX;
use rdb_core::eventual::session::SessionToken;
use rdb_core::ids::{Epoch, NamespaceId, NodeId};
use rdb_core::version::Version;
use rdb_proto::{ERROR_METADATA_KEY, v1};
use std::time::Duration;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Response, Status};

/// What a request costs besides its bytes.
pub(crate) const REQUEST_OVERHEAD_BYTES: usize = 256;
/// A busy node has drained its queues, or an election is over, after about this long.
const RETRY_AFTER_MS: u32 = 50;
/// The same where a region is about to be in another mode: that takes milliseconds.
const CHANGED_RETRY_AFTER_MS: u32 = 2;
/// Room on a disk is made by people.
const RETRY_AFTER_DISK_MS: u32 = 1000;

pub(crate) fn fail(code: v1::Code, outcome: v1::Outcome, message: String, hint: &str) -> v1::Error {
    v1::Error {
        code: code.into(),
        outcome: outcome.into(),
        message,
        hint: hint.to_owned(),
        ..v1::Error::default()
    }
}

pub(crate) fn not_done(code: v1::Code, message: String, hint: &str) -> v1::Error {
    v1::Error { retry_after_ms: RETRY_AFTER_MS, ..fail(code, v1::Outcome::NotDone, message, hint) }
}

pub(crate) fn invalid(message: String) -> v1::Error {
    fail(v1::Code::InvalidArgument, v1::Outcome::NotDone, message, "change the request; nothing was applied")
}

pub(crate) fn namespace_not_found(name: &str) -> v1::Error {
    fail(
        v1::Code::NamespaceNotFound,
        v1::Outcome::NotDone,
        format!("there is no namespace '{name}'"),
        "list the namespaces, or create this one: rdb ns create NAME",
    )
}

pub(crate) fn namespace_exists(name: &str) -> v1::Error {
    fail(
        v1::Code::NamespaceExists,
        v1::Outcome::NotDone,
        format!("there is a namespace '{name}' already"),
        "use it, or choose another name; nothing was changed",
    )
}

/// Of what no order of eventual writes can give. It fails, rather than to do something weaker.
pub(crate) fn requires_strong(what: &str, why: &str) -> v1::Error {
    fail(
        v1::Code::RequiresStrong,
        v1::Outcome::NotDone,
        format!(
            "the namespace is eventual, and {what} exists in strong ones only: {why}; nothing was applied"
        ),
        "use a strong namespace for this (rdb ns create NAME), or switch this one to strong",
    )
}

pub(crate) fn not_opened(node: u64) -> v1::Error {
    not_done(
        v1::Code::NoLeader,
        format!("node {node} has not read its part of the namespace from its log yet"),
        "try again, or ask another node",
    )
}

/// Of a request that was under way when its region was closed. The catalog may name another namespace like it by now, so
/// clients may ask again; the catalog itself then says whether there is one.
pub(crate) fn namespace_gone() -> v1::Error {
    not_done(
        v1::Code::NamespaceNotFound,
        "the namespace was deleted before this request came to its turn; nothing was applied".to_owned(),
        "ask again only if it was created anew under the same name: see rdb ns list",
    )
}

pub(crate) fn namespace_being_deleted(name: &str) -> v1::Error {
    not_done(
        v1::Code::NamespaceExists,
        format!("the namespace '{name}' is being deleted, and its name is not free yet"),
        "try again shortly, or choose another name; rdb ns list shows it until it is gone",
    )
}

pub(crate) fn deletion_goes_on(name: &str, timeout: Duration) -> v1::Error {
    fail(
        v1::Code::DeadlineExceeded,
        v1::Outcome::InDoubt,
        format!(
            "the deletion of '{name}' has begun and did not end within {} ms: a majority of its replicas must confirm it",
            timeout.as_millis()
        ),
        "it takes no requests any more and the deletion goes on by itself; see rdb ns list, or ask again to wait for it",
    )
}

pub(crate) fn epoch_mismatch(name: &str, wanted: u64, epoch: Epoch) -> v1::Error {
    fail(
        v1::Code::EpochMismatch,
        v1::Outcome::NotDone,
        format!("the namespace '{name}' is in epoch {epoch}, not in {wanted}"),
        "describe the namespace to learn what has changed, then ask again with the new epoch",
    )
}

pub(crate) fn not_leader(this: u64, leader: &Member) -> v1::Error {
    v1::Error {
        leader: leader.id,
        leader_address: leader.client.clone(),
        ..not_done(
            v1::Code::NotLeader,
            format!("node {this} does not lead this namespace; node {} does", leader.id),
            "ask the leader",
        )
    }
}

pub(crate) fn no_leader(this: u64) -> v1::Error {
    not_done(
        v1::Code::NoLeader,
        format!("node {this} knows no leader for this namespace"),
        "an election is under way or a majority of the nodes is out of reach: try again shortly, then see `rdb status`",
    )
}

pub(crate) fn not_a_member(node: NodeId, members: &[NodeId]) -> v1::Error {
    let members: Vec<String> = members.iter().map(ToString::to_string).collect();
    let message = format!("there is no node {node} here; the nodes are {}", members.join(", "));
    fail(v1::Code::InvalidArgument, v1::Outcome::NotDone, message, "name one of them; nothing was changed")
}

pub(crate) fn unreachable(node: NodeId, silence: Option<Duration>) -> v1::Error {
    let message = match silence {
        Some(silence) => format!("nothing was heard from node {node} for {:.1} s", silence.as_secs_f64()),
        None => format!("nothing was ever heard from node {node}"),
    };
    let hint = "start the node, or name another one; nothing was changed";
    fail(v1::Code::NodeUnreachable, v1::Outcome::NotDone, message, hint)
}

pub(crate) fn leader_not_moved(name: &str, to: NodeId, timeout: Duration) -> v1::Error {
    fail(
        v1::Code::DeadlineExceeded,
        v1::Outcome::InDoubt,
        format!("node {to} does not lead '{name}' after {timeout:?}"),
        "it is now the node that should, and will lead once it has caught up: see rdb status",
    )
}

pub(crate) fn switch_refused(message: String, hint: &str) -> v1::Error {
    fail(v1::Code::SwitchRefused, v1::Outcome::NotDone, message, hint)
}

pub(crate) fn overloaded(what: &str, most: usize) -> v1::Error {
    not_done(
        v1::Code::ResourceExhausted,
        format!("the node is at its limit of {most} {what}"),
        "try again after the pause that this error names, with fewer requests at a time",
    )
}

/// There is no memory for a request: the node's is used up, or the namespace's part of it.
pub(crate) fn no_memory(Refused { bytes_max, outermost }: Refused) -> v1::Error {
    if outermost {
        return overloaded("bytes of requests under way", bytes_max);
    }
    not_done(
        v1::Code::ResourceExhausted,
        format!("the namespace is at its limit of {bytes_max} bytes of requests under way on this node"),
        "try again after the pause that this error names, with fewer requests at a time; other namespaces are served",
    )
}

/// There is no memory for a message of which not all has come.
pub(crate) fn arriving_too_much(bytes_max: usize) -> v1::Error {
    overloaded("bytes of messages that are not whole yet", bytes_max)
}

/// Not all of a message has come in time.
pub(crate) fn arriving_late(patience: Duration) -> v1::Error {
    not_done(
        v1::Code::DeadlineExceeded,
        format!("the message was not whole {patience:?} after it began, and is thrown away"),
        "send smaller messages, or over a faster network; request_timeout_ms of the node is how long one may take, if that is more",
    )
}

pub(crate) fn disk_full(lack: Lack) -> v1::Error {
    let (message, hint) = match lack {
        Lack::Here(mark_bytes) => (
            format!("less than {mark_bytes} bytes are free on the node's disk"),
            "free disk space on the node, or delete keys while it still takes deletes; reads go on, and writes resume by \
             themselves",
        ),
        Lack::Majority => (
            "too many nodes have a full disk: no majority could take the write in".to_owned(),
            "free disk space on the nodes that `rdb status` names; reads go on, and writes resume by themselves",
        ),
    };
    let error = not_done(v1::Code::ResourceExhausted, message, hint);
    v1::Error { retry_after_ms: RETRY_AFTER_DISK_MS, ..error }
}

pub(crate) fn shutting_down() -> v1::Error {
    not_done(v1::Code::ShuttingDown, "this node is stopping".to_owned(), "ask another node")
}

pub(crate) fn write_timed_out(timeout: Duration) -> v1::Error {
    fail(
        v1::Code::DeadlineExceeded,
        v1::Outcome::InDoubt,
        format!("the write was not confirmed within {} ms", timeout.as_millis()),
        "it may be applied yet: read the key before writing again",
    )
}

pub(crate) fn read_timed_out(timeout: Duration) -> v1::Error {
    fail(
        v1::Code::DeadlineExceeded,
        v1::Outcome::NotDone,
        format!("no majority confirmed the leadership within {} ms", timeout.as_millis()),
        "see `rdb status`: a majority of the nodes may be out of reach",
    )
}

pub(crate) fn unsupported(message: String, hint: &str) -> v1::Error {
    fail(v1::Code::Unsupported, v1::Outcome::NotDone, message, hint)
}

pub(crate) fn token_refused(error: &rdb_core::scan::TokenError) -> v1::Error {
    let hint =
        "pass a token on as it came, with the keys and the direction of its own scan; or scan without one";
    fail(v1::Code::InvalidArgument, v1::Outcome::NotDone, error.to_string(), hint)
}

pub(crate) fn deleted_while_scanned(name: &str) -> v1::Error {
    fail(
        v1::Code::NamespaceNotFound,
        v1::Outcome::NotDone,
        format!("the namespace '{name}' was deleted while it was scanned"),
        "what came before this is all there will be",
    )
}

pub(crate) fn scan_unread(patience: Duration) -> v1::Error {
    not_done(
        v1::Code::ResourceExhausted,
        format!("the scan's next page was not read for {patience:?}, the longest that a request may take"),
        "go on with the token of the last page that came",
    )
}

pub(crate) fn scan_too_old(age_max: Duration) -> v1::Error {
    not_done(
        v1::Code::ResourceExhausted,
        format!("the scan took longer than {age_max:?}, for which the node keeps what it reads from"),
        "go on with the token of the last page that came",
    )
}

pub(crate) fn session_expired() -> v1::Error {
    fail(
        v1::Code::SessionExpired,
        v1::Outcome::InDoubt,
        "the record of this session's request is gone; the request was not executed now".to_owned(),
        "an earlier attempt may have been: read the key before writing again, in a new session",
    )
}

pub(crate) fn era_mismatch() -> v1::Error {
    let error = not_done(
        v1::Code::EpochMismatch,
        "the namespace changed its mode while the request was on its way; nothing was applied".to_owned(),
        "ask again",
    );
    v1::Error { retry_after_ms: CHANGED_RETRY_AFTER_MS, ..error }
}

pub(crate) fn found_too_much() -> v1::Error {
    invalid(format!(
        "the transaction's gets found more than {FOUND_BYTES_MAX} bytes of values, which is the limit"
    ))
}

pub(crate) fn crowded() -> v1::Error {
    overloaded("bytes of values that the compares and gets of one log entry read", ENTRY_READ_BYTES_MAX)
}

/// Of a read that waited while its region changed its mode, or left this node.
pub(crate) fn mode_changed() -> v1::Error {
    not_done(
        v1::Code::EpochMismatch,
        "the namespace changed its mode, or left this node, while the read waited".to_owned(),
        "ask again",
    )
}

pub(crate) fn read_too_much() -> v1::Error {
    let most = super::limits::BATCH_BYTES_MAX;
    invalid(format!("the records found have more than {most} bytes, the limit of a batch"))
}

pub(crate) fn token_damaged(error: rdb_proto::session::Damaged) -> v1::Error {
    fail(
        v1::Code::InvalidArgument,
        v1::Outcome::NotDone,
        format!("the session token is damaged, or is no session token: {error}; nothing was read"),
        "pass a token on as it came, or read without one",
    )
}

pub(crate) fn other_namespace(found: u32, expected: NamespaceId) -> v1::Error {
    fail(
        v1::Code::OtherNamespace,
        v1::Outcome::NotDone,
        format!(
            "the session token is of another namespace, the one with id {found}, while this one has id {expected}: one that \
             was deleted and made again is another one; nothing was read"
        ),
        "keep one token for each namespace, and go on without this one",
    )
}

/// A node has yet to come to what a session has seen.
pub(crate) fn behind(
    this: u64,
    applied: &Applied,
    token: &SessionToken,
    silence: impl Fn(NodeId) -> Option<Duration>,
    waited: Duration,
) -> v1::Error {
    let lacks = if applied.era < token.era {
        format!("it is in era {}, and the session has seen era {}", applied.era, token.era)
    } else {
        let origins = applied.vector.behind(&token.vector).map(|(origin, have, want)| {
            let node = origin.node;
            let heard =
                if node.0 == this { String::new() } else { format!(" ({})", not_heard(silence(node))) };
            format!("{} of node {node}{heard}", want - have)
        });
        format!("of the writes that the read is to show it lacks {}", origins.collect::<Vec<_>>().join(", "))
    };
    not_done(
        v1::Code::Behind,
        format!("node {this} is behind: {lacks}; it was waited for {} ms", waited.as_millis()),
        "ask another node, or allow more time; a read without the session (CONSISTENCY_LOCAL) waits only for what that node has answered",
    )
}

/// A session has seen what no node will ever have.
pub(crate) fn session_lost(lost: &[(NodeId, u64)]) -> v1::Error {
    let lost: Vec<String> = lost.iter().map(|(node, writes)| format!("{writes} of node {node}")).collect();
    fail(
        v1::Code::SessionLost,
        v1::Outcome::NotDone,
        format!(
            "the session has seen writes that are lost, {}: they were acknowledged before they were synced, and that node has \
             stopped in between; nothing was read",
            lost.join(", ")
        ),
        "go on without the session token, and write again what must not be lost; a namespace with durability sync acknowledges \
         nothing before it is synced",
    )
}

/// What follows a node's name.
pub(crate) fn not_heard(silence: Option<Duration>) -> String {
    match silence {
        Some(silence) if silence <= SILENCE_MAX => "is heard".to_owned(),
        Some(silence) => format!("was not heard for {:.1} s", silence.as_secs_f64()),
        None => "was never heard".to_owned(),
    }
}

pub(crate) fn no_quorum(answered: usize, members: usize, missing: &[(NodeId, String)]) -> v1::Error {
    let missing: Vec<String> = missing.iter().map(|(node, reason)| format!("node {node} {reason}")).collect();
    not_done(
        v1::Code::NoQuorum,
        format!(
            "{answered} of {members} members have said what they have, and a majority is {}: {}",
            members / 2 + 1,
            missing.join(", ")
        ),
        "see `rdb status`; or read what one node has (CONSISTENCY_LOCAL)",
    )
}

pub(crate) fn quorum_scan() -> v1::Error {
    unsupported(
        "the namespace is eventual, and a scan there reads what one node has: it cannot ask a majority"
            .to_owned(),
        "scan with CONSISTENCY_SESSION or CONSISTENCY_LOCAL, or get the keys in question with CONSISTENCY_QUORUM",
    )
}

pub(crate) fn strong_acks() -> v1::Error {
    unsupported(
        "the namespace is strong: its writes are acknowledged by a majority, and not by all members; nothing was written"
            .to_owned(),
        "write with ACKS_QUORUM, which is what they do, or use an eventual namespace",
    )
}

/// The same, where a write has found the namespace strong that was eventual before.
pub(crate) fn strong_acks_late(version: Version) -> v1::Error {
    let message = "the namespace became strong while the write was on its way: a majority has it, and will bring it to all";
    let done = v1::DoneHere { version: Some(super::request::to_wire(version)), ..v1::DoneHere::default() };
    v1::Error {
        done_here: Some(Box::new(done)),
        ..fail(
            v1::Code::TooFewAcks,
            v1::Outcome::DoneHere,
            message.to_owned(),
            "do not write it again; from now on ask for ACKS_QUORUM, which is what strong writes have",
        )
    }
}

/// A write that is on this node, and not known to be on as many as was asked.
fn done_here(held: Held, code: v1::Code, message: String, hint: &str) -> v1::Error {
    let done = v1::DoneHere { version: Some(super::request::to_wire(held.version)), session: held.token() };
    v1::Error { done_here: Some(Box::new(done)), ..fail(code, v1::Outcome::DoneHere, message, hint) }
}

pub(crate) fn too_few_acks(
    held: Held,
    acks: Acks,
    lacking: &[(NodeId, Option<Duration>)],
    members: usize,
    waited: Duration,
) -> v1::Error {
    let wanted = if acks == Acks::All { members } else { members / 2 + 1 };
    let have = members - lacking.len();
    let lacking = lacking.iter().map(|(node, silence)| format!("node {node}, which {}", not_heard(*silence)));
    done_here(
        held,
        v1::Code::TooFewAcks,
        format!(
            "the write is applied on node {} and will spread, but after {} ms it is known to be on {have} of the {wanted} \
             members that were asked for; it may be lacking at {}",
            held.version.node,
            waited.as_millis(),
            lacking.collect::<Vec<_>>().join(", ")
        ),
        "do not write it again: it stays, and comes to the others once they are heard; see `rdb status`",
    )
}

pub(crate) fn acks_unknown(held: Held, waited: Duration) -> v1::Error {
    done_here(
        held,
        v1::Code::TooFewAcks,
        format!(
            "the write is applied on node {} and will spread, but it is not known on how many members it is after {} ms",
            held.version.node,
            waited.as_millis()
        ),
        "do not write it again: it stays; the node may be overloaded, see `rdb status`",
    )
}

pub(crate) fn switched_before_acks(held: Held) -> v1::Error {
    done_here(
        held,
        v1::Code::TooFewAcks,
        "the write was applied, but the namespace changed its mode, or was deleted, before other members acknowledged it"
            .to_owned(),
        "read the key to see whether the write is there",
    )
}

/// A write's terms that could not be met.
pub(crate) fn unmet(unmet: Unmet, this: u64) -> v1::Error {
    match unmet {
        Unmet::Ahead(ahead) => {
            let error = fail(
                v1::Code::ClockAhead,
                v1::Outcome::NotDone,
                ahead.to_string(),
                "compare the clocks of the nodes and of whoever makes up versions; a version comes from an answer",
            );
            // A clock that is a little fast is caught up with; one that is far off is for people.
            let passes = ahead.ahead_ms <= MAJORITY_OFFSET_MS_MAX;
            v1::Error { retry_after_ms: if passes { RETRY_AFTER_MS } else { 0 }, ..error }
        }
        Unmet::LaterEra { seen, here } => not_done(
            v1::Code::Behind,
            format!("node {this} is in era {here}, and the writer has seen era {seen}; nothing was written"),
            "try again, or ask another node",
        ),
        Unmet::ClockOff(off) => not_done(
            v1::Code::ClockOff,
            off.to_string(),
            "write through another node; set the clock of this one's machine and start it again, since a running node does not \
             follow its wall clock; or, if it is the others that are wrong, theirs: see `rdb status`",
        ),
    }
}

pub(crate) fn internal(message: String) -> v1::Error {
    fail(v1::Code::Internal, v1::Outcome::InDoubt, message, "see the node's log")
}

/// What a unary call returns.
pub(crate) type Answered<T> = Result<Response<T>, Status>;

/// A call's answer, or its failure as a status.
pub(crate) fn answered<T>(result: Result<T, v1::Error>) -> Answered<T> {
    result.map(Response::new).map_err(|error| to_status(&error))
}

/// The same where the answer knows more than its message.
pub(crate) fn responded<T>(result: Result<Response<T>, v1::Error>) -> Answered<T> {
    result.map_err(|error| to_status(&error))
}

/// The same failure as a gRPC status, with the whole of it in the metadata.
pub(super) fn to_status(error: &v1::Error) -> Status {
    let code = match error.code() {
        v1::Code::InvalidArgument => Code::InvalidArgument,
        v1::Code::NamespaceNotFound => Code::NotFound,
        v1::Code::NamespaceExists => Code::AlreadyExists,
        v1::Code::EpochMismatch | v1::Code::RequiresStrong | v1::Code::SessionExpired => {
            Code::FailedPrecondition
        }
        v1::Code::ResourceExhausted => Code::ResourceExhausted,
        v1::Code::DeadlineExceeded => Code::DeadlineExceeded,
        v1::Code::Superseded => Code::Aborted,
        v1::Code::NotLeader
        | v1::Code::NoLeader
        | v1::Code::ShuttingDown
        | v1::Code::Behind
        | v1::Code::NoQuorum
        | v1::Code::ClockOff => Code::Unavailable,
        v1::Code::NodeUnreachable
        | v1::Code::SwitchRefused
        | v1::Code::OtherNamespace
        | v1::Code::SessionLost
        | v1::Code::ClockAhead => Code::FailedPrecondition,
        // Not "unavailable": some clients retry that by themselves, and this write may have been applied.
        v1::Code::LeaderLost => Code::Unknown,
        // Not "deadline exceeded" either: the write is done, if not everywhere.
        v1::Code::TooFewAcks => Code::Aborted,
        v1::Code::Unsupported => Code::Unimplemented,
        v1::Code::Internal | v1::Code::Unspecified => Code::Internal,
    };
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(ERROR_METADATA_KEY, MetadataValue::from_bytes(&error.encode_to_vec()));
    let text = format!("{}; {}", error.message, error.hint);
    Status::with_details_and_metadata(code, text, Bytes::new(), metadata)
}
