//! A region's state machine, whichever of the core's two it is: the keys' or the catalog's.

use crate::disks::data::Stored;
use rdb_core::apply::{self, Changes, Committed, State};
use rdb_core::ids::RegionId;
use rdb_pd::Catalog;

/// A state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Machine {
    /// Of a user's region.
    Keys(apply::Machine),
    /// Of the meta region.
    Catalog(rdb_pd::Machine),
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Of a user's region.
    Keys(apply::Answer),
    /// Of the meta region.
    Catalog(rdb_pd::Answer),
}

/// What came of entries: what to write, and the answers by entry.
pub(crate) type Applied = (Changes, Vec<Vec<Answer>>);

impl Machine {
    /// The machine of what is stored.
    pub(crate) fn load(region: RegionId, stored: &Stored) -> Result<Self, String> {
        let state = stored.state()?;
        if region != RegionId::META {
            return Ok(Machine::Keys(apply::Machine::new(region, state, stored.sessions()?)));
        }
        let mut catalog = Catalog::default();
        for (key, value) in &stored.records {
            catalog.load(key, value).map_err(|error| error.to_string())?;
        }
        Ok(Machine::Catalog(rdb_pd::Machine::new(state, catalog)))
    }

    /// Where it stands.
    pub(crate) fn state(&self) -> &State {
        match self {
            Machine::Keys(machine) => machine.state(),
            Machine::Catalog(machine) => machine.state(),
        }
    }

    /// Applies entries that follow.
    pub(crate) fn apply(&mut self, entries: &[Committed], stored: &Stored) -> Result<Applied, String> {
        match self {
            Machine::Keys(machine) => {
                let applied = machine.apply(entries, stored).map_err(|error| error.to_string())?;
                Ok((applied.changes, wrap(applied.answers, Answer::Keys)))
            }
            Machine::Catalog(machine) => {
                let applied = machine.apply(entries).map_err(|error| error.to_string())?;
                Ok((applied.changes, wrap(applied.answers, Answer::Catalog)))
            }
        }
    }

    /// The catalog, of the meta region's.
    pub(crate) fn catalog(&self) -> Option<&Catalog> {
        match self {
            Machine::Keys(_) => None,
            Machine::Catalog(machine) => Some(machine.catalog()),
        }
    }
}

fn wrap<A>(answers: Vec<Vec<A>>, wrap: fn(A) -> Answer) -> Vec<Vec<Answer>> {
    answers.into_iter().map(|answers| answers.into_iter().map(wrap).collect()).collect()
}
