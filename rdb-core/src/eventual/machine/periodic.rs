//! Durability `periodic`: this node's own runs are applied, and shown, before they are synced. Nobody else may count on them until
//! they are: they do not count as applied in what this node says of itself, and it says no more than what it had applied when
//! the oldest of them was accepted.

use super::{Changes, Error, Machine, View};
use crate::eventual::run::Run;
use crate::eventual::unsynced;
use crate::eventual::vector::Seq;

impl Machine {
    /// The same machine, for a namespace whose writes are applied before they are synced, if `is_periodic`.
    #[must_use]
    pub fn periodic(mut self, is_periodic: bool) -> Self {
        self.is_periodic = is_periodic;
        self
    }

    /// Applies a run that this node has just written, which `bytes` encode, before it is synced. [`Machine::synced`] must be told
    /// when it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn apply_first<V: View>(
        &mut self,
        run: &Run,
        bytes: &[u8],
        view: &V,
    ) -> Result<Changes, Error<V::Error>> {
        let mut changes = self.apply(std::slice::from_ref(run), view)?;
        changes.notes.push((unsynced::key(run), Some(bytes.to_vec())));
        Ok(changes)
    }

    /// This node's own runs up to `last` are synced: the others may hear of them.
    pub fn synced(&mut self, last: Seq) {
        while self.unapplied.front().is_some_and(|(id, ..)| id.seq <= last) {
            self.unapplied.pop_front();
        }
    }
}
