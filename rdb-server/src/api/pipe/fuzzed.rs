//! Messages of the pipe, for `rdb-fuzz`.

use super::super::{Target, acks, limits, session};
use super::{Wanted, Writes, sort};
use rdb_core::command::Encoded;
use rdb_proto::v1;

/// Takes a message up to where its writes are proposed: all of them, or why it is refused as a whole or has nothing that is taken.
pub(in crate::api) fn pipe_request(message: v1::PipeRequest, target: Target) -> Result<Encoded, v1::Error> {
    limits::pipe(message.operations.len())?;
    let wanted = Wanted::new(message.consistency, message.max_age_ms, message.session.clone())?;
    session::read(&wanted.session, target)?;
    let terms = acks::terms(message.acks, message.seen.as_ref(), target);
    let sorted = sort(message, target, terms.as_ref(), &Ok(()));
    let mut all = Encoded::default();
    for Writes { commands, ids } in &sorted.writes {
        assert_eq!(commands.count, ids.len(), "each command has an id to answer to");
        all.append(commands);
    }
    match (sorted.refused.into_iter().next(), all.count + sorted.reads.len()) {
        (Some(refused), 0) => Err(super::super::status::invalid(format!("{refused:?}"))),
        _ => Ok(all),
    }
}
