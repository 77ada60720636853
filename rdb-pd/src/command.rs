//! What can be asked of the catalog. Encoded, commands follow each other in one Raft entry, each with its length.

use crate::catalog::Namespace;
use crate::settings::Settings;
use rdb_core::codec::{Corrupt, Reader, put_bytes, put_varint};
use rdb_core::command::Encoded;
use rdb_core::ids::{NamespaceId, NodeId};
use rdb_core::switch::{Change, Mode, Refused};

/// The longest name of a namespace.
pub const NAME_BYTES_MAX: usize = 64;

const REMOVE_NAMESPACE: u8 = 8;
const CHANGE_MODE: u8 = 9;

/// A change to the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Makes a namespace with one region on all of `members`.
    CreateNamespace {
        /// A name that [`check_name`] lets pass.
        name: String,
        /// How it keeps its replicas.
        mode: Mode,
        /// The nodes of the cluster, at least one.
        members: Vec<NodeId>,
        /// Drawn by whoever asks, the same in each attempt; 0: none.
        token: u64,
        /// What else is asked of it.
        settings: Settings,
    },
    /// Begins to delete the namespace and all that it holds. Asked twice it is the same.
    DeleteNamespace {
        /// Which one.
        name: String,
        /// The id that it must have: by now another one may have the name. 0: any.
        id: NamespaceId,
    },
    /// Takes a namespace that is being deleted out of the catalog. Only who has seen its region closed may ask for it.
    RemoveNamespace {
        /// Which one: by now another one may have its name.
        id: NamespaceId,
    },
    /// Names the member that should lead a namespace.
    PreferLeader {
        /// Which namespace.
        name: String,
        /// Which member.
        node: NodeId,
    },
    /// Takes a step of a switch of a namespace's mode, if the namespace is still as it was when the step was thought of.
    ChangeMode {
        /// Which namespace: by now another one may have its name.
        id: NamespaceId,
        /// The step, and where it starts from.
        change: Change,
    },
    /// Remembers the directory with which a node first joined.
    RegisterNode {
        /// Which node.
        node: NodeId,
        /// Its directory.
        store_id: u64,
    },
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The namespace as it is now; an earlier attempt of the same request may have created it.
    Created(Namespace),
    /// Another request has created one of this name; nothing was changed.
    Exists(Namespace),
    /// The namespace, which is being deleted.
    Deleting(Namespace),
    /// The namespace as it was, before it left the catalog.
    Removed(Namespace),
    /// The namespace is not being deleted, so it cannot leave the catalog; nothing was changed.
    StillOpen(Namespace),
    /// There is none of this name or id; nothing was changed.
    NotFound,
    /// The namespace as it is now, with the leader that it should have.
    Preferred(Namespace),
    /// The node is not among the namespace's members, which are these; nothing was changed.
    NotAMember(Vec<NodeId>),
    /// The namespace as it is now, with the step taken.
    Changed(Namespace),
    /// The namespace as it is; the step was not taken.
    NotChanged(Namespace, Refused),
    /// The node is known by this directory.
    Registered,
    /// The node is known by another directory; nothing was changed.
    OtherStore {
        /// The directory that it is known by.
        store_id: u64,
    },
}

/// Says what is wrong with a namespace's name, if anything is.
///
/// # Errors
/// The rule that the name breaks, as a sentence.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || NAME_BYTES_MAX < name.len() {
        return Err(format!(
            "a namespace's name has 1 to {NAME_BYTES_MAX} bytes; this one has {}",
            name.len()
        ));
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.starts_with(plain) || !name.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.')) {
        return Err(
            "a namespace's name is made of a-z, 0-9, '-', '_' and '.', and starts with a letter or digit"
                .to_owned(),
        );
    }
    Ok(())
}

