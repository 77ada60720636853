//! What eventual mode reads besides what the core does, for `rdb-fuzz`.

use super::gatekeeper::epochs_in;
use super::quarantine::Quarantine;
use super::set_aside::Place;

/// A gate's records, as they lie in the log.
pub fn gate_records(bytes: &[u8]) -> bool {
    epochs_in(Some(bytes)).is_ok()
}

/// What a region has set aside, as it lies in the log.
///
/// # Panics
/// What was read is not what is written for it.
pub fn quarantine(bytes: &[u8]) -> bool {
    let Ok(quarantine) = Quarantine::decode(bytes) else { return false };
    assert_eq!(Quarantine::decode(&quarantine.encode()).as_ref(), Ok(&quarantine));
    true
}

/// Where a client wants to go on with the list of it.
///
/// # Panics
/// What was read is not what is written for it.
pub fn quarantine_token(bytes: &[u8]) -> bool {
    let Ok(place) = Place::decode(bytes) else { return false };
    assert_eq!(Place::decode(&place.encode()), Ok(place));
    true
}
