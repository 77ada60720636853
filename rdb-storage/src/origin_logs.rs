//! Reading the logs of eventual mode: of each region and era one log an origin, kept by every node for all origins.
//!
//! A log is a row of runs, each under the key of its last write; how writes were cut into runs differs from node to node.
//! What is no longer in the logs, since all members have it, stands in the region's base. The pages of a copy are put aside among
//! the logs of their era, under an origin that no node is: see [`rdb_core::eventual::copy`].

use crate::error::{Error, Result};
use crate::keys::{self, ORIGIN_LOG, ORIGIN_STATE, OriginState};
use crate::rocks::Databases;
use rdb_core::eventual::copy::ASIDE;
use rdb_core::eventual::origin_log::Held;
use rdb_core::eventual::run::Run;
use rdb_core::eventual::vector::{Origin, Seq};
use rdb_core::ids::{Era, Index, RegionId, Term};
use rdb_core::version::Hlc;
use rocksdb::{DB, DBRawIteratorWithThreadMode, ReadOptions};
use std::ops::Range;
use std::sync::Arc;

/// All regions' origins' logs, for reading. Cheap to clone.
#[derive(Clone)]
pub struct OriginLogs {
    databases: Arc<Databases>,
}

/// What the log has of one region's eventual mode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredOrigins {
    /// The runs that are in the logs of the era that was asked for; of each origin in order.
    pub runs: Vec<Held>,
    /// The stamp of the first write of each of them.
    pub stamps: Vec<Hlc>,
    /// Who may write, encoded; `None` where nobody has said yet.
    pub gate: Option<Vec<u8>>,
    /// What is no longer in the logs, encoded.
    pub base: Option<Vec<u8>>,
}

impl OriginLogs {
    pub(crate) fn new(databases: Arc<Databases>) -> Self {
        Self { databases }
    }

    /// No stamp of this node was ever at or above this; `None` if it has given out none.
    ///
    /// # Errors
    /// The log could not be read, or this is not what was written.
    pub fn stamps_below(&self) -> Result<Option<Hlc>> {
        let stored = self.databases.log.get(keys::LOG_HLC).map_err(Error::rocks("read the clock's mark"))?;
        let Some(stored) = stored else { return Ok(None) };
        let bytes = <[u8; 8]>::try_from(stored.as_slice()).map_err(|_| Error::Damaged {
            what: "the log database".into(),
            problem: "its 'hlc' is not a number".into(),
        })?;
        Ok(Some(Hlc(u64::from_be_bytes(bytes))))
    }

    /// What is stored of `region`, with what is in the logs of `era`. It reads all of them.
    ///
    /// # Errors
    /// The log could not be read, or holds a key that is none.
    pub fn load(&self, region: RegionId, era: Era) -> Result<StoredOrigins> {
        let [gate, base] = [self.state(region, OriginState::Gate)?, self.state(region, OriginState::Base)?];
        let (runs, stamps) = self.held(region, era)?;
        Ok(StoredOrigins { runs, stamps, gate, base })
    }

    /// The gate's control records, encoded; `None` where nobody has said anything yet.
    ///
    /// # Errors
    /// The log could not be read.
    pub fn gate(&self, region: RegionId) -> Result<Option<Vec<u8>>> {
        self.state(region, OriginState::Gate)
    }

    /// What is known of writes that the cluster went on without, encoded.
    ///
    /// # Errors
    /// The log could not be read.
    pub fn quarantine(&self, region: RegionId) -> Result<Option<Vec<u8>>> {
        self.state(region, OriginState::Quarantine)
    }

