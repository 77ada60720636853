//! Promise 6: Never silently weaker: what only a strong namespace can do is done in a strong era, or refused. A strong read, by the
//! log or by lease, misses nothing that was acknowledged before it began.

use super::Promise;
use crate::configuration::Configuration;
use crate::state::State;
use rdb_core::switch::Mode;
use rdb_core::switch::service;

pub(super) fn holds(configuration: &Configuration, state: &State) -> bool {
    !state.broken.has(Promise::NeverSilentlyWeaker) && (!configuration.lease || lease_misses_nothing(state))
}

/// Node 0 leads, answers all strong writes, and reads what it holds for as long as its lease stands.
fn lease_misses_nothing(state: &State) -> bool {
    let leader = &state.nodes[0];
    let may_read =
        leader.region.mode() == Mode::Strong && service::lease_stands(&leader.region, leader.proposed);
    !may_read || state.acknowledged().without(state.left_behind()).without(state.visible(0)).is_empty()
}
