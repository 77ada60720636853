//! Requests as they come over the wire, turned into the core's commands once they are known to be within the limits;
//! and the core's answers, turned into the wire's.

use super::transaction::transaction_result;
use super::{limits, status};
use bytes::Bytes;
use rdb_core::apply::Answer;
use rdb_core::command::{Command, Encoded, Expect, Operation, RequestId, Write};
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::{Era, NodeId};
use rdb_core::record;
use rdb_core::version::{Hlc, Version};
use rdb_proto::v1;
use rdb_proto::v1::compare_and_swap::Expect as WireExpect;
use rdb_proto::v1::write::Write as WireWrite;

pub(super) fn request_id(request: Option<&v1::RequestId>) -> Option<RequestId> {
    request.filter(|request| request.sequence != 0).map(|request| RequestId {
        client: request.client,
        sequence: request.sequence,
        lowest: request.lowest,
    })
}

pub(super) fn push_put(
    out: &mut Encoded,
    put: &v1::Put,
    request: Option<RequestId>,
) -> Result<(), v1::Error> {
    let operation = Operation::Write(write_put(put)?);
    out.push(&Command { request, operation });
    Ok(())
}

pub(super) fn push_delete(
    out: &mut Encoded,
    delete: &v1::Delete,
    request: Option<RequestId>,
) -> Result<(), v1::Error> {
    let operation = Operation::Write(write_delete(delete)?);
    out.push(&Command { request, operation });
    Ok(())
}

pub(super) fn push_cas(
    out: &mut Encoded,
    cas: &v1::CompareAndSwap,
    request: Option<RequestId>,
) -> Result<(), v1::Error> {
    limits::key(&cas.key)?;
    cas.then_put.as_deref().map_or(Ok(()), limits::value)?;
    let expect = match &cas.expect {
        Some(WireExpect::Absent(_)) => Expect::Absent,
        Some(WireExpect::Value(value)) => Expect::Value(value),
        Some(WireExpect::Version(version)) => Expect::Version(from_wire(version)),
        Some(WireExpect::Present(_)) => Expect::Present,
        None => {
            let message = "the compare-and-swap does not say what it expects".to_owned();
            return Err(status::invalid(message));
        }
    };
    let then = Write { key: &cas.key, value: cas.then_put.as_deref() };
    out.push(&Command { request, operation: Operation::CompareAndSwap { expect, then } });
    Ok(())
}

pub(super) fn push_batch(
    out: &mut Encoded,
    batch: &v1::BatchWrite,
    request: Option<RequestId>,
) -> Result<(), v1::Error> {
    let mut bytes = 0;
    let mut writes = Vec::with_capacity(batch.writes.len().min(limits::BATCH_OPERATIONS_MAX));
    for write in &batch.writes {
        let write = match &write.write {
            Some(WireWrite::Put(put)) => write_put(put)?,
            Some(WireWrite::Delete(delete)) => write_delete(delete)?,
            None => {
                return Err(status::invalid("a write of the batch is neither a put nor a delete".to_owned()));
            }
        };
        bytes += write.key.len() + write.value.map_or(0, <[u8]>::len);
        writes.push(write);
    }
    limits::batch(writes.len(), bytes)?;
    out.push(&Command { request, operation: Operation::Batch(writes) });
    Ok(())
}

/// Checks the keys of a batch get.
pub(super) fn check_batch_get(get: &v1::BatchGet) -> Result<(), v1::Error> {
    limits::batch(get.keys.len(), get.keys.iter().map(Bytes::len).sum())?;
    get.keys.iter().try_for_each(|key| limits::key(key))
}

pub(super) fn write_put(put: &v1::Put) -> Result<Write<'_>, v1::Error> {
    limits::key(&put.key)?;
    limits::value(&put.value)?;
    Ok(Write { key: &put.key, value: Some(&put.value) })
}

pub(super) fn write_delete(delete: &v1::Delete) -> Result<Write<'_>, v1::Error> {
    limits::key(&delete.key)?;
    Ok(Write { key: &delete.key, value: None })
}

pub(super) fn from_wire(version: &v1::Version) -> Version {
    Version { era: Era(version.era), hlc: Hlc(version.hlc), node: NodeId(version.node) }
}

