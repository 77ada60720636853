//! What must hold, a file for each promise of `docs/mode-switch.md`. Some can be read off any state; what only an answer can
//! break is noted as the answer is given, in [`Broken`].

mod p1_one_mode;
mod p2_installed;
mod p3_nothing_lost;
mod p4_one_base;
mod p5_later_era_wins;
mod p6_never_weaker;
mod p7_nothing_vanishes;
mod p8_left_behind;
mod p9_ends;

use crate::model::Cluster;
use crate::state::State;
use rdb_core::ids::{Epoch, Era};
use rdb_core::switch::Mode;
use stateright::Property;

/// The promises, by the numbers of `docs/mode-switch.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// 1.
    OneMode,
    /// 2.
    DurablyInstalled,
    /// 3.
    NothingLost,
    /// 4.
    OneBase,
    /// 5.
    LaterEraWins,
    /// 6.
    NeverSilentlyWeaker,
    /// 7.
    NothingVanishes,
    /// 8.
    LeftBehindIsKept,
    /// 9.
    Ends,
}

impl Promise {
    /// All of them.
    pub const ALL: [Promise; 9] = [
        Promise::OneMode,
        Promise::DurablyInstalled,
        Promise::NothingLost,
        Promise::OneBase,
        Promise::LaterEraWins,
        Promise::NeverSilentlyWeaker,
        Promise::NothingVanishes,
        Promise::LeftBehindIsKept,
        Promise::Ends,
    ];

    /// Its number.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// The promise's name, as the checker prints it.
    pub fn name(self) -> &'static str {
        match self {
            Promise::OneMode => "1 one mode per era, and epochs only grow",
            Promise::DurablyInstalled => "2 answers only in the mode that is durably installed",
            Promise::NothingLost => "3 what was acknowledged is in the next base",
            Promise::OneBase => "4 one base before anything strong is served",
            Promise::LaterEraWins => "5 a later era wins",
            Promise::NeverSilentlyWeaker => "6 never silently weaker",
            Promise::NothingVanishes => "7 what was read does not vanish",
            Promise::LeftBehindIsKept => "8 what is left behind is kept apart",
            Promise::Ends => "9 once healed, the switch ends",
        }
    }
}

/// The promises that some answer has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Broken(u16);

impl Broken {
    pub(crate) fn note(&mut self, promise: Promise) {
        self.0 |= 1 << promise as u16;
    }

    fn has(self, promise: Promise) -> bool {
        self.0 & (1 << promise as u16) != 0
    }
}

/// An answer that says "done" to a client: to a write, or to a strong read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(crate) node: usize,
    /// The epoch that it carries.
    pub(crate) epoch: Epoch,
    /// The era in which the node did what it answers for.
    pub(crate) era: Era,
    /// The write; `None` for a strong read.
    pub(crate) id: Option<u8>,
}

/// Looks at an answer as it is given.
pub(crate) fn note_answer(state: &mut State, answer: Answered) {
    let mode = answer.id.map_or(Mode::Strong, |id| state.write(id).mode);
    p1_one_mode::look(state, answer);
    p2_installed::look(state, answer, mode);
    p4_one_base::look(state, answer, mode);
    if mode == Mode::Strong {
        state.strong_served = state.strong_served.max(Some(answer.era));
    }
    if let Some(id) = answer.id {
        state.write_mut(id).acknowledged = Some(answer.epoch);
    }
}

/// The promises, as the checker asks for them.
pub(crate) fn properties() -> Vec<Property<Cluster>> {
    vec![
        Property::always(Promise::OneMode.name(), |_, state: &State| p1_one_mode::holds(state)),
        Property::always(Promise::DurablyInstalled.name(), |_, state: &State| p2_installed::holds(state)),
        Property::always(Promise::NothingLost.name(), |_, state: &State| p3_nothing_lost::holds(state)),
        Property::always(Promise::OneBase.name(), |_, state: &State| p4_one_base::holds(state)),
        Property::always(Promise::LaterEraWins.name(), |_, state: &State| p5_later_era_wins::holds(state)),
        Property::always(Promise::NeverSilentlyWeaker.name(), |model: &Cluster, state: &State| {
            p6_never_weaker::holds(&model.configuration, state)
        }),
        Property::always(Promise::NothingVanishes.name(), |_, state: &State| {
            p7_nothing_vanishes::holds(state)
        }),
        Property::always(Promise::LeftBehindIsKept.name(), |_, state: &State| p8_left_behind::holds(state)),
        Property::always(Promise::Ends.name(), p9_ends::holds),
    ]
}
