//! A counter's last number is as many as the transactions that counted it up: those acknowledged, and at most as many more
//! as are in doubt. That none was counted over another is for `linearizable` to see.

use super::{Finding, final_reads};
use crate::history::{Call, Entry, Outcome};
use crate::workloads::number_in;
use std::collections::BTreeMap;

const NAME: &str = "counter";

pub(super) fn check(history: &[Entry]) -> Finding {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for entry in history.iter().filter(|entry| entry.workload == NAME && matches!(entry.call, Call::Cas(_))) {
        let (acknowledged, in_doubt) = counts.entry(&entry.key).or_default();
        *acknowledged += u64::from(entry.is_acknowledged_write());
        *in_doubt += u64::from(entry.is_unknown());
    }
    let mut total = 0;
    for (key, (acknowledged, in_doubt)) in counts {
        let mut reads = 0;
        for read in final_reads(history).filter(|read| read.key == key) {
            let Outcome::Found { value, .. } = &read.outcome else { continue };
            let number = value.as_deref().map_or(Some(0), number_in);
            let number = number.ok_or_else(|| format!("{key} holds no number: {value:?}"))?;
            if !(acknowledged..=acknowledged + in_doubt).contains(&number) {
                return Err(format!(
                    "{key} is {number} at node {}, after {acknowledged} acknowledged transactions and {in_doubt} in doubt",
                    read.node.unwrap_or(0)
                ));
            }
            reads += 1;
        }
        if reads == 0 {
            return Err(format!("{key} was counted up, and no final read looked at it"));
        }
        total += acknowledged;
    }
    Ok(format!("{total} acknowledged transactions"))
}
