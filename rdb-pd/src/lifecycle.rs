//! What becomes of a node's regions as its catalog changes: the decisions, for whoever carries them out. A node's raft loop
//! does so on real disks, the simulator on its own.
//!
//! Nothing here remembers anything: each decision is made from what the catalog says now and what the node has now. So it
//! may be made again after any crash, and as often as somebody asks. A namespace's life, step by step:
//!
//! | step | where it is written | who takes it, seeing what |
//! |---|---|---|
//! | created | catalog | the catalog's leader, asked |
//! | region made | the node's log | each node, seeing [`Step::Create`] |
//! | deletion begun | catalog | the catalog's leader, asked |
//! | region closed | the region's log | the region's leader, seeing [`Catalog::deleting`] |
//! | removed | catalog | the catalog's leader, seeing its own replica closed: [`Catalog::removable`] |
//! | region destroyed | the node's data, then its log | each node, seeing [`Step::End`] |

use crate::catalog::{Catalog, Namespace, Stage};
use rdb_core::coverage::{Branch, reached};
use rdb_core::ids::{NamespaceId, RegionId};
use std::collections::BTreeMap;

/// What a catalog says of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'c> {
    /// It belongs to this namespace.
    Named(&'c Namespace),
    /// It was given once, and its namespace is gone: so must be all that a node has of it. It never comes back.
    Gone,
    /// This catalog has not given it yet. A node that has it all the same has applied more before it stopped than it had
    /// flushed; what it applies again will tell.
    NotYet,
}

/// What a node has of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// A log that was found at the start, and that nobody uses.
    Stored,
    /// A log that is being made.
    Creating,
    /// A replica that runs.
    Running,
    /// A replica whose data and log are being replaced by a snapshot's. It cannot be ended before that is done.
    Installing,
}

/// What a node is to do about a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make its log, then start its replica.
    Create(Namespace),
    /// Start its replica from its log.
    Start(Namespace),
    /// End its replica, destroy its data, and when that is durable its log. The other way round, a crash in between would
    /// leave data whose log is lost.
    End,
    /// Destroy its log, of which no replica runs.
    DestroyLog,
}

