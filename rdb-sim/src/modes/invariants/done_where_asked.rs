//! A write is done in the era that it was asked in, or not at all: its answer carries that era's epoch.

use crate::invariants::{Violation, holds};
use crate::modes::truth::Truth;
use rdb_core::ids::Era;
use rdb_core::version::Version;

impl Truth {
    /// A client is told that its write, which it asked for in `asked`, is done.
    pub(in crate::modes) fn done_where_asked(
        &self,
        op: u64,
        version: Version,
        asked: Era,
    ) -> Result<(), Violation> {
        holds("done in the era that was asked in", version.era == asked, || {
            format!("operation {op} was asked for in era {asked} and done as {version:?}")
        })
    }
}
