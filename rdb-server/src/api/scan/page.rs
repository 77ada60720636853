//! One page of a scan, as it is read.

use crate::api::kv::disk_failed;
use crate::api::request::to_wire;
use crate::api::status;
use bytes::Bytes;
use rdb_core::record;
use rdb_proto::v1;
use rdb_storage::Walk;

/// Keys and values of a page. A single record may be longer. Large enough that what a page costs besides its records is
/// little, small enough for many scans at a time.
pub(super) const PAGE_BYTES: usize = 256 << 10;
/// Records of a page.
pub(super) const PAGE_RECORDS: u64 = 1024;
/// Records that are passed over for a page, counted or not: the client is to see that the scan gets on.
const PAGE_RECORDS_PASSED: u64 = 65_536;
/// What a record costs in memory besides its bytes.
const RECORD_OVERHEAD_BYTES: usize = size_of::<v1::Record>();

/// What of the records is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contents {
    Records,
    Keys,
    Count,
}

impl Contents {
    pub(super) fn of(keys_only: bool, count_only: bool) -> Self {
        match (keys_only, count_only) {
            (_, true) => Contents::Count,
            (true, false) => Contents::Keys,
            (false, false) => Contents::Records,
        }
    }
}

/// A page that is full, or the last one.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) records: Vec<v1::Record>,
    /// Records, sent or only counted.
    pub(super) count: u64,
    /// The last key that was passed over; empty: none was.
    pub(super) last: Vec<u8>,
    /// Nothing lies behind it.
    pub(super) exhausted: bool,
    keys_and_values: usize,
}

impl Page {
    /// What it takes of the node's memory until it is sent.
    pub(super) fn bytes(&self) -> usize {
        self.keys_and_values + self.records.len() * RECORD_OVERHEAD_BYTES
    }
}

/// A page under way. Its keys and values lie in one piece of memory, which the records share in the end: one allocation
/// for a page instead of two for each record.
struct Filling {
    contents: Contents,
    records_max: u64,
    page: Page,
    passed: u64,
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a record's key and value lie, one behind the other.
struct Place {
    key_len: usize,
    value_len: usize,
    version: v1::Version,
}

/// Reads the next page, of no more than `left` records.
pub(super) fn fill(walk: &mut Walk<'_>, contents: Contents, left: Option<u64>) -> Result<Page, v1::Error> {
    let most = if contents == Contents::Count { PAGE_RECORDS_PASSED } else { PAGE_RECORDS };
    let records_max = left.map_or(most, |left| left.min(most));
    let mut filling = Filling::new(contents, records_max);
    loop {
        let Some((key, stored)) = walk.record().map_err(disk_failed)? else {
            filling.page.exhausted = true;
            break;
        };
        if !filling.take(key, stored)? {
            break;
        }
        walk.step();
    }
    Ok(filling.finish())
}

impl Filling {
    fn new(contents: Contents, records_max: u64) -> Self {
        let full = contents == Contents::Records && records_max == PAGE_RECORDS;
        let bytes = Vec::with_capacity(if full { PAGE_BYTES } else { 0 });
        Self { contents, records_max, page: Page::default(), passed: 0, bytes, places: Vec::new() }
    }

    /// Adds a record, if there is room for it.
    fn take(&mut self, key: &[u8], stored: &[u8]) -> Result<bool, v1::Error> {
        if self.page.count == self.records_max || self.passed == PAGE_RECORDS_PASSED {
            return Ok(false);
        }
        let record = record::decode(stored).map_err(|error| unreadable(key, &error))?;
        // A deletion that is remembered is passed over.
        if let Some(value) = record.value {
            let value = if self.contents == Contents::Records { value } else { &[] };
            if !self.bytes.is_empty() && PAGE_BYTES < self.bytes.len() + key.len() + value.len() {
                return Ok(false);
            }
            self.page.count += 1;
            if self.contents != Contents::Count {
                self.bytes.extend_from_slice(key);
                self.bytes.extend_from_slice(value);
                let version = to_wire(record.version);
                self.places.push(Place { key_len: key.len(), value_len: value.len(), version });
            }
        }
        self.passed += 1;
        self.page.last.clear();
        self.page.last.extend_from_slice(key);
        Ok(true)
    }