impl Catalog {
    /// What is to be done about a region.
    pub fn standing(&self, region: RegionId) -> Standing<'_> {
        let named = self.namespaces().find(|namespace| namespace.region == region);
        self.stands(region, named)
    }

    fn stands<'c>(&self, region: RegionId, named: Option<&'c Namespace>) -> Standing<'c> {
        match named {
            Some(namespace) => Standing::Named(namespace),
            None if (RegionId::FIRST_USER..self.next_region()).contains(&region) => Standing::Gone,
            None => Standing::NotYet,
        }
    }

    /// Whether a namespace was given once and is gone: so must be its records.
    pub fn is_gone(&self, namespace: NamespaceId) -> bool {
        let given = NamespaceId::META < namespace && namespace < self.next_namespace();
        given && self.namespace_of(namespace).is_none()
    }

    /// What a node is to do that holds these regions, the meta region left out. In the regions' order; what is under way
    /// already is not named again.
    pub fn steps(&self, holdings: &BTreeMap<RegionId, Holding>) -> Vec<(RegionId, Step)> {
        let named: BTreeMap<RegionId, &Namespace> =
            self.namespaces().map(|namespace| (namespace.region, namespace)).collect();
        let mut steps = BTreeMap::new();
        for (region, namespace) in &named {
            match holdings.get(region) {
                None => drop(steps.insert(*region, Step::Create((*namespace).clone()))),
                Some(Holding::Stored) => drop(steps.insert(*region, Step::Start((*namespace).clone()))),
                Some(Holding::Creating | Holding::Running | Holding::Installing) => {}
            }
        }
        for (region, holding) in holdings {
            let standing = self.stands(*region, named.get(region).copied());
            match (standing, holding) {
                (Standing::Gone, Holding::Running) => drop(steps.insert(*region, Step::End)),
                (Standing::Gone, Holding::Stored) => {
                    reached(Branch::CatalogLogLeftOver);
                    steps.insert(*region, Step::DestroyLog);
                }
                // Looked at again when that is done.
                (Standing::Gone, Holding::Creating | Holding::Installing) => {
                    reached(Branch::CatalogGoneWhileBusy);
                }
                (Standing::NotYet, _) => reached(Branch::CatalogNotYet),
                (Standing::Named(_), _) => {}
            }
        }
        steps.into_iter().collect()
    }

    /// The namespaces whose mode is being switched, unless they are being deleted, which ends everything.
    pub fn switching(&self) -> impl Iterator<Item = &Namespace> {
        let is_switching =
            |namespace: &&Namespace| namespace.stage == Stage::Open && namespace.descriptor.is_switching();
        self.namespaces().filter(is_switching)
    }

    /// The namespaces that are being deleted: whoever leads the region of one closes it, unless it is closed.
    pub fn deleting(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces().filter(|namespace| namespace.stage == Stage::Deleting)
    }

    /// The namespaces that the catalog's leader may remove, where `closed` says of which regions its own replica has applied
    /// the closing entry. That entry is committed, so whoever still answers for the region, once it can find out what is
    /// committed, finds the region closed.
    pub fn removable(&self, closed: impl Fn(RegionId) -> bool) -> impl Iterator<Item = NamespaceId> {
        // PLANTED BUG: the namespace is gone for those who ask the catalog, and the region goes on where nobody has heard.
        let closed = move |region| cfg!(feature = "bug-removal-before-closing") || closed(region);
        self.deleting().filter(move |namespace| closed(namespace.region)).map(|namespace| namespace.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::{Machine, Mode};
    use rdb_core::apply::{Committed, State};
    use rdb_core::command::begin_catalog;
    use rdb_core::ids::NodeId;

    /// `a` is open, `b` is being deleted, `c` is gone. Their regions follow each other.
    fn catalog() -> Catalog {
        let members = vec![NodeId(1)];
        let create = |name: &str| Command::CreateNamespace {
            name: name.to_owned(),
            mode: Mode::Strong,
            members: members.clone(),
            token: 0,
            settings: crate::settings::Settings::default(),
        };
        let delete = |name: &str| Command::DeleteNamespace { name: name.to_owned(), id: NamespaceId::META };
        let remove = Command::RemoveNamespace { id: NamespaceId(3) };
        let commands = [create("a"), create("b"), create("c"), delete("b"), delete("c"), remove];
        let mut data = begin_catalog();
        commands.iter().for_each(|command| data.extend_from_slice(&command.encode().bytes));
        let mut machine = Machine::new(State::default(), Catalog::default());
        machine.apply(&[Committed { index: 1, term: 1, data }]).unwrap();
        machine.catalog().clone()
    }

    fn region(number: u64) -> RegionId {
        RegionId(RegionId::FIRST_USER.0 + number)
    }

    #[test]
    fn each_holding_has_its_step() {
        let catalog = catalog();
        let (open, deleting) = (catalog.namespace("a").unwrap(), catalog.namespace("b").unwrap());
        let steps = |holding: Option<Holding>| {
            let regions = (0..4).map(region);
            let holdings = regions.filter_map(|region| Some((region, holding?))).collect();
            catalog.steps(&holdings)
        };
        let create = |namespace: &Namespace| (namespace.region, Step::Create(namespace.clone()));
        let start = |namespace: &Namespace| (namespace.region, Step::Start(namespace.clone()));
        assert_eq!(steps(None), [create(open), create(deleting)], "a region is closed by its own log");
        let stored = [start(open), start(deleting), (region(2), Step::DestroyLog)];
        assert_eq!(steps(Some(Holding::Stored)), stored, "the fourth is not given yet, and stays");
        assert_eq!(steps(Some(Holding::Running)), [(region(2), Step::End)]);
        assert_eq!(steps(Some(Holding::Creating)), []);
        assert_eq!(steps(Some(Holding::Installing)), []);
        assert_eq!(catalog.standing(region(0)), Standing::Named(open));
        assert_eq!(catalog.standing(region(2)), Standing::Gone);
        assert_eq!(catalog.standing(region(3)), Standing::NotYet);
        assert_eq!(catalog.standing(RegionId::META), Standing::NotYet, "it is not the catalog's affair");
        let gone: Vec<_> = (0..5).map(NamespaceId).filter(|id| catalog.is_gone(*id)).collect();
        assert_eq!(gone, [NamespaceId(3)]);
    }

    #[cfg(not(feature = "bug-removal-before-closing"))]
    #[test]
    fn only_what_is_closed_is_removed() {
        let catalog = catalog();
        let deleting: Vec<_> = catalog.deleting().map(|namespace| namespace.name.as_str()).collect();
        assert_eq!(deleting, ["b"]);
        assert_eq!(catalog.removable(|_| false).count(), 0);
        let removable: Vec<_> = catalog.removable(|_| true).collect();
        assert_eq!(removable, [NamespaceId(2)], "an open one is never removed, whatever its region says");
    }
}
