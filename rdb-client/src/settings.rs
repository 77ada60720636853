//! What a namespace is created with, besides its mode.

use rdb_proto::v1;
use std::fmt;

/// When a node acknowledges a write of an eventual namespace, where nothing but its own acknowledgement is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once the write is synced.
    #[default]
    Sync,
    /// At once; it is synced within some 50 ms. A power cut may lose it before, and a crash of the process.
    Periodic,
}

/// What a namespace is created with, besides its mode. It stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamespaceSettings {
    /// When eventual writes are acknowledged.
    pub durability: Durability,
    /// For how many seconds the values of lost eventual writes are kept, up to 30 days; 0: they are not.
    pub keep_lost_seconds: u64,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Durability::Sync => "sync",
            Durability::Periodic => "periodic",
        })
    }
}

impl From<v1::Durability> for Durability {
    fn from(durability: v1::Durability) -> Self {
        match durability {
            v1::Durability::Periodic => Durability::Periodic,
            v1::Durability::Sync | v1::Durability::Unspecified => Durability::Sync,
        }
    }
}

impl From<Durability> for v1::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Sync => v1::Durability::Sync,
            Durability::Periodic => v1::Durability::Periodic,
        }
    }
}