    /// The place and the term of the entry by which this node has last entered an eventual era and answered in it, if it has. It
    /// was committed, also where the log's commit index does not say so.
    ///
    /// # Errors
    /// The log could not be read, or this is not what was written.
    pub fn entered(&self, region: RegionId) -> Result<Option<(Index, Term)>> {
        let Some(stored) = self.state(region, OriginState::Entered)? else { return Ok(None) };
        let bytes = <[u8; 16]>::try_from(stored.as_slice()).map_err(|_| {
            Error::damaged_region(region, "the note of the era that it entered is not two numbers")
        })?;
        let numbers = u128::from_be_bytes(bytes);
        let (index, term) = (numbers >> 64, numbers & u128::from(u64::MAX));
        let number = |part: u128| u64::try_from(part).unwrap_or(u64::MAX);
        Ok(Some((number(index), number(term))))
    }

    fn state(&self, region: RegionId, kind: OriginState) -> Result<Option<Vec<u8>>> {
        let family = self.databases.log_family(ORIGIN_STATE)?;
        let found = self.databases.log.get_cf(&family, keys::origin_state(region, kind));
        found.map_err(Error::rocks("read what a region must remember of its origins' logs"))
    }

    fn held(&self, region: RegionId, era: Era) -> Result<(Vec<Held>, Vec<Hlc>)> {
        let (mut held, mut stamps) = (Vec::new(), Vec::new());
        let mut runs = self.iterate(keys::runs_of_era(region, era))?;
        runs.seek_to_first();
        while let Some((_, _, origin, last)) = key(&runs)? {
            // Pages of a copy lie among the logs, and what was set aside from the records; they are none.
            if origin.node == ASIDE.node {
                runs.seek(keys::runs(region, era, origin).end);
                continue;
            }
            let bytes = runs.value().unwrap_or_default();
            let run = Run::decode(bytes).map_err(Error::corrupt_region(region))?;
            if (run.era, run.origin, run.last()) != (era, origin, last) {
                return Err(Error::damaged_region(
                    region,
                    format!("the run of {origin:?} up to {last} is another one than its key says"),
                ));
            }
            held.push(Held::of(&run, bytes.len()));
            stamps.push(run.entries.first().map_or_else(Hlc::default, |entry| entry.hlc));
            runs.next();
        }
        Ok((held, stamps))
    }

    /// Encoded runs of an origin's log, in order, from the one that has the write after `known` on: as many from the front as
    /// fit `bytes_max`, and at least one if there is any. The first one may begin before that write.
    ///
    /// # Errors
    /// The log could not be read.
    pub fn runs(
        &self,
        region: RegionId,
        era: Era,
        origin: Origin,
        known: Seq,
        bytes_max: usize,
    ) -> Result<Vec<Vec<u8>>> {
        let range = keys::run(region, era, origin, known.saturating_add(1)).to_vec()
            ..keys::runs(region, era, origin).end;
        let mut stored = self.iterate(range)?;
        stored.seek_to_first();
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(run) = stored.value() {
            bytes += run.len();
            if !found.is_empty() && bytes_max < bytes {
                return Ok(found);
            }
            found.push(run.to_vec());
            stored.next();
        }
        stored.status().map_err(Error::rocks("read an origin's log"))?;
        Ok(found)
    }

    fn iterate(&self, range: Range<Vec<u8>>) -> Result<DBRawIteratorWithThreadMode<'_, DB>> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(range);
        options.set_verify_checksums(true);
        options.fill_cache(false);
        let family = self.databases.log_family(ORIGIN_LOG)?;
        Ok(self.databases.log.raw_iterator_cf_opt(&family, options))
    }
}

/// The key that `runs` stands at.
fn key(runs: &DBRawIteratorWithThreadMode<'_, DB>) -> Result<Option<(RegionId, Era, Origin, Seq)>> {
    let Some(key) = runs.key() else {
        runs.status().map_err(Error::rocks("read the origins' logs"))?;
        return Ok(None);
    };
    keys::parse_run(key).map(Some).ok_or_else(|| Error::Damaged {
        what: "the log's column family 'origin_log'".into(),
        problem: format!("it has the unknown key {key:02x?}"),
    })
}
