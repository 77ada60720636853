//! Bugs of a node in eventual mode, planted behind features that no release build has. Each is a shortcut that looks harmless.

/// Writes are merged, shown and acknowledged as soon as they are handed to the log writer.
pub(super) const APPLY_BEFORE_SYNC: bool = cfg!(feature = "bug-eventual-apply-before-sync");
/// Runs that are logged and not synced are sent to other nodes.
pub(super) const PUSH_UNSYNCED: bool = cfg!(feature = "bug-eventual-push-unsynced");
/// Logs are truncated up to what this node has synced, whatever the others have.
pub(super) const TRUNCATE_UNSTABLE: bool = cfg!(feature = "bug-eventual-truncate-unstable");
/// The clock's mark is taken for persisted and never written; a start goes by the wall clock.
pub(super) const MARK_NOT_PERSISTED: bool = cfg!(feature = "bug-eventual-mark-not-persisted");
/// Tombstones are purged as soon as this node has applied them.
pub(super) const PURGE_EARLY: bool = cfg!(feature = "bug-eventual-purge-early");
/// A run that comes after a gap is taken in as if it followed.
pub(super) const SKIP_GAP: bool = cfg!(feature = "bug-eventual-skip-gap");
/// A node answers in an era before the note of it is synced, and starts without it.
pub(super) const NO_NOTE: bool = cfg!(feature = "bug-switch-no-note");
/// The tail of an excluded node is not synced before a snapshot replaces the region.
pub(super) const QUARANTINE_LATE: bool = cfg!(feature = "bug-switch-quarantine-unsynced");
/// A region's mode is written in another batch than the place of the marker that it came by.
pub(super) const MODE_IN_OWN_BATCH: bool = cfg!(feature = "bug-switch-mode-in-own-batch");
/// A node that has not found again the era that it answered in takes in a snapshot.
pub(super) const SNAPSHOT_BEFORE_REPLAY: bool = cfg!(feature = "bug-switch-snapshot-before-replay");
