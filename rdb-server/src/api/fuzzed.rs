//! Clients' requests, up to where the catalog and the raft loop are asked, for `rdb-fuzz`.

use super::reads::Wanted;
use super::request::{self, request_id};
use super::{Target, acks, kv, limits, namespaces, pipe, scan, session, status, transaction};
use crate::eventual::{kept, set_aside};
use prost::Message;
use rdb_core::command::Encoded;
use rdb_core::ids::{Epoch, Era, NamespaceId, RegionId};
use rdb_core::scan::{Direction, Way};
use rdb_pd::{Mode, check_name};
use rdb_proto::v1;

/// The calls that read something from a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the call of that name")]
pub enum Call {
    Get,
    BatchGet,
    Put,
    Delete,
    CompareAndSwap,
    BatchWrite,
    Transaction,
    DeleteRange,
    Scan,
    Pipe,
    Create,
    ListConflicts,
    ListQuarantine,
}

impl Call {
    /// All of them.
    pub const ALL: [Call; 13] = [
        Call::Get,
        Call::BatchGet,
        Call::Put,
        Call::Delete,
        Call::CompareAndSwap,
        Call::BatchWrite,
        Call::Transaction,
        Call::DeleteRange,
        Call::Scan,
        Call::Pipe,
        Call::Create,
        Call::ListConflicts,
        Call::ListQuarantine,
    ];
}

/// The namespace that all requests are taken to be for.
fn target(mode: Mode) -> Target {
    let (namespace, region) = (NamespaceId(16), RegionId::FIRST_USER);
    Target { namespace, region, epoch: Epoch(1), mode, era: Era(1) }
}

/// Decodes a request to a namespace in `mode` and checks it. The commands that it would have proposed, none where it only reads;
/// `None` where it is refused.
pub fn client_request(call: Call, mode: Mode, bytes: &[u8]) -> Option<Encoded> {
    let target = target(mode);
    if call == Call::Pipe {
        return pipe::fuzzed::pipe_request(v1::PipeRequest::decode(bytes).ok()?, target).ok();
    }
    request(call, target, bytes)?.ok()
}

/// `None`: it is none of this call's.
fn request(call: Call, target: Target, bytes: &[u8]) -> Option<Result<Encoded, v1::Error>> {
    Some(match call {
        Call::Get => get(&read(bytes)?, target),
        Call::BatchGet => batch_get(&read(bytes)?, target),
        Call::Put => {
            let v1::PutRequest { put, request, acks, seen, .. } = read(bytes)?;
            let push = |out: &mut Encoded| {
                request::push_put(out, &put.unwrap_or_default(), request_id(request.as_ref()))
            };
            write(target, (acks, seen), push)
        }
        Call::Delete => {
            let v1::DeleteRequest { delete, request, acks, seen, .. } = read(bytes)?;
            let push = |out: &mut Encoded| {
                request::push_delete(out, &delete.unwrap_or_default(), request_id(request.as_ref()))
            };
            write(target, (acks, seen), push)
        }
        Call::BatchWrite => {
            let v1::BatchWriteRequest { batch, request, acks, seen, .. } = read(bytes)?;
            let push = |out: &mut Encoded| {
                request::push_batch(out, &batch.unwrap_or_default(), request_id(request.as_ref()))
            };
            write(target, (acks, seen), push)
        }
        Call::CompareAndSwap => {
            let v1::CompareAndSwapRequest { cas, request, .. } = read(bytes)?;
            write(target, (0, None), |out| {
                request::push_cas(out, &cas.unwrap_or_default(), request_id(request.as_ref()))
            })
        }
        Call::Transaction => {
            let v1::TransactionRequest { transaction, request, .. } = read(bytes)?;
            write(target, (0, None), |out| {
                let wire = transaction.unwrap_or_default();
                transaction::push_transaction(out, &wire, request_id(request.as_ref()))
            })
        }
        Call::DeleteRange => {
            let v1::DeleteRangeRequest { range, request, .. } = read(bytes)?;
            write(target, (0, None), |out| {
                let range = range.unwrap_or_default();
                transaction::push_delete_range(out, &range, request_id(request.as_ref()))
            })
        }
        Call::Scan => scan(read(bytes)?, target),
        Call::Create => create(&read(bytes)?),
        Call::ListConflicts => {
            let v1::ListConflictsRequest { token, .. } = read(bytes)?;
            read_only(kept::check_token(&token).map_err(|error| status::invalid(error.to_string())))
        }
        Call::ListQuarantine => {
            let v1::ListQuarantineRequest { token, .. } = read(bytes)?;
            read_only(set_aside::Place::decode(&token).map_err(|error| status::invalid(error.to_string())))
        }
        Call::Pipe => return None,
    })
}

fn read<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

fn read_only<T>(checked: Result<T, v1::Error>) -> Result<Encoded, v1::Error> {
    checked.map(|_| Encoded::default())
}

fn write(
    target: Target,
    (acks, seen): (i32, Option<v1::Version>),
    push: impl FnOnce(&mut Encoded) -> Result<(), v1::Error>,
) -> Result<Encoded, v1::Error> {
    let mut commands = Encoded::default();
    push(&mut commands)?;
    if commands.strong_only {
        target.check_mode(kv::CAS)?;
    }
    target.check_names(commands.named)?;
    acks::terms(acks, seen.as_ref(), target)?;
    Ok(commands)
}

fn get(get: &v1::GetRequest, target: Target) -> Result<Encoded, v1::Error> {
    limits::key(&get.get.clone().unwrap_or_default().key)?;
    let wanted = Wanted::new(get.consistency, get.max_age_ms, get.session.clone())?;
    read_only(session::read(&wanted.session, target))
}

fn batch_get(get: &v1::BatchGetRequest, target: Target) -> Result<Encoded, v1::Error> {
    request::check_batch_get(&get.get.clone().unwrap_or_default())?;
    let wanted = Wanted::new(get.consistency, get.max_age_ms, get.session.clone())?;
    read_only(session::read(&wanted.session, target))
}

fn scan(request: v1::ScanRequest, target: Target) -> Result<Encoded, v1::Error> {
    let v1::ScanRequest { scan, consistency, max_age_ms, token, session, .. } = request;
    let wanted = Wanted::new(consistency, max_age_ms, session)?;
    session::read(&wanted.session, target)?;
    let scan = scan.unwrap_or_default();
    let direction = if scan.reverse { Direction::Reverse } else { Direction::Forward };
    let way = Way { namespace: target.namespace, range: scan::range(scan.keys)?, direction };
    if token.is_empty() {
        return Ok(Encoded::default());
    }
    read_only(way.resume(&token).map_err(|error| status::token_refused(&error)))
}

fn create(create: &v1::CreateNamespaceRequest) -> Result<Encoded, v1::Error> {
    check_name(&create.name).map_err(status::invalid)?;
    read_only(namespaces::settings(create))
}
