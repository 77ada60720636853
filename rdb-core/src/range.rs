//! Ranges of keys, as range deletes and scans name them.

use std::collections::BTreeMap;
use std::ops::Bound;

/// The keys from `from` up to, and without, `to`. An empty `to` is the end of the namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Vec<u8>,
    /// The first key behind it.
    pub to: Vec<u8>,
}

impl KeyRange {
    /// All keys.
    pub fn all() -> Self {
        Self { from: Vec::new(), to: Vec::new() }
    }

    /// The keys that begin with `prefix`.
    pub fn of_prefix(prefix: &[u8]) -> Self {
        // A last byte that has no next one says nothing of the end: what comes after the prefix differs before it.
        let kept = prefix.iter().rposition(|byte| *byte != 0xff).map_or(0, |last| last + 1);
        let mut to = prefix[..kept].to_vec();
        if let Some(last) = to.last_mut() {
            *last += 1;
        }
        Self { from: prefix.to_vec(), to }
    }

    /// Whether no key can lie in it.
    pub fn is_empty(&self) -> bool {
        is_empty(&self.from, &self.to)
    }

    /// Whether `key` lies in it.
    pub fn contains(&self, key: &[u8]) -> bool {
        contains(&self.from, &self.to, key)
    }
}

/// Whether `key` lies in the range.
pub fn contains(from: &[u8], to: &[u8], key: &[u8]) -> bool {
    from <= key && is_before(key, to)
}

/// Whether no key can lie in the range.
pub fn is_empty(from: &[u8], to: &[u8]) -> bool {
    !is_before(from, to)
}

/// Whether `key` comes before the end `to`.
fn is_before(key: &[u8], to: &[u8]) -> bool {
    to.is_empty() || key < to
}

/// Ranges, joined where they touch: however many are added, a key is looked up in one step, and what is written in the
/// end is no more than it must be.
#[derive(Debug, Default)]
pub(crate) struct KeyRanges(BTreeMap<Vec<u8>, Vec<u8>>);

impl KeyRanges {
    /// Adds a range that is not empty.
    pub(crate) fn add(&mut self, from: &[u8], to: &[u8]) {
        let (mut from, mut to) = (from.to_vec(), to.to_vec());
        // One that begins before may reach up to this one.
        if let Some((first, end)) = self.0.range(..=from.clone()).next_back()
            && (end.is_empty() || from <= *end)
        {
            from.clone_from(first);
        }
        while let Some((next, end)) = self.0.range(from.clone()..).next()
            && (to.is_empty() || *next <= to)
        {
            let next = next.clone();
            to = if to.is_empty() || end.is_empty() { Vec::new() } else { to.max(end.clone()) };
            self.0.remove(&next);
        }
        self.0.insert(from, to);
    }

    /// Whether one of them has `key`.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let before = self.0.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back();
        before.is_some_and(|(_, to)| is_before(key, to))
    }

    /// All of them, in order.
    pub(crate) fn into_vec(self) -> Vec<KeyRange> {
        self.0.into_iter().map(|(from, to)| KeyRange { from, to }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..3)
    }

    #[test]
    fn a_range_ends_before_its_end_and_an_empty_end_is_none() {
        assert!(contains(b"a", b"b", b"a") && contains(b"a", b"b", b"az") && !contains(b"a", b"b", b"b"));
        assert!(contains(b"a", b"", b"\xff\xff") && !contains(b"b", b"", b"a"));
        assert!(is_empty(b"a", b"a") && is_empty(b"b", b"a") && !is_empty(b"", b"") && !is_empty(b"a", b""));
    }

    proptest! {
        #[test]
        fn a_prefix_has_the_keys_that_begin_so(prefix in key(), key in key(), more in key()) {
            let range = KeyRange::of_prefix(&prefix);
            prop_assert_eq!(range.contains(&key), key.starts_with(&prefix), "{:?}", range);
            prop_assert!(range.contains(&[&prefix[..], &more].concat()) && !range.is_empty());
        }

        #[test]
        fn joined_ranges_hold_the_keys_of_each_and_none_touches_another(
            ranges in prop::collection::vec((key(), key()), 0..12),
            keys in prop::collection::vec(key(), 0..20),
        ) {
            let ranges: Vec<_> = ranges.into_iter().filter(|(from, to)| !is_empty(from, to)).collect();
            let mut joined = KeyRanges::default();
            ranges.iter().for_each(|(from, to)| joined.add(from, to));
            for key in &keys {
                let expected = ranges.iter().any(|(from, to)| contains(from, to, key));
                prop_assert_eq!(joined.contains(key), expected, "{:?}", key);
            }
            let joined = joined.into_vec();
            for pair in joined.windows(2) {
                prop_assert!(!pair[0].to.is_empty() && pair[0].to < pair[1].from, "{:?}", joined);
            }
        }
    }
}
