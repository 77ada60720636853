//! The meta region's state machine: committed entries in, records and answers out. The same rules as for
//! `rdb_core::apply` hold: deterministic, and what a command gets wrong is an answer.

use crate::catalog::{Catalog, Namespace, RegisteredNode, Stage};
use crate::command::{Answer, Command};
use crate::placement;
use rdb_core::apply::{Changes, Committed, State};
use rdb_core::codec::{Corrupt, Reader};
use rdb_core::command::Payload;
use rdb_core::coverage::{Branch, reached};
use rdb_core::ids::{NamespaceId, NodeId, RegionId};
use rdb_core::switch::{Change, Descriptor};
use std::sync::Arc;

/// The catalog, and how much of the log it reflects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    state: State,
    catalog: Catalog,
}

/// What came of applying some entries.
#[derive(Debug)]
pub struct Applied {
    /// What is to be written to the meta region, in one batch.
    pub changes: Changes,
    /// For each entry, the answers to its commands, in order.
    pub answers: Vec<Vec<Answer>>,
}

impl Machine {
    /// A machine that carries on from what was stored.
    pub fn new(state: State, catalog: Catalog) -> Self {
        Self { state, catalog }
    }

    /// Where the machine stands.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The catalog as it stands.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Applies `entries`, which follow the last one applied.
    ///
    /// # Errors
    /// An entry cannot be decoded. Then nothing may be written, and the machine is spent.
    pub fn apply(&mut self, entries: &[Committed]) -> Result<Applied, Corrupt> {
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            self.state.advance(entry);
            answers.push(self.apply_entry(entry, &mut records)?);
        }
        let changes = Changes { records, state: self.state.encode(), ..Changes::default() };
        Ok(Applied { changes, answers })
    }

    fn apply_entry(&mut self, entry: &Committed, records: &mut Records) -> Result<Vec<Answer>, Corrupt> {
        match Payload::decode(&entry.data)? {
            Payload::Empty => Ok(Vec::new()),
            Payload::Truncate(index) => {
                self.state.truncate_to = self.state.truncate_to.max(index.min(entry.index));
                Ok(Vec::new())
            }
            Payload::Catalog(bytes) => {
                let mut reader = Reader::new("an entry of the catalog", bytes);
                let mut answers = Vec::new();
                while !reader.is_empty() {
                    answers.push(self.execute(Command::read(&mut reader)?, records));
                }
                Ok(answers)
            }
            Payload::Keys { .. } => {
                Err(Corrupt { what: "a log entry", problem: "commands on keys in the meta region" })
            }
            Payload::Close => Err(Corrupt { what: "a log entry", problem: "the end of the meta region" }),
            Payload::Marker(_) => Err(Corrupt { what: "a log entry", problem: "a mode for the meta region" }),
        }
    }

    fn execute(&mut self, command: Command, records: &mut Records) -> Answer {
        match command {
            Command::CreateNamespace { name, mode, members, token, settings } => {
                if let Some(existing) = self.catalog.namespace(&name).cloned() {
                    reached(Branch::CatalogCreatedTwice);
                    let is_own = token != 0 && existing.token == token && existing.stage == Stage::Open;
                    return if is_own { Answer::Created(existing) } else { Answer::Exists(existing) };
                }
                let Some(preferred_leader) = placement::preferred_leader(&self.catalog, &members) else {
                    return Answer::NotFound;
                };
                let catalog = &mut self.catalog;
                let (id, region) = (catalog.next_namespace, catalog.next_region);
                catalog.next_namespace = NamespaceId(id.0 + 1);
                catalog.next_region = RegionId(region.0 + 1);
                let descriptor = Arc::new(Descriptor::new(mode, members.iter().copied()));
                let namespace = Namespace {
                    id,
                    name: name.clone(),
                    first_mode: mode,
                    descriptor,
                    region,
                    members,
                    preferred_leader,
                    token,
                    stage: Stage::Open,
                    settings,
                };
                catalog.names.insert(name, id);
                catalog.namespaces.insert(id, namespace.clone());
                let (key, value) = catalog.counters_record();
                records.push((key, Some(value)));
                records.push(catalog.namespace_record(id));
                Answer::Created(namespace)
            }
            Command::DeleteNamespace { name, id } => self.begin_deletion(&name, id, records),
            Command::RemoveNamespace { id } => self.remove(id, records),
            Command::ChangeMode { id, change } => self.change_mode(id, &change, records),
            Command::PreferLeader { name, node } => self.prefer_leader(&name, node, records),
            Command::RegisterNode { node, store_id } => match self.catalog.nodes.get(&node) {
                Some(known) if known.store_id == store_id => Answer::Registered,
                Some(known) => Answer::OtherStore { store_id: known.store_id },
                None => {
                    self.catalog.nodes.insert(node, RegisteredNode { store_id });
                    records.push(self.catalog.node_record(node));
                    Answer::Registered
                }
            },
        }
    }

    /// From here on nobody serves the namespace who knows of this. Its name stays taken, and its region named, until the
    /// region's own log has closed it.
    fn begin_deletion(&mut self, name: &str, meant: NamespaceId, records: &mut Records) -> Answer {
        let catalog = &mut self.catalog;
        let is_meant = |id: &NamespaceId| meant == NamespaceId::META || meant == *id;
        let id = catalog.names.get(name).copied().filter(is_meant);
        let namespace = id.and_then(|id| catalog.namespaces.get_mut(&id));
        let Some(namespace) = namespace else { return Answer::NotFound };
        if namespace.stage == Stage::Deleting {
            reached(Branch::CatalogDeletedTwice);
            return Answer::Deleting(namespace.clone());
        }
        namespace.stage = Stage::Deleting;
        let changed = namespace.clone();
        records.push(self.catalog.namespace_record(changed.id));
        Answer::Deleting(changed)
    }

    fn remove(&mut self, id: NamespaceId, records: &mut Records) -> Answer {
        match self.catalog.namespaces.remove(&id) {
            None => {
                reached(Branch::CatalogRemovedTwice);
                Answer::NotFound
            }
            Some(namespace) if namespace.stage == Stage::Open => {
                self.catalog.namespaces.insert(id, namespace.clone());
                Answer::StillOpen(namespace)
            }
            Some(namespace) => {
                self.catalog.names.remove(&namespace.name);
                records.push(self.catalog.namespace_record(id));
                Answer::Removed(namespace)
            }
        }
    }

    /// One step of a switch. Two who propose one at the same time, or one twice, change one thing: the other's step does not
    /// follow on what is there by then.
    fn change_mode(&mut self, id: NamespaceId, change: &Change, records: &mut Records) -> Answer {
        let Some(namespace) = self.catalog.namespaces.get_mut(&id) else { return Answer::NotFound };
        if namespace.stage == Stage::Deleting {
            return Answer::Deleting(namespace.clone());
        }
        match namespace.descriptor.apply(change) {
            Ok(descriptor) => namespace.descriptor = Arc::new(descriptor),
            Err(refused) => return Answer::NotChanged(namespace.clone(), refused),
        }
        let changed = namespace.clone();
        records.push(self.catalog.namespace_record(id));
        Answer::Changed(changed)
    }

    fn prefer_leader(&mut self, name: &str, node: NodeId, records: &mut Records) -> Answer {
        let catalog = &mut self.catalog;
        let id = catalog.names.get(name).copied();
        let namespace = id.and_then(|id| catalog.namespaces.get_mut(&id));
        let Some(namespace) = namespace.filter(|namespace| namespace.stage == Stage::Open) else {
            return Answer::NotFound;
        };
        if !namespace.members.contains(&node) {
            return Answer::NotAMember(namespace.members.clone());
        }
        namespace.preferred_leader = node;
        let changed = namespace.clone();
        records.push(self.catalog.namespace_record(changed.id));
        Answer::Preferred(changed)
    }
}

