//! A message of puts comes, and its answers go.

use super::{BATCH, VALUE, key};
use anyhow::{Result, ensure};
use bytes::Bytes;
use prost::Message as _;
use rdb_proto::v1;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as Answer;

pub(super) fn run(times: u64) -> Result<()> {
    let message = Bytes::from(message().encode_to_vec());
    let mut sent = 0;
    for _ in 0..times {
        let request = v1::PipeRequest::decode(message.clone())?;
        let results = request.operations.iter().map(answer).collect();
        sent += v1::PipeResponse { header: None, results }.encode_to_vec().len();
    }
    ensure!(0 < sent, "nothing was answered");
    Ok(())
}

fn answer(operation: &v1::PipeOperation) -> v1::PipeResult {
    let version = Some(v1::Version { era: 1, hlc: operation.sequence << 16, node: 1 });
    let done = v1::Done { version };
    v1::PipeResult { id: operation.id, result: Some(Answer::Done(done)) }
}

fn message() -> v1::PipeRequest {
    let operation = |number: u64| {
        let put = v1::Put { key: key(number).to_vec().into(), value: VALUE.to_vec().into() };
        v1::PipeOperation { id: number, sequence: number, operation: Some(Operation::Put(put)) }
    };
    v1::PipeRequest {
        namespace: "orders".to_owned(),
        client: 7,
        operations: (1..=BATCH).map(operation).collect(),
        ..v1::PipeRequest::default()
    }
}