impl Command {
    /// The command as a proposal to the meta group.
    pub fn encode(&self) -> Encoded {
        let mut out = Vec::new();
        match self {
            Command::CreateNamespace { name, mode, members, token, settings } => {
                out.push(1);
                put_bytes(&mut out, name.as_bytes());
                out.push(mode.to_byte());
                put_varint(&mut out, members.len() as u64);
                members.iter().for_each(|member| put_varint(&mut out, member.0));
                out.extend_from_slice(&token.to_be_bytes());
                settings.put(&mut out);
            }
            Command::DeleteNamespace { name, id } => {
                out.push(2);
                put_bytes(&mut out, name.as_bytes());
                put_varint(&mut out, u64::from(id.0));
            }
            Command::RegisterNode { node, store_id } => {
                out.push(3);
                put_varint(&mut out, node.0);
                put_varint(&mut out, *store_id);
            }
            Command::PreferLeader { name, node } => {
                out.push(4);
                put_bytes(&mut out, name.as_bytes());
                put_varint(&mut out, node.0);
            }
            Command::RemoveNamespace { id } => {
                out.push(REMOVE_NAMESPACE);
                put_varint(&mut out, u64::from(id.0));
            }
            Command::ChangeMode { id, change } => {
                out.push(CHANGE_MODE);
                put_varint(&mut out, u64::from(id.0));
                put_bytes(&mut out, &change.encode());
            }
        }
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, &out);
        let stores = matches!(self, Command::CreateNamespace { .. } | Command::RegisterNode { .. });
        Encoded { bytes, count: 1, stores, strong_only: true, named: false }
    }

    /// Reads the next command of an entry.
    pub(crate) fn read(entry: &mut Reader<'_>) -> Result<Self, Corrupt> {
        let mut reader = Reader::new("a catalog command", entry.bytes()?);
        let command = match reader.u8()? {
            1 => {
                let name = read_name(&mut reader)?;
                let mode = Mode::read(&mut reader)?;
                let mut members = Vec::new();
                for _ in 0..reader.varint()? {
                    members.push(NodeId(reader.varint()?));
                }
                let (token, settings) = (reader.u64()?, Settings::read(&mut reader)?);
                Command::CreateNamespace { name, mode, members, token, settings }
            }
            2 => Command::DeleteNamespace {
                name: read_name(&mut reader)?,
                id: NamespaceId(reader.varint32()?),
            },
            3 => Command::RegisterNode { node: NodeId(reader.varint()?), store_id: reader.varint()? },
            4 => Command::PreferLeader { name: read_name(&mut reader)?, node: NodeId(reader.varint()?) },
            REMOVE_NAMESPACE => Command::RemoveNamespace { id: NamespaceId(reader.varint32()?) },
            CHANGE_MODE => Command::ChangeMode {
                id: NamespaceId(reader.varint32()?),
                change: Change::decode(reader.bytes()?)?,
            },
            _ => return Err(reader.corrupt("it is not known to this version of FlareDB")),
        };
        reader.finish()?;
        Ok(command)
    }
}

fn read_name(reader: &mut Reader<'_>) -> Result<String, Corrupt> {
    String::from_utf8(reader.bytes()?.to_vec()).map_err(|_| reader.corrupt("a name is not text"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Durability;
    use rdb_core::switch::{Descriptor, Step};

    #[test]
    fn commands_come_back() {
        let commands = [
            Command::CreateNamespace {
                name: "orders".to_owned(),
                mode: Mode::Strong,
                members: vec![NodeId(1), NodeId(300)],
                token: u64::MAX - 1,
                settings: Settings::default(),
            },
            Command::CreateNamespace {
                name: "carts".to_owned(),
                mode: Mode::Eventual,
                members: vec![NodeId(1)],
                token: 0,
                settings: Settings { durability: Durability::Periodic, keep_lost_seconds: 86_400 },
            },
            Command::DeleteNamespace { name: "orders".to_owned(), id: NamespaceId(u32::MAX) },
            Command::RegisterNode { node: NodeId(2), store_id: u64::MAX },
            Command::PreferLeader { name: "orders".to_owned(), node: NodeId(300) },
            Command::RemoveNamespace { id: NamespaceId(300) },
            Command::ChangeMode {
                id: NamespaceId(300),
                change: Descriptor::new(Mode::Eventual, [NodeId(1)]).change(Step::Seal { deadline_ms: 300 }),
            },
        ];
        let bytes: Vec<u8> = commands.iter().flat_map(|command| command.encode().bytes).collect();
        let mut reader = Reader::new("test", &bytes);
        for command in commands {
            assert_eq!(Command::read(&mut reader).unwrap(), command);
        }
        assert!(reader.is_empty());
    }

    #[test]
    fn names_that_would_confuse_are_refused() {
        for good in ["a", "orders", "eu-1.carts_v2", "0"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "Orders", "-x", ".x", "a b", "a/b", "é", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
