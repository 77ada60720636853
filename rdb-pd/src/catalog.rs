//! What the cluster consists of. Each item is a record of its own in the meta region, under a key that starts with a
//! letter: `c` counters, `n` a namespace by id, `s` a node (its store) by id.

use crate::settings::Settings;
use rdb_core::codec::{Corrupt, Reader, put_bytes, put_varint};
use rdb_core::ids::{Epoch, Era, NamespaceId, NodeId, RegionId};
use rdb_core::switch::{Descriptor, Mode};
use std::collections::BTreeMap;
use std::sync::Arc;

const FORMAT: u8 = 1;
/// Of a namespace's record. Format 1 had neither stage nor token; up to format 2 a namespace kept the mode that it began with,
/// and had a mode, an epoch and an era instead of a descriptor. Settings stand at its end, where they are not those by default.
const FORMAT_NAMESPACE: u8 = 3;

/// Where a namespace is in its life. It goes one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is there to be used.
    Open,
    /// It takes no requests any more, and its name is not free yet: its region is to be closed by the region's own log, and
    /// then the namespace goes.
    Deleting,
}

/// A named key space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its id, never used twice.
    pub id: NamespaceId,
    /// Its name, unique among those that exist.
    pub name: String,
    /// The mode that it was created in: that of a replica which begins from nothing, at the beginning of the region's log.
    pub first_mode: Mode,
    /// Who may write, and how far a switch of its mode is. What mode a replica is in, its region's log says.
    pub descriptor: Arc<Descriptor>,
    /// Its one region; a strong namespace is not split.
    pub region: RegionId,
    /// The nodes that hold the region.
    pub members: Vec<NodeId>,
    /// The member that should lead it, so that leaders are spread.
    pub preferred_leader: NodeId,
    /// Of the request that created it, by which that request is known again; 0: it had none.
    pub token: u64,
    /// Where it is in its life.
    pub stage: Stage,
    /// What it was created with.
    pub settings: Settings,
}

impl Namespace {
    /// The mode of its era.
    pub fn mode(&self) -> Mode {
        self.descriptor.mode
    }

    /// Grows whenever who may write changes.
    pub fn epoch(&self) -> Epoch {
        self.descriptor.epoch
    }

    /// Grows when a switch of mode completes.
    pub fn era(&self) -> Era {
        self.descriptor.era
    }
}

/// A node as it first joined. A directory with another store id under the same node id has lost the node's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredNode {
    /// Drawn when its data directory was made.
    pub store_id: u64,
}

/// Everything that the meta group has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    pub(crate) next_namespace: NamespaceId,
    pub(crate) next_region: RegionId,
    pub(crate) namespaces: BTreeMap<NamespaceId, Namespace>,
    pub(crate) names: BTreeMap<String, NamespaceId>,
    pub(crate) nodes: BTreeMap<NodeId, RegisteredNode>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            next_namespace: NamespaceId(1),
            next_region: RegionId::FIRST_USER,
            namespaces: BTreeMap::new(),
            names: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }
}

impl Catalog {
    /// The namespace of this name, also while it is being deleted.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(self.names.get(name)?)
    }

    /// All namespaces, by id.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// The namespace of this id, if it is still there.
    pub fn namespace_of(&self, id: NamespaceId) -> Option<&Namespace> {
        self.namespaces.get(&id)
    }

    /// The node as it first joined; `None` if it never did.
    pub fn node(&self, node: NodeId) -> Option<&RegisteredNode> {
        self.nodes.get(&node)
    }

    /// The id that the next namespace will get: every smaller one was given before.
    pub fn next_namespace(&self) -> NamespaceId {
        self.next_namespace
    }

    /// The id that the next region will get: every smaller one was given before.
    pub fn next_region(&self) -> RegionId {
        self.next_region
    }

    pub(crate) fn counters_record(&self) -> (Vec<u8>, Vec<u8>) {
        let mut value = vec![FORMAT];
        put_varint(&mut value, u64::from(self.next_namespace.0));
        put_varint(&mut value, self.next_region.0);
        (b"c".to_vec(), value)
    }

    pub(crate) fn node_record(&self, node: NodeId) -> (Vec<u8>, Option<Vec<u8>>) {
        let value = self.nodes.get(&node).map(|registered| {
            let mut value = vec![FORMAT];
            put_varint(&mut value, registered.store_id);
            value
        });
        (key(b's', node.0), value)
    }

    pub(crate) fn namespace_record(&self, id: NamespaceId) -> (Vec<u8>, Option<Vec<u8>>) {
        let value = self.namespaces.get(&id).map(encode_namespace);
        (key(b'n', u64::from(id.0)), value)
    }

    /// Takes in one record, as it lies in the meta region.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Corrupt> {
        let mut at = Reader::new("a catalog key", key);
        let kind = at.u8()?;
        let mut reader = Reader::new("a catalog record", value);
        let format = reader.u8()?;
        let is_known = format == FORMAT || kind == b'n' && (FORMAT..=FORMAT_NAMESPACE).contains(&format);
        if !is_known {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        match kind {
            b'c' => {
                self.next_namespace = NamespaceId(reader.varint32()?);
                self.next_region = RegionId(reader.varint()?);
            }
            b'n' => {
                let namespace = decode_namespace(&mut reader, format)?;
                self.names.insert(namespace.name.clone(), namespace.id);
                self.namespaces.insert(namespace.id, namespace);
            }
            b's' => {
                let node = NodeId(at.u64()?);
                self.nodes.insert(node, RegisteredNode { store_id: reader.varint()? });
            }
            _ => return Err(at.corrupt("its kind is not known to this version of FlareDB")),
        }
        reader.finish()
    }
}

