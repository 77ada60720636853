//! Switches of a namespace's mode, asked for and waited for over whatever goes on meanwhile.

use anyhow::{Context as _, Result, bail};
use rdb_client::{Client, Mode, SwitchEnd, SwitchOptions, SwitchStatus, WriteError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Switches on a healed cluster end in this time.
pub(crate) const END_LIMIT: Duration = Duration::from_secs(90);
/// A switch that was called off is begun again so often.
const TRIES_MAX: u32 = 5;

/// The mode that is not this one.
pub(crate) fn other(mode: Mode) -> Mode {
    match mode {
        Mode::Strong => Mode::Eventual,
        Mode::Eventual => Mode::Strong,
    }
}

/// The mode of an era: every switch that completes begins one.
pub(crate) fn mode_of(era: u32, first: Mode) -> Mode {
    if era % 2 == 1 { first } else { other(first) }
}

/// Begins a switch to the mode that the namespace is not in, as soon as it can be begun.
///
/// # Errors
/// It could not for so long.
pub(crate) async fn begin(
    client: &Client,
    name: &str,
    options: &SwitchOptions,
    limit: Duration,
) -> Result<SwitchStatus> {
    let deadline = Instant::now() + limit;
    loop {
        let error = match try_to_begin(client, name, options).await {
            Ok(begun) => return Ok(begun),
            Err(error) => error,
        };
        if deadline < Instant::now() {
            return Err(error.context(format!("for {limit:?} no switch of {name} could be begun")));
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// The same, tried once. A switch under way, whoever began it, will do.
pub(crate) async fn try_to_begin(
    client: &Client,
    name: &str,
    options: &SwitchOptions,
) -> Result<SwitchStatus> {
    let now = client.switch_status(name).await?;
    if now.is_switching() {
        return Ok(now);
    }
    match client.switch_mode(name, other(now.mode), options).await {
        Ok(begun) => Ok(begun),
        Err(WriteError::NotDone(error)) => bail!("it was refused: {error}"),
        // It may have begun: another look will tell.
        Err(WriteError::InDoubt(error) | WriteError::DoneHere(_, error)) => bail!("it is in doubt: {error}"),
    }
}

/// Waits until a switch has ended, also while nobody can be asked.
///
/// # Errors
/// It has not for so long.
pub(crate) async fn end_of(client: &Client, begun: &SwitchStatus, limit: Duration) -> Result<SwitchEnd> {
    let mut last = String::new();
    let ended = tokio::time::timeout(limit, async {
        loop {
            let show = |status: &SwitchStatus| last = format!("{}: {:?}", status.phase, status.blockers);
            match client.wait_for_switch(begun, show).await {
                Ok(end) => return end,
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
    });
    match ended.await {
        Ok(end) => Ok(end),
        Err(_) => bail!("switch {} of {} has not ended for {limit:?}: {last}", begun.switch, begun.name),
    }
}

/// Waits until all members say that they stand where the catalog stands, and returns that.
///
/// # Errors
/// They do not for so long.
pub(crate) async fn settled(client: &Client, name: &str, limit: Duration) -> Result<SwitchStatus> {
    let deadline = Instant::now() + limit;
    loop {
        let status = controlling(client, name).await;
        if let Ok(status) = &status
            && is_settled(status)
        {
            return Ok(status.clone());
        }
        if deadline < Instant::now() {
            let how = status.map_or_else(|error| format!("{error:#}"), |status| format!("{status:?}"));
            return Err(anyhow::anyhow!(how)).context(format!("members do not stand alike after {limit:?}"));
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Makes a namespace strong, once all is healed.
///
/// # Errors
/// Switches to strong were called off all the same.
pub(crate) async fn make_strong(client: &Client, name: &str) -> Result<()> {
    let mut reason = String::new();
    for _ in 0..TRIES_MAX {
        if settled(client, name, END_LIMIT).await?.mode == Mode::Strong {
            return Ok(());
        }
        let begun = begin(client, name, &SwitchOptions::default(), END_LIMIT).await?;
        reason = end_of(client, &begun, END_LIMIT).await?.reason;
    }
    match settled(client, name, END_LIMIT).await?.mode {
        Mode::Strong => Ok(()),
        Mode::Eventual => {
            bail!("{TRIES_MAX} switches to strong were called off though all is healed: {reason}")
        }
    }
}

/// How the namespace stands by the word of the node that drives switches.
async fn controlling(client: &Client, name: &str) -> Result<SwitchStatus> {
    for address in client.nodes() {
        match client.switch_status_at(&address, name).await {
            Ok(status) if status.controls => return Ok(status),
            Ok(_) | Err(_) => {}
        }
    }
    bail!("no node says that it drives switches")
}

fn is_settled(status: &SwitchStatus) -> bool {
    let stands = |member: &rdb_client::MemberStanding| {
        let said = member.said.as_ref();
        said.is_some_and(|said| (said.mode, said.era, said.epoch) == (status.mode, status.era, status.epoch))
    };
    !status.is_switching() && !status.members.is_empty() && status.members.iter().all(stands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_take_turns_with_the_eras() {
        let modes = (1..4).map(|era| mode_of(era, Mode::Eventual)).collect::<Vec<_>>();
        assert_eq!(modes, [Mode::Eventual, Mode::Strong, Mode::Eventual]);
        assert_eq!(mode_of(2, Mode::Strong), Mode::Eventual);
    }
}
