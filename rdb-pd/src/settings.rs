//! What a namespace is asked for when it is created, besides its mode. It stays as it is. In strong mode nothing of it matters.

use rdb_core::codec::{Corrupt, Reader, put_varint};

/// The longest time for which lost writes are kept: 30 days.
pub const KEEP_LOST_SECONDS_MAX: u64 = 30 * 24 * 3600;

/// When an eventual write is acknowledged by the node that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Once it is synced.
    #[default]
    Sync,
    /// At once. It is synced a little later, and before it leaves the node.
    Periodic,
}

/// What a namespace was created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// When eventual writes are acknowledged.
    pub durability: Durability,
    /// For how long the values of lost writes are kept; 0: they are not.
    pub keep_lost_seconds: u64,
}

impl Settings {
    /// Says what is wrong with them, if anything is.
    ///
    /// # Errors
    /// The rule that they break, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        if KEEP_LOST_SECONDS_MAX < self.keep_lost_seconds {
            return Err(format!(
                "lost writes are kept for {KEEP_LOST_SECONDS_MAX} seconds at most, which is 30 days; this asks for {}",
                self.keep_lost_seconds
            ));
        }
        Ok(())
    }

    /// Adds them at the end of a record or command. What is as it is by default is left out, as it was before there were settings.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        if *self == Self::default() {
            return;
        }
        put_varint(out, self.keep_lost_seconds);
        out.push(match self.durability {
            Durability::Sync => 0,
            Durability::Periodic => 1,
        });
    }

    /// Reads what is left of a record or command.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Corrupt> {
        if reader.is_empty() {
            return Ok(Self::default());
        }
        let keep_lost_seconds = reader.varint()?;
        let durability = match reader.u8()? {
            0 => Durability::Sync,
            1 => Durability::Periodic,
            _ => {
                return Err(
                    reader.corrupt("a namespace's durability is not known to this version of FlareDB")
                );
            }
        };
        Ok(Self { durability, keep_lost_seconds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back_and_those_by_default_take_no_bytes() {
        for settings in [
            Settings::default(),
            Settings { durability: Durability::Periodic, keep_lost_seconds: 0 },
            Settings { durability: Durability::Sync, keep_lost_seconds: KEEP_LOST_SECONDS_MAX },
        ] {
            let mut bytes = Vec::new();
            settings.put(&mut bytes);
            assert_eq!(bytes.is_empty(), settings == Settings::default());
            assert_eq!(Settings::read(&mut Reader::new("test", &bytes)).unwrap(), settings);
            assert_eq!(settings.check(), Ok(()));
        }
        assert!(Settings::read(&mut Reader::new("test", &[1, 9])).is_err(), "a later one");
        let long = Settings { keep_lost_seconds: KEEP_LOST_SECONDS_MAX + 1, ..Settings::default() };
        assert!(long.check().is_err());
    }
}
