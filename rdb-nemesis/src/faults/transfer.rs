//! Leaders that are told to hand over, again and again.

use super::{Fault, Striking};
use crate::cluster::NAMESPACE;
use crate::dice::Dice;
use crate::lab::{Bar, Evidence, Lab, seconds};
use anyhow::Result;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Between two transfers.
const EVERY: Duration = Duration::from_millis(500);

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "transfer-storm",
    about: "another leader is named every 500 ms, 3 to 7 s",
    needs: &[],
    strike: |lab, dice| -> Striking<'_> { Box::pin(storm(lab, dice)) },
}];

async fn storm(lab: &mut Lab, dice: &mut Dice) -> Result<Evidence> {
    let (first, lasts) = (lab.leader().await?, dice.millis(3_000..7_000));
    let mut strike = lab.struck(
        first,
        Bar::None,
        format!("another leader every {} ms for {}", EVERY.as_millis(), seconds(lasts)),
    );
    let (mut leader, mut moved, mut asked) = (first.node, 0, 0);
    let mut next = Instant::now();
    let end = next + lasts;
    while next < end {
        let to = dice.pick(&lab.cluster.others(&[leader]));
        asked += 1;
        if let Ok(Ok(_)) = timeout(EVERY, lab.client.move_leader(NAMESPACE, to)).await {
            moved += 1;
            leader = to;
        }
        next += EVERY;
        sleep_until(next).await;
    }
    strike.during = lab.cluster.leader_now().await;
    let term = strike.during.map_or(first.term, |during| during.term);
    let seen = if moved == 0 || term <= first.term {
        Err(format!("of {asked} transfers {moved} were done, from term {} to {term}", first.term))
    } else {
        Ok(format!("{moved} of {asked} transfers done, from term {} to {term}", first.term))
    };
    lab.undo(strike, seen).await
}
