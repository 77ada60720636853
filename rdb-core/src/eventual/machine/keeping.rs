//! Lost writes that are kept, and that their time ends. What is counted does not change by that: of a loss that is not certain yet
//! the bare note stays, since it may be taken back.

use super::batch::Batch;
use super::{Error, Machine, View};
use crate::eventual::conflicts::{self, Kept, Lost};
use crate::eventual::heads::Heads;
use crate::ids::Era;
use crate::version::Hlc;

/// Notes with their keys; `None` removes.
type Changed = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl Machine {
    /// What time it is: what is lost from now on is kept from now on.
    pub fn look_at_clock(&mut self, now: Hlc) {
        self.now = self.now.max(now);
    }
}

/// What is to be written so that these kept notes, given by the keys of [`conflicts::all_kept`], are listed no more. `era` is the
/// one whose writes are being taken: losses of earlier ones are certain.
///
/// # Errors
/// A note is damaged, or could not be read.
pub fn forget<V: View>(era: Option<Era>, kept: &[Vec<u8>], view: &V) -> Result<Changed, Error<V::Error>> {
    let mut batch = Batch::new(view, &mut Heads::default());
    for key in kept {
        batch.set_note(key.clone(), None);
        let Some(Kept { note: key, .. }) = Kept::parse(key)? else { continue };
        let Some(note) = batch.note(key)? else { continue };
        let (noted_in, ..) = conflicts::parse_lost_key(key)?;
        let lost = Lost::decode(&note)?;
        // The bare note of a loss that is settled goes when it is settled everywhere.
        let counts_yet = era == Some(noted_in);
        let bare = Lost { kept: None, listed: None, ..lost };
        batch.set_note(key.to_vec(), counts_yet.then(|| bare.encode()));
    }
    Ok(batch.into_notes())
}