type Records = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Durability, Settings};
    use rdb_core::command::begin_catalog;
    use rdb_core::ids::{Epoch, Era};
    use rdb_core::switch::{Mode, Phase, Refused, Step};

    fn create(name: &str) -> Command {
        create_as(name, 0)
    }

    fn create_as(name: &str, token: u64) -> Command {
        let members = vec![NodeId(1), NodeId(2), NodeId(3)];
        let (name, settings) = (name.to_owned(), Settings::default());
        Command::CreateNamespace { name, mode: Mode::Strong, members, token, settings }
    }

    fn delete(name: &str) -> Command {
        Command::DeleteNamespace { name: name.to_owned(), id: NamespaceId::META }
    }

    fn entry(index: u64, commands: &[Command]) -> Committed {
        let mut data = begin_catalog();
        commands.iter().for_each(|command| data.extend_from_slice(&command.encode().bytes));
        Committed { index, term: 1, data }
    }

    #[test]
    fn namespaces_get_ids_that_are_never_used_twice() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        let remove = Command::RemoveNamespace { id: NamespaceId(1) };
        let commands = [create("a"), create("a"), delete("a"), remove, create("a")];
        let applied = machine.apply(&[entry(1, &commands)]).unwrap();
        let [Answer::Created(first), Answer::Exists(_), _, Answer::Removed(_), Answer::Created(second)] =
            &applied.answers[0][..]
        else {
            panic!("{:?}", applied.answers);
        };
        assert!(first.id < second.id && first.region < second.region);
    }

    /// The steps may come again and late, since whoever takes them may have been overtaken by another one.
    #[test]
    fn a_deletion_begins_keeps_the_name_and_ends_once() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        let remove = |id| Command::RemoveNamespace { id: NamespaceId(id) };
        let prefer = Command::PreferLeader { name: "a".to_owned(), node: NodeId(2) };
        let commands = [create("a"), remove(1), delete("a"), delete("a"), create("a"), prefer];
        let applied = machine.apply(&[entry(1, &commands)]).unwrap();
        let [_, Answer::StillOpen(open), Answer::Deleting(once), Answer::Deleting(again), exists, prefers] =
            &applied.answers[0][..]
        else {
            panic!("{:?}", applied.answers);
        };
        assert_eq!((open.stage, once.stage), (Stage::Open, Stage::Deleting));
        assert_eq!((again, exists, prefers), (once, &Answer::Exists(once.clone()), &Answer::NotFound));
        // The one that comes late must not touch the next one of the name.
        let late = Command::DeleteNamespace { name: "a".to_owned(), id: NamespaceId(1) };
        let commands = [remove(1), create("a"), remove(1), delete("b"), late];
        let applied = machine.apply(&[entry(2, &commands)]).unwrap();
        let [Answer::Removed(_), Answer::Created(next), Answer::NotFound, Answer::NotFound, Answer::NotFound] =
            &applied.answers[0][..]
        else {
            panic!("{:?}", applied.answers);
        };
        assert_eq!(machine.catalog().namespace("a"), Some(next));
    }

    #[test]
    fn a_request_knows_its_own_namespace_again() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        let commands = [create_as("a", 7), create_as("a", 7), create_as("a", 8), create("a")];
        let applied = machine.apply(&[entry(1, &commands)]).unwrap();
        let [Answer::Created(first), Answer::Created(again), Answer::Exists(_), Answer::Exists(_)] =
            &applied.answers[0][..]
        else {
            panic!("{:?}", applied.answers);
        };
        assert_eq!(first, again);
        let records = applied.changes.records;
        assert_eq!(records.len(), 2, "what was there already is not written again");
        // And so does a node that reads the catalog from its disk.
        let mut catalog = Catalog::default();
        for (key, value) in records {
            catalog.load(&key, &value.unwrap()).unwrap();
        }
        let mut machine = Machine::new(*machine.state(), catalog);
        let applied = machine.apply(&[entry(2, &[create_as("a", 7), create_as("a", 8)])]).unwrap();
        assert!(matches!(applied.answers[0][..], [Answer::Created(_), Answer::Exists(_)]));
    }

    fn begin() -> Step {
        Step::Begin { excluded: [].into(), deadline_ms: 7, write_pause_ms_max: 8 }
    }

    fn change(machine: &Machine, name: &str, step: Step) -> Command {
        let namespace = machine.catalog().namespace(name).unwrap();
        Command::ChangeMode { id: namespace.id, change: namespace.descriptor.change(step) }
    }

    #[test]
    fn a_switch_goes_step_by_step_and_a_step_that_comes_twice_does_nothing() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        machine.apply(&[entry(1, &[create("a")])]).unwrap();
        let mut stored = std::collections::BTreeMap::new();
        for (index, step) in [(2, begin()), (3, Step::Flip), (4, Step::Finish)] {
            let command = change(&machine, "a", step);
            let applied = machine.apply(&[entry(index, &[command.clone(), command])]).unwrap();
            let [Answer::Changed(now), Answer::NotChanged(then, Refused::MovedOn)] = &applied.answers[0][..]
            else {
                panic!("{:?}", applied.answers);
            };
            assert_eq!(now, then);
            assert_eq!(machine.catalog().namespace("a"), Some(now));
            stored.extend(applied.changes.records);
        }
        let now = machine.catalog().namespace("a").unwrap();
        assert_eq!((now.mode(), now.epoch(), now.era()), (Mode::Eventual, Epoch(2), Era(2)));
        assert_eq!(now.first_mode, Mode::Strong, "the log of the region begins with it");
        let mut catalog = Catalog::default();
        stored.into_iter().for_each(|(key, value)| catalog.load(&key, &value.unwrap()).unwrap());
        assert_eq!(catalog.namespace("a"), Some(now));
    }

    #[test]
    fn of_two_who_begin_a_switch_one_does() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        machine.apply(&[entry(1, &[create("a")])]).unwrap();
        let (one, other) = (change(&machine, "a", begin()), change(&machine, "a", begin()));
        let applied = machine.apply(&[entry(2, &[one, other])]).unwrap();
        assert!(matches!(applied.answers[0][..], [Answer::Changed(_), Answer::NotChanged(..)]));
        assert_eq!(machine.catalog().switching().count(), 1);
        let aborted = machine.apply(&[entry(3, &[change(&machine, "a", Step::Abort)])]).unwrap();
        let [Answer::Changed(aborted)] = &aborted.answers[0][..] else { panic!("{aborted:?}") };
        assert_eq!((aborted.epoch(), aborted.descriptor.phase), (Epoch(2), Phase::Settled));
        assert_eq!(machine.catalog().switching().count(), 0);
    }

    #[test]
    fn a_namespace_that_is_being_deleted_or_gone_does_not_switch() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        machine.apply(&[entry(1, &[create("a")])]).unwrap();
        let begins = change(&machine, "a", begin());
        machine.apply(&[entry(2, &[begins])]).unwrap();
        let seals = change(&machine, "a", Step::Flip);
        let applied = machine.apply(&[entry(3, &[delete("a"), seals.clone()])]).unwrap();
        assert!(matches!(applied.answers[0][..], [Answer::Deleting(_), Answer::Deleting(_)]));
        assert_eq!(machine.catalog().switching().count(), 0, "nobody drives it any more");
        let remove = Command::RemoveNamespace { id: NamespaceId(1) };
        let applied = machine.apply(&[entry(4, &[remove, seals])]).unwrap();
        assert!(matches!(applied.answers[0][..], [Answer::Removed(_), Answer::NotFound]));
    }

    #[test]
    fn leaders_are_spread() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        let names: Vec<_> = (0..6).map(|n| create(&format!("n{n}"))).collect();
        machine.apply(&[entry(1, &names)]).unwrap();
        let leaders: Vec<_> = machine.catalog().namespaces().map(|ns| ns.preferred_leader.0).collect();
        assert_eq!(leaders, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn the_preferred_leader_is_a_member() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        let prefer = |name: &str, node| Command::PreferLeader { name: name.to_owned(), node: NodeId(node) };
        let commands = [create("a"), prefer("a", 3), prefer("a", 4), prefer("b", 1)];
        let applied = machine.apply(&[entry(1, &commands)]).unwrap();
        assert!(
            matches!(&applied.answers[0][1], Answer::Preferred(now) if now.preferred_leader == NodeId(3))
        );
        assert_eq!(applied.answers[0][2], Answer::NotAMember(vec![NodeId(1), NodeId(2), NodeId(3)]));
        assert_eq!(applied.answers[0][3], Answer::NotFound);
        assert_eq!(machine.catalog().namespace("a").unwrap().preferred_leader, NodeId(3));
    }

    #[test]
    fn a_node_with_another_directory_is_not_the_same_node() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        let register = |store_id| Command::RegisterNode { node: NodeId(1), store_id };
        let applied = machine.apply(&[entry(1, &[register(7), register(7), register(8)])]).unwrap();
        assert_eq!(
            applied.answers[0],
            [Answer::Registered, Answer::Registered, Answer::OtherStore { store_id: 7 }]
        );
    }

    #[test]
    fn the_catalog_comes_back_from_its_records() {
        let mut machine = Machine::new(State::default(), Catalog::default());
        let register = Command::RegisterNode { node: NodeId(1), store_id: 7 };
        let gone = [delete("b"), Command::RemoveNamespace { id: NamespaceId(2) }];
        let commands = [create("a"), create("b"), register, create("c"), delete("c")];
        let applied = machine.apply(&[entry(1, &[&commands[..], &gone].concat())]).unwrap();
        let mut stored = std::collections::BTreeMap::new();
        for (key, value) in applied.changes.records {
            stored.insert(key, value);
        }
        let mut catalog = Catalog::default();
        for (key, value) in stored {
            if let Some(value) = value {
                catalog.load(&key, &value).unwrap();
            }
        }
        assert_eq!(&catalog, machine.catalog());
        assert_eq!(catalog.namespace("c").map(|namespace| namespace.stage), Some(Stage::Deleting));
    }

    #[test]
    fn what_a_namespace_was_created_with_stays_as_it_is() {
        let settings = Settings { durability: Durability::Periodic, keep_lost_seconds: 3600 };
        let members = vec![NodeId(1), NodeId(2), NodeId(3)];
        let name = "carts".to_owned();
        let command = Command::CreateNamespace { name, mode: Mode::Eventual, members, token: 7, settings };
        let mut machine = Machine::new(State::default(), Catalog::default());
        let applied = machine.apply(&[entry(1, &[command])]).unwrap();
        let Answer::Created(created) = &applied.answers[0][0] else { panic!("{:?}", applied.answers) };
        assert_eq!(created.settings, settings);
        let mut stored = Catalog::default();
        for (key, value) in &applied.changes.records {
            stored.load(key, value.as_ref().unwrap()).unwrap();
        }
        assert_eq!(&stored, machine.catalog());
    }
}
