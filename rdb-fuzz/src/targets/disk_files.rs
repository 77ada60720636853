//! What `rdb-storage` itself reads from a data directory: the identity, the watermark, the write-ahead logs that it looks over
//! before RocksDB does, and snapshots.

use rdb_storage::fuzzed::Kind;

pub(super) fn run(input: &[u8]) -> bool {
    let Some((kind, bytes)) = input.split_first() else { return false };
    Kind::ALL[usize::from(*kind) % Kind::ALL.len()].read(bytes)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..).zip(Kind::ALL).map(|(number, kind)| [&[number][..], &kind.example()].concat()).collect()
}