    fn finish(self) -> Page {
        let Self { mut page, bytes, places, .. } = self;
        let mut rest = Bytes::from(bytes);
        page.keys_and_values = rest.len();
        page.records = Vec::with_capacity(places.len());
        for Place { key_len, value_len, version } in places {
            let (key, value) = (rest.split_to(key_len), rest.split_to(value_len));
            page.records.push(v1::Record { key, value, version: Some(version) });
        }
        page
    }
}

fn unreadable(key: &[u8], error: &rdb_core::codec::Corrupt) -> v1::Error {
    let key = key.escape_ascii();
    tracing::error!(%key, %error, "a record could not be read");
    status::fail(
        v1::Code::Internal,
        v1::Outcome::NotDone,
        format!("the record of the key '{key}' could not be read: {error}"),
        "ask another node, and see this node's log",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::ids::{Era, NodeId};
    use rdb_core::version::{Hlc, Version};

    const VERSION: Version = Version { era: Era(1), hlc: Hlc(7), node: NodeId(3) };

    fn stored(value: Option<&[u8]>) -> Vec<u8> {
        record::encode(VERSION, value)
    }

    #[test]
    fn records_are_sent_as_far_as_they_are_wanted() {
        for (contents, value) in [(Contents::Records, &b"value"[..]), (Contents::Keys, b"")] {
            let mut filling = Filling::new(contents, 10);
            for key in [&b"a"[..], b"bb"] {
                assert!(filling.take(key, &stored(Some(b"value"))).unwrap());
            }
            assert!(filling.take(b"c", &stored(None)).unwrap(), "a deletion is passed over");
            let page = filling.finish();
            let expected = [&b"a"[..], b"bb"].map(|key| v1::Record {
                key: key.to_vec().into(),
                value: value.to_vec().into(),
                version: Some(to_wire(VERSION)),
            });
            assert_eq!((page.records, page.count, &page.last[..]), (expected.to_vec(), 2, &b"c"[..]));
        }
        let mut filling = Filling::new(Contents::Count, 10);
        assert!(filling.take(b"a", &stored(Some(b"value"))).unwrap());
        let page = filling.finish();
        assert_eq!((page.records.len(), page.count, page.bytes()), (0, 1, 0));
    }

    #[test]
    fn a_page_ends_before_it_is_too_large_but_never_without_a_record() {
        let large = stored(Some(&vec![0; PAGE_BYTES]));
        let mut filling = Filling::new(Contents::Records, 10);
        assert!(filling.take(b"a", &large).unwrap(), "alone it has to go somewhere");
        assert!(!filling.take(b"b", &stored(Some(b""))).unwrap());
        let page = filling.finish();
        assert_eq!((page.count, &page.last[..], page.exhausted), (1, &b"a"[..], false));
        assert!(PAGE_BYTES < page.bytes());
        let mut filling = Filling::new(Contents::Records, 10);
        assert!(filling.take(b"a", &stored(Some(b""))).unwrap());
        assert!(!filling.take(b"b", &large).unwrap());
        let mut filling = Filling::new(Contents::Keys, 2);
        assert!(filling.take(b"a", &large).unwrap() && filling.take(b"b", &large).unwrap());
        assert!(!filling.take(b"c", &large).unwrap(), "the limit");
    }

    #[test]
    fn what_is_no_record_is_named() {
        let error = Filling::new(Contents::Count, 1).take(b"k\xff", &[9, 9]).unwrap_err();
        assert!(error.message.contains("'k\\xff'"), "{}", error.message);
        assert_eq!((error.code(), error.outcome()), (v1::Code::Internal, v1::Outcome::NotDone));
    }
}
