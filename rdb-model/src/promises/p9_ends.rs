//! Promise 9: Once whatever was broken is healed, the switch ends: by itself where nobody calls it off, and called off where it may
//! be. It ends for those who take part also where an excluded node never comes back.

use crate::model::Cluster;
use crate::state::State;

pub(super) fn holds(model: &Cluster, state: &State) -> bool {
    model.settled.ends(model, state)
}
