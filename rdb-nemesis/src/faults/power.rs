//! Power cuts: all that was not synced is gone, on all nodes at one moment. Needs root.

use super::{Fault, Need, Striking};
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab};
use anyhow::Result;
use tokio::time::sleep;

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "power-cut",
    about: "the power of all nodes is cut at once, at any moment of their work; they start again (root only)",
    needs: &[Need::Disks],
    strike: |lab, dice| -> Striking<'_> { Box::pin(power_cut(lab, dice)) },
}];

async fn power_cut(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let leader = lab.leader().await?;
    // At another moment of the nodes' work each time.
    sleep(dice.millis(0..1_000)).await;
    lab.cluster.cut_power()?;
    let strike = lab.struck(leader, Bar::AllLost, "power cut of all nodes".to_owned());
    lab.undo(strike, Ok("the file systems were shut down and mounted again".to_owned())).await
}
