//! Shortcuts that a node in eventual mode or in a switch might take. Each looks harmless and breaks something;
//! `tests/planted_modes.rs` plants one at a time and must see it caught. They are there with the feature `bug-modes` alone,
//! which no release build has.

/// A way to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortcut {
    /// Writes are merged, shown and acknowledged as soon as they are handed to the log writer.
    AppliesBeforeSync,
    /// Runs that are logged and not synced are sent to other nodes.
    PushesUnsynced,
    /// Logs drop what this node has synced and flushed, whatever the others have.
    TruncatesUnstable,
    /// The clock's mark is never written, and a start goes by the wall clock.
    KeepsNoMark,
    /// Tombstones are purged as soon as this node has applied them.
    PurgesEarly,
    /// A run that comes after a gap is taken in as if it followed.
    SkipsGaps,
    /// A node answers in an era before the note of it is synced, and a start does not look for one.
    WritesNoNote,
    /// What the cluster went on without is set aside when the snapshot has replaced it, and not before.
    SetsAsideLate,
    /// A region's mode is written in another batch than the place of the marker that it came by.
    WritesModeApart,
    /// What is applied before it is synced is not kept beside the records.
    KeepsNoRun,
    /// The logs and control records of an era go when the next one begins, flushed or not.
    ForgetsUnflushed,
    /// The note that a copy is complete is written with its first page, and a start takes what there is for all of it.
    NotesCopyEarly,
    /// A copy replaces what its receiver has of the era.
    CopyWipesOwn,
    /// Readers do not wait for writes that are answered and not merged yet.
    ReadsTooSoon,
    /// What is certain, and what can be purged, is worked out without the members that were given up: they will take a copy.
    PurgesWithoutGivenUp,
    /// A lease is held by the wall clock, which steps.
    LeaseByWallClock,
}

#[cfg(feature = "bug-modes")]
mod chosen {
    use super::Shortcut;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Shortcut>> = const { Cell::new(None) };
    }

    /// Plants a shortcut on this thread, in place of the one before.
    pub fn take_shortcut(shortcut: Option<Shortcut>) {
        PLANTED.set(shortcut);
    }

    pub(in crate::modes) fn takes(shortcut: Shortcut) -> bool {
        PLANTED.get() == Some(shortcut)
    }
}

#[cfg(feature = "bug-modes")]
pub use chosen::take_shortcut;
#[cfg(feature = "bug-modes")]
pub(super) use chosen::takes;

/// Whether this shortcut is taken: none is.
#[cfg(not(feature = "bug-modes"))]
pub(super) const fn takes(_shortcut: Shortcut) -> bool {
    false
}
