//! What the cluster consists of. Each item is a record of its own in the meta region, under a key that starts with a
//! letter: `c` counters, `n` a namespace by id, `s` a node (its store) by id.

use rdb_core::codec::{Corrupt, Reader, put_bytes, put_varint};
use rdb_core::ids::{Epoch, Era, NamespaceId, NodeId, RegionId};
use std::collections::BTreeMap;

const FORMAT: u8 = 1;
/// Of a namespace's record. Format 1 had neither stage nor token.
const FORMAT_NAMESPACE: u8 = 2;

/// How a namespace keeps its replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Linearizable, through Raft.
    Strong,
    /// Every replica accepts writes, and the highest version wins.
    Eventual,
}

impl Mode {
    pub(crate) fn to_byte(self) -> u8 {
        match self {
            Mode::Strong => 1,
            Mode::Eventual => 2,
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        match reader.u8()? {
            1 => Ok(Mode::Strong),
            2 => Ok(Mode::Eventual),
            _ => Err(reader.corrupt("a mode is not known to this version of FlareDB")),
        }
    }
}

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
    /// Its mode.
    pub mode: Mode,
    /// Grows whenever who may write changes.
    pub epoch: Epoch,
    /// Grows when a switch of mode completes.
    pub era: Era,
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
        if format != FORMAT && (kind, format) != (b'n', FORMAT_NAMESPACE) {
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
    out.push(namespace.mode.to_byte());
    put_varint(&mut out, namespace.epoch.0);
    put_varint(&mut out, u64::from(namespace.era.0));
    put_varint(&mut out, namespace.region.0);
    put_varint(&mut out, namespace.preferred_leader.0);
    put_varint(&mut out, namespace.members.len() as u64);
    namespace.members.iter().for_each(|member| put_varint(&mut out, member.0));
    out.push(match namespace.stage {
        Stage::Open => 1,
        Stage::Deleting => 2,
    });
    out.extend_from_slice(&namespace.token.to_be_bytes());
    out
}

fn decode_namespace(reader: &mut Reader<'_>, format: u8) -> Result<Namespace, Corrupt> {
    let id = NamespaceId(reader.varint32()?);
    let name =
        String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| reader.corrupt("a name is not text"))?;
    let mode = Mode::read(reader)?;
    let epoch = Epoch(reader.varint()?);
    let era = Era(reader.varint32()?);
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
    Ok(Namespace { id, name, mode, epoch, era, region, members, preferred_leader, token, stage })
}
