//! Making a data directory, so that a crash at any step is harmless.
//!
//! The identity is written first under the name `IDENTITY.new` and gets its own name last. As long as only
//! `IDENTITY.new` is there, the node was never started with this directory: nothing was promised, and the next start
//! throws the rest away and begins anew. Once `IDENTITY` is there, all of it is, and synced.
//!
//! ```text
//! nothing ──▶ IDENTITY.new ──▶ log/ ──▶ data/ ──▶ WATERMARK ──▶ IDENTITY      (each synced before the next)
//!    ▲              └──────────┴─────────┴───────────┘ a crash here: begin anew
//!    └───────────────────────────────────┘
//! ```

use crate::directory::{self, DATA, IDENTITY, IDENTITY_NEW, IDENTITY_TEMPORARY, LOCK, LOG, WATERMARK};
use crate::error::{Error, Result};
use crate::identity::{Expected, Identity};
use crate::keys;
use crate::rocks::{self, EngineOptions};
use crate::watermark::Watermark;
use rocksdb::{WriteBatch, WriteOptions};
use std::path::Path;

/// What a data directory is before a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing is in it.
    Nothing,
    /// Its initialisation was cut short. It was never used.
    Unfinished,
    /// It is some node's.
    Used,
}

/// Says what a data directory is.
pub(crate) fn inspect(path: &Path) -> Result<Found> {
    let names = directory::names(path)?;
    let has = |name: &str| names.iter().any(|found| found == name);
    if has(IDENTITY) {
        return Ok(Found::Used);
    }
    if has(IDENTITY_NEW) {
        return Ok(Found::Unfinished);
    }
    if [LOG, DATA, WATERMARK, IDENTITY_TEMPORARY].into_iter().any(has) {
        return Err(Error::IdentityMissing(path.to_path_buf()));
    }
    // A file system of its own has lost+found at its root.
    match names.into_iter().find(|name| name != LOCK && name != "lost+found") {
        Some(found) => Err(Error::NotEmpty { path: path.to_path_buf(), found }),
        None => Ok(Found::Nothing),
    }
}

type Step = fn(&Path, &Identity, &EngineOptions) -> Result<()>;

/// What makes a directory, in order. After the last one it is used.
pub(crate) const STEPS: [Step; 6] = [clear, announce, make_log, make_data, make_watermark, finish];

/// Makes the directory of a node that has none yet.
pub(crate) fn run(path: &Path, expected: &Expected, options: &EngineOptions) -> Result<()> {
    let identity = Identity::draw(expected);
    for step in STEPS {
        step(path, &identity, options)?;
    }
    tracing::info!(path = %path.display(), %identity, "data directory made");
    Ok(())
}

/// Throws away what an initialisation that was cut short has left. `IDENTITY.new` goes last: as long as anything else
/// is there, it says that this was never used.
fn clear(path: &Path, _: &Identity, _: &EngineOptions) -> Result<()> {
    for name in [LOG, DATA] {
        let database = path.join(name);
        if database.exists() {
            std::fs::remove_dir_all(&database).map_err(Error::io("remove the unfinished", &database))?;
        }
    }
    for name in [WATERMARK, IDENTITY_NEW] {
        directory::sync(path)?;
        let file = path.join(name);
        if file.exists() {
            std::fs::remove_file(&file).map_err(Error::io("remove the unfinished", &file))?;
        }
    }
    directory::sync(path)
}

fn announce(path: &Path, identity: &Identity, _: &EngineOptions) -> Result<()> {
    directory::write_synced(&path.join(IDENTITY_NEW), identity.to_text().as_bytes())?;
    directory::sync(path)
}

fn make_log(path: &Path, identity: &Identity, options: &EngineOptions) -> Result<()> {
    let database = path.join(LOG);
    directory::create(&database)?;
    let log = rocks::open_log(&database, options, true)?;
    let mut batch = WriteBatch::default();
    batch.put(keys::LOG_IDENTITY, identity.to_marker());
    batch.put(keys::LOG_INCARNATION, 0u64.to_be_bytes());
    batch.put(keys::LOG_POSITION, keys::Position::default().encode());
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    log.write_opt(batch, &synced).map_err(Error::rocks("mark the new log"))?;
    directory::sync(path)
}

fn make_data(path: &Path, identity: &Identity, options: &EngineOptions) -> Result<()> {
    let database = path.join(DATA);
    directory::create(&database)?;
    let data = rocks::open_data(&database, options, true)?;
    let mut batch = WriteBatch::default();
    batch.put(keys::DATA_IDENTITY, identity.to_marker());
    data.write_without_wal(batch).map_err(Error::rocks("mark the new data"))?;
    data.flush().map_err(Error::rocks("flush the new data"))?;
    directory::sync(path)
}

fn make_watermark(path: &Path, identity: &Identity, _: &EngineOptions) -> Result<()> {
    Watermark::create(path, identity)?;
    directory::sync(path)
}

fn finish(path: &Path, _: &Identity, _: &EngineOptions) -> Result<()> {
    directory::rename_synced(path, IDENTITY_NEW, IDENTITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Engine;
    use rdb_core::ids::NodeId;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    fn private() -> tempfile::TempDir {
        tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
    }

    /// Each crash between two steps, then a start: it must begin anew and come up as a first start.
    #[test]
    fn a_crash_between_any_two_steps_is_harmless() {
        let expected = Expected { cluster_id: "test".into(), node_id: NodeId(1) };
        let options = EngineOptions::default();
        for done in 0..=STEPS.len() {
            let directory = private();
            let crashed = Identity::draw(&expected);
            for step in &STEPS[..done] {
                step(directory.path(), &crashed, &options).unwrap();
            }
            let found = inspect(directory.path()).unwrap();
            assert_eq!(found == Found::Used, done == STEPS.len(), "{found:?} after {done} steps");
            let engine = Engine::open(directory.path(), &expected, &options).unwrap();
            assert_eq!(engine.identity().incarnation, 1, "after {done} steps");
            let finished = engine.identity().store_id == crashed.store_id;
            assert_eq!(finished, done == STEPS.len(), "an unfinished store is never taken over");
            assert!(!directory.path().join(IDENTITY_NEW).exists());
        }
    }

    /// A crash while an unfinished directory is being cleared leaves it recognisable.
    #[test]
    fn a_crash_while_clearing_is_harmless() {
        let expected = Expected { cluster_id: "test".into(), node_id: NodeId(1) };
        let options = EngineOptions::default();
        for removed in [&[][..], &[LOG], &[LOG, DATA]] {
            let directory = private();
            for step in &STEPS[..STEPS.len() - 1] {
                step(directory.path(), &Identity::draw(&expected), &options).unwrap();
            }
            for name in removed {
                std::fs::remove_dir_all(directory.path().join(name)).unwrap();
            }
            let engine = Engine::open(directory.path(), &expected, &options).unwrap();
            assert_eq!(engine.identity().incarnation, 1);
        }
    }
}