fn key(kind: u8, id: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&id.to_be_bytes());
    key
}

fn encode_namespace(namespace: &Namespace) -> Vec<u8> {
    let mut out = vec![FORMAT_NAMESPACE];
    put_varint(&mut out, u64::from(namespace.id.0));
    put_bytes(&mut out, namespace.name.as_bytes());
    out.push(namespace.first_mode.to_byte());
    put_bytes(&mut out, &namespace.descriptor.encode());
    put_varint(&mut out, namespace.region.0);
    put_varint(&mut out, namespace.preferred_leader.0);
    put_varint(&mut out, namespace.members.len() as u64);
    namespace.members.iter().for_each(|member| put_varint(&mut out, member.0));
    out.push(match namespace.stage {
        Stage::Open => 1,
        Stage::Deleting => 2,
    });
    out.extend_from_slice(&namespace.token.to_be_bytes());
    namespace.settings.put(&mut out);
    out
}

fn decode_namespace(reader: &mut Reader<'_>, format: u8) -> Result<Namespace, Corrupt> {
    let id = NamespaceId(reader.varint32()?);
    let name =
        String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| reader.corrupt("a name is not text"))?;
    let first_mode = Mode::read(reader)?;
    let described = match format {
        FORMAT_NAMESPACE => Described::Now(Descriptor::decode(reader.bytes()?)?),
        _ => Described::Before(Epoch(reader.varint()?), Era(reader.varint32()?)),
    };
    let region = RegionId(reader.varint()?);
    let preferred_leader = NodeId(reader.varint()?);
    let mut members = Vec::new();
    for _ in 0..reader.varint()? {
        members.push(NodeId(reader.varint()?));
    }
    let (stage, token) = match format {
        FORMAT => (Stage::Open, 0),
        _ => match reader.u8()? {
            1 => (Stage::Open, reader.u64()?),
            2 => (Stage::Deleting, reader.u64()?),
            _ => return Err(reader.corrupt("a namespace's stage is not known to this version of FlareDB")),
        },
    };
    let descriptor = Arc::new(match described {
        Described::Now(descriptor) => descriptor,
        Described::Before(epoch, era) => {
            Descriptor { epoch, era, ..Descriptor::new(first_mode, members.iter().copied()) }
        }
    });
    let settings = match format {
        FORMAT_NAMESPACE => Settings::read(reader)?,
        _ => Settings::default(),
    };
    Ok(Namespace {
        id,
        name,
        first_mode,
        descriptor,
        region,
        members,
        preferred_leader,
        token,
        stage,
        settings,
    })
}

/// What a record says of a namespace's mode.
enum Described {
    Now(Descriptor),
    Before(Epoch, Era),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of formats 1 and 2, as they were written then.
    fn old(format: u8, mode: Mode) -> Vec<u8> {
        let mut out = vec![format];
        put_varint(&mut out, 7);
        put_bytes(&mut out, b"carts");
        out.push(mode.to_byte());
        put_varint(&mut out, 3);
        put_varint(&mut out, 2);
        put_varint(&mut out, 22);
        put_varint(&mut out, 2);
        put_varint(&mut out, 3);
        (1..=3).for_each(|member| put_varint(&mut out, member));
        if format == 2 {
            out.push(2);
            out.extend_from_slice(&9u64.to_be_bytes());
        }
        out
    }

    #[test]
    fn what_was_written_before_there_were_switches_is_read() {
        for (format, mode, stage, token) in
            [(1, Mode::Strong, Stage::Open, 0), (2, Mode::Eventual, Stage::Deleting, 9)]
        {
            let mut catalog = Catalog::default();
            catalog.load(&key(b'n', 7), &old(format, mode)).unwrap();
            let members: Vec<NodeId> = (1..=3).map(NodeId).collect();
            let descriptor =
                Descriptor { epoch: Epoch(3), era: Era(2), ..Descriptor::new(mode, members.iter().copied()) };
            let expected = Namespace {
                id: NamespaceId(7),
                name: "carts".to_owned(),
                first_mode: mode,
                descriptor: Arc::new(descriptor),
                region: RegionId(22),
                members,
                preferred_leader: NodeId(2),
                token,
                stage,
                settings: Settings::default(),
            };
            assert_eq!(catalog.namespace("carts"), Some(&expected));
            // And is written as it is written today.
            let (key, value) = catalog.namespace_record(NamespaceId(7));
            let mut again = Catalog::default();
            again.load(&key, &value.unwrap()).unwrap();
            assert_eq!(again.namespace("carts"), Some(&expected));
        }
        let later = [&[FORMAT_NAMESPACE + 1], &old(2, Mode::Strong)[1..]].concat();
        assert!(Catalog::default().load(&key(b'n', 7), &later).is_err());
        assert!(Catalog::default().load(&key(b's', 7), &[2, 1]).is_err(), "of a node there is one format");
    }
}
