//! Keys, both ways: what is read comes back as it was, what is made is read, and keys sort as what they stand for.

use crate::parts::{Parts, part};
use rdb_core::eventual::conflicts::{Kept, lost_key, parse_lost_key};
use rdb_core::range::KeyRange;
use rdb_storage::fuzzed::{self, Place};

pub(super) fn run(input: &[u8]) -> bool {
    let mut parts = Parts::of(input);
    match parts.number() % 4 {
        0 => fuzzed::key(parts.rest()),
        1 => note(parts.rest()),
        2 => {
            let mut place = || Place {
                owner: parts.long(),
                first: parts.long(),
                second: parts.long(),
                third: parts.long(),
            };
            fuzzed::keys_keep_order(place(), place());
            true
        }
        _ => {
            let mut namespace = || u32::from(parts.number()) * 0x0101_0101;
            let namespaces = [namespace(), namespace()];
            let (a, b) = (parts.part(), parts.part());
            let range = match parts.number() % 2 {
                0 => KeyRange::of_prefix(parts.part()),
                _ => KeyRange { from: parts.part().to_vec(), to: parts.part().to_vec() },
            };
            prefixes(a, b);
            fuzzed::records_keep_order(namespaces, a, b, &range);
            true
        }
    }
}

/// The key of a note of a lost write.
fn note(bytes: &[u8]) -> bool {
    let kept = Kept::parse(bytes);
    let Ok((era, key, id)) = parse_lost_key(bytes) else { return matches!(kept, Ok(Some(_))) };
    let read = parse_lost_key(&lost_key(era, &key, id));
    assert_eq!(read, Ok((era, key, id)));
    true
}

/// A range of a prefix has the keys that begin with it.
fn prefixes(prefix: &[u8], key: &[u8]) {
    let range = KeyRange::of_prefix(prefix);
    assert_eq!(range.contains(key), key.starts_with(prefix));
    assert!(range.contains(&[prefix, key].concat()));
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let note = super::lost_note_key();
    let entry = [16_u64.to_be_bytes(), 700_u64.to_be_bytes()].concat();
    let run = [&16_u64.to_be_bytes()[..], &[0, 0, 0, 1], &[0; 24]].concat();
    let session = [&[1][..], &16_u64.to_be_bytes(), &[2], &9_u64.to_be_bytes()].concat();
    let range = [&[3, 1, 1][..], &part(b"key"), &part(b"key-1"), &[1], &part(b"a"), &part(b"z")].concat();
    let prefix = [&[3, 1, 2][..], &part(b"\xff"), &part(b"\xff\xff"), &[0], &part(b"k\xff")].concat();
    let of = |kind: u8, key: &[u8]| [&[kind][..], key].concat();
    vec![of(0, &entry), of(0, &run), of(0, &session), of(1, &note), of(2, &[7; 64]), range, prefix]
}
