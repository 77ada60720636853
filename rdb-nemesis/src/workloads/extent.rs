//! Scans whose every key is known: what came and what is missing are both recorded, key by key.

use super::caller::{Caller, Where, failed, found, mark, read_of};
use crate::history::Request;
use anyhow::{Result, bail};
use rdb_client::{Consistency, Error, Record, ScanOptions, Served};
use std::time::Duration;
use tokio::time::sleep;

/// What a scan reads.
pub(crate) struct Extent {
    pub(crate) options: ScanOptions,
    /// All keys that can be there, in the order in which they are to come.
    pub(crate) keys: Vec<String>,
    /// So many records at most; 0: no limit.
    pub(crate) limit: usize,
    /// Between two pages, so that there is time to write behind what has been read.
    pub(crate) pause: Duration,
}

impl Extent {
    /// All keys that begin so; `keys` are all that anybody has ever written there, in order.
    pub(crate) fn prefix(prefix: String, keys: Vec<String>) -> Self {
        Self { options: ScanOptions::prefix(prefix), keys, limit: 0, pause: Duration::ZERO }
    }
}

impl Caller {
    /// Scans at one moment, and records a read of each key that the scan says something about. Returns whether it was
    /// answered.
    ///
    /// # Errors
    /// The scan brought what it must not, or not in order.
    pub(crate) async fn scan(
        &mut self,
        extent: &Extent,
        place: Where,
        consistency: Consistency,
    ) -> Result<bool> {
        let call_ns = self.scene.history.now_ns();
        let (answer, served) = self.pages(extent, place, consistency).await;
        let outcomes: Vec<_> = match &answer {
            Ok(records) => match covered(extent, records) {
                Ok(covered) => covered.into_iter().map(|(key, record)| (key, found(record))).collect(),
                Err(why) => bail!("a scan at {place:?} {why}"),
            },
            Err(error) => extent.keys.iter().map(|key| (key.as_str(), failed(error))).collect(),
        };
        for (key, outcome) in outcomes {
            let mut entry = self.entry(key, Request::Scan, read_of(consistency), call_ns, outcome);
            mark(&mut entry, served, place);
            self.scene.history.record(entry);
        }
        Ok(answer.is_ok())
    }

    async fn pages(
        &self,
        extent: &Extent,
        place: Where,
        consistency: Consistency,
    ) -> (Result<Vec<Record>, Error>, Option<Served>) {
        let namespace = self.to(place).clone().with_consistency(consistency);
        let mut scan = namespace.scan(extent.options.clone().one_moment());
        let mut records = Vec::new();
        let answer = loop {
            match scan.next_page().await {
                Ok(Some(page)) => records.extend(page),
                Ok(None) => break Ok(records),
                Err(error) => break Err(error),
            }
            sleep(extent.pause).await;
        };
        (answer, scan.served())
    }
}

/// What a scan says of each key: the record that it brought, or that there is none. It says nothing of keys behind its limit.
fn covered<'a>(
    extent: &'a Extent,
    records: &'a [Record],
) -> Result<Vec<(&'a str, Option<&'a Record>)>, String> {
    let mut rest = records.iter().peekable();
    let mut covered = Vec::new();
    for key in &extent.keys {
        if extent.limit != 0 && extent.limit <= records.len() - rest.len() {
            break;
        }
        covered.push((key.as_str(), rest.next_if(|record| record.key == key.as_bytes())));
    }
    match rest.next() {
        None => Ok(covered),
        Some(record) => Err(format!(
            "brought {:?}, which comes twice, out of order, from elsewhere or behind the limit, or was never written",
            String::from_utf8_lossy(&record.key)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_client::Version;

    fn records(keys: &[&str]) -> Vec<Record> {
        let record = |key: &&str| Record {
            key: key.to_string().into(),
            value: "value".into(),
            version: Version { era: 1, hlc: 1, node: 1 },
        };
        keys.iter().map(record).collect()
    }

    fn says(limit: usize, came: &[&str]) -> Result<String, String> {
        let keys = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let extent = Extent { limit, ..Extent::prefix(String::new(), keys) };
        let records = records(came);
        let told = |(key, record): &(&str, Option<&Record>)| match record {
            Some(_) => (*key).to_owned(),
            None => format!("no {key}"),
        };
        Ok(covered(&extent, &records)?.iter().map(told).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn a_scan_says_what_is_there_and_what_is_not() {
        assert_eq!(says(0, &["b", "d"]).unwrap(), "no a, b, no c, d");
        assert_eq!(says(0, &[]).unwrap(), "no a, no b, no c, no d");
        // Two came, and the others were not looked for.
        assert_eq!(says(2, &["b", "c"]).unwrap(), "no a, b, c");
        assert_eq!(says(2, &["c"]).unwrap(), "no a, no b, c, no d");
    }

    #[test]
    fn a_scan_that_brings_what_it_must_not_is_wrong() {
        for came in [&["b", "a"][..], &["a", "a"], &["a", "e"]] {
            assert!(says(0, came).is_err(), "{came:?}");
        }
        assert!(says(2, &["a", "b", "c"]).is_err());
    }
}