pub(super) fn to_wire(version: Version) -> v1::Version {
    v1::Version { era: version.era.0, hlc: version.hlc.0, node: version.node.0 }
}

/// What a write's caller is told in the pipe.
pub(super) fn write_result(answer: Answer) -> v1::pipe_result::Result {
    use v1::pipe_result::Result as Wire;
    match answer {
        Answer::Done(version) => Wire::Done(v1::Done { version: Some(to_wire(version)) }),
        Answer::Mismatch { version, found } => {
            Wire::Mismatch(v1::Mismatch { version: version.map(to_wire), found: found.map(Bytes::from) })
        }
        Answer::Transaction(outcome) => Wire::Transaction(transaction_result(outcome)),
        Answer::FoundTooMuch => Wire::NotDone(status::found_too_much()),
        Answer::Crowded => Wire::NotDone(status::crowded()),
        Answer::EraMismatch => Wire::NotDone(status::era_mismatch()),
        Answer::Closed => Wire::NotDone(status::namespace_gone()),
        Answer::OpenedBefore { .. } => {
            Wire::InDoubt(status::internal("a session is not opened in the pipe".to_owned()))
        }
        Answer::SessionExpired => Wire::InDoubt(status::session_expired()),
    }
}

/// An error as a result in the pipe: the type says whether the write may have been applied.
pub(super) fn error_result(error: v1::Error) -> v1::pipe_result::Result {
    use v1::pipe_result::Result as Wire;
    match error.outcome() {
        v1::Outcome::InDoubt => Wire::InDoubt(error),
        v1::Outcome::DoneHere => Wire::DoneHere(error),
        v1::Outcome::NotDone | v1::Outcome::Unspecified => Wire::NotDone(error),
    }
}

/// A record as readers may see it.
#[derive(Debug, PartialEq, Default)]
pub(super) struct Found {
    pub(super) value: Option<Bytes>,
    pub(super) version: Option<v1::Version>,
    /// Of the deletion, where there is no value and one is remembered.
    pub(super) deleted: Option<v1::Version>,
    /// The write that this is, of an eventual era.
    pub(super) write: Option<(Era, WriteId)>,
}

/// Reads a stored record. A tombstone has no version, like a key that was never there: whoever was shown one could expect it in a
/// comparison, which finds no version where there is no value; and the members purge tombstones each in its own time.
pub(super) fn found(stored: Option<impl Into<Bytes>>) -> Result<Found, v1::Error> {
    let Some(stored) = stored.map(Into::into) else { return Ok(Found::default()) };
    let record = record::decode(&stored).map_err(|error| status::internal(error.to_string()))?;
    let (version, write) = (Some(to_wire(record.version)), record.id.map(|id| (record.version.era, id)));
    let Some(value_len) = record.value.map(<[u8]>::len) else {
        return Ok(Found { deleted: version, write, ..Found::default() });
    };
    // The value is the end of what is stored: it need not be copied.
    let value = stored.slice(stored.len() - value_len..);
    Ok(Found { value: Some(value), version, deleted: None, write })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::eventual::vector::{Origin, WriteId};
    use rdb_core::ids::Incarnation;
    use rdb_core::record::Record;

    #[test]
    fn a_tombstone_shows_no_version_in_either_mode() {
        let version = Version { era: Era(1), hlc: Hlc(7), node: NodeId(2) };
        let origin = Origin { node: NodeId(2), incarnation: Incarnation(3) };
        for id in [None, Some(WriteId { origin, seq: 4 })] {
            let of = |value| found(Some(Record { version, id, value }.encode())).unwrap();
            let (wire, write) = (Some(to_wire(version)), id.map(|id| (Era(1), id)));
            // What was seen is told all the same, for what a session must not lose.
            assert_eq!(of(None), Found { deleted: wire, write, ..Found::default() }, "{id:?}");
            for value in [&b""[..], b"value"] {
                let bytes = Some(value.to_vec().into());
                let shown = Found { value: bytes, version: wire, deleted: None, write };
                assert_eq!(of(Some(value)), shown, "{id:?}");
            }
        }
        assert_eq!(found(None::<Bytes>).unwrap(), Found::default());
        assert!(found(Some(vec![0xff])).is_err());
    }
}
