//! The model as `stateright` sees it.

use crate::action::Action;
use crate::configuration::Configuration;
use crate::settle::Settled;
use crate::state::State;
use crate::{goals, promises, steps};
use stateright::{Model, Property};

/// A cluster within the bounds of a configuration.
pub struct Cluster {
    pub(crate) configuration: Configuration,
    pub(crate) settled: Settled,
    #[cfg(feature = "planted")]
    variant: Option<rdb_core::switch::planted::Wrong>,
}

impl Cluster {
    /// A cluster that follows the protocol.
    pub fn new(configuration: Configuration) -> Self {
        Self {
            configuration,
            settled: Settled::default(),
            #[cfg(feature = "planted")]
            variant: None,
        }
    }

    /// A cluster that follows a wrong variant of it.
    #[cfg(feature = "planted")]
    pub fn planted(configuration: Configuration, variant: rdb_core::switch::planted::Wrong) -> Self {
        Self { variant: Some(variant), ..Self::new(configuration) }
    }

    /// Which variant is planted is a matter of the thread, and the checker has threads of its own.
    fn plant(&self) {
        #[cfg(feature = "planted")]
        rdb_core::switch::planted::plant(self.variant);
    }

    pub(crate) fn possible(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        steps::offer(&self.configuration, state, &mut actions);
        actions
    }

    pub(crate) fn after(&self, state: &State, action: &Action) -> State {
        let mut next = state.clone();
        steps::take(&self.configuration, &mut next, action);
        next
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        self.plant();
        vec![State::first(&self.configuration)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.plant();
        steps::offer(&self.configuration, state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        self.plant();
        let next = self.after(state, &action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = promises::properties();
        properties.extend(goals::properties(&self.configuration));
        properties
    }
}
