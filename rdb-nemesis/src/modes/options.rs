//! Which cases, and how large.

use clap::{Args, ValueEnum};

/// What can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// How far replicas are behind each other under a steady load, and how soon they are equal after a partition
    Converge,
    /// How soon a node that missed many writes has them, from the logs
    Away,
    /// Whether the lag that nodes tell is never smaller than the true one, and unknown where a peer is silent
    Honest,
    /// Strong and eventual namespaces side by side, under partitions
    Sides,
    /// What clients notice of switches on a healthy cluster
    Switch,
    /// Nodes killed in every phase of a switch, in both directions
    Phases,
    /// Switches under kills, pauses, partitions and clock steps: nothing acknowledged is lost
    Storm,
}

impl Case {
    /// As the command line has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Converge => "converge",
            Self::Away => "away",
            Self::Honest => "honest",
            Self::Sides => "sides",
            Self::Switch => "switch",
            Self::Phases => "phases",
            Self::Storm => "storm",
        }
    }
}

/// The options of `rdb-nemesis modes`.
#[derive(Debug, Clone, Default, Args)]
pub struct ModesArgs {
    /// Only this case; may be given more than once
    #[arg(long, value_enum)]
    pub only: Vec<Case>,
    /// What faults and clients draw from. Without it, one is drawn
    #[arg(long)]
    pub seed: Option<u64>,
    /// Small sizes, to see that all works: the bars are for the full ones
    #[arg(long)]
    pub quick: bool,
    /// converge: writes a second, over all nodes [default: 2000; quick: 300]
    #[arg(long)]
    pub rate: Option<u64>,
    /// converge: seconds of steady load [default: 30; quick: 5]
    #[arg(long)]
    pub seconds: Option<u64>,
    /// converge: partitions [default: 20; quick: 2]
    #[arg(long)]
    pub rounds: Option<u64>,
    /// converge: seconds of each [default: 30; quick: 3]
    #[arg(long)]
    pub cut_seconds: Option<u64>,
    /// away: writes that the node misses [default: 1000000; quick: 20000]
    #[arg(long)]
    pub away_writes: Option<u64>,
    /// honest: seconds of each of two cuts [default: 10; quick: 4]
    #[arg(long)]
    pub honest_seconds: Option<u64>,
    /// sides: partitions [default: 4; quick: 2]
    #[arg(long)]
    pub sides_rounds: Option<u64>,
    /// switch: switches, half of them each way [default: 100; quick: 6]
    #[arg(long)]
    pub switches: Option<u64>,
    /// storm: switches that are begun [default: 200; quick: 14]
    #[arg(long)]
    pub storm_switches: Option<u64>,
}

/// How large all is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) rate: u64,
    pub(super) seconds: u64,
    pub(super) rounds: u64,
    pub(super) cut_seconds: u64,
    pub(super) away_writes: u64,
    pub(super) honest_seconds: u64,
    pub(super) sides_rounds: u64,
    pub(super) switches: u64,
    pub(super) storm_switches: u64,
}

const FULL: Sizes = Sizes {
    rate: 2_000,
    seconds: 30,
    rounds: 20,
    cut_seconds: 30,
    away_writes: 1_000_000,
    honest_seconds: 10,
    sides_rounds: 4,
    switches: 100,
    storm_switches: 200,
};
const QUICK: Sizes = Sizes {
    rate: 300,
    seconds: 5,
    rounds: 2,
    cut_seconds: 3,
    away_writes: 20_000,
    honest_seconds: 4,
    sides_rounds: 2,
    switches: 6,
    storm_switches: 14,
};

impl ModesArgs {
    /// The cases that were asked for, in the order of their table.
    pub(super) fn cases(&self) -> Vec<Case> {
        let wanted = |case: &Case| self.only.is_empty() || self.only.contains(case);
        Case::value_variants().iter().copied().filter(wanted).collect()
    }

    pub(super) fn sizes(&self) -> Sizes {
        let whole = if self.quick { QUICK } else { FULL };
        Sizes {
            rate: self.rate.unwrap_or(whole.rate).max(1),
            seconds: self.seconds.unwrap_or(whole.seconds).max(1),
            rounds: self.rounds.unwrap_or(whole.rounds),
            cut_seconds: self.cut_seconds.unwrap_or(whole.cut_seconds).max(1),
            away_writes: self.away_writes.unwrap_or(whole.away_writes).max(1),
            honest_seconds: self.honest_seconds.unwrap_or(whole.honest_seconds).max(3),
            sides_rounds: self.sides_rounds.unwrap_or(whole.sides_rounds).max(1),
            switches: self.switches.unwrap_or(whole.switches).max(2),
            storm_switches: self.storm_switches.unwrap_or(whole.storm_switches).max(2),
        }
    }

    /// The command that does a case again.
    pub(super) fn again(&self, case: Case, seed: u64) -> String {
        let mut command = format!("scripts/verify-modes.sh --only {} --seed {seed}", case.name());
        if self.quick {
            command += " --quick";
        }
        let sizes = [
            ("rate", self.rate),
            ("seconds", self.seconds),
            ("rounds", self.rounds),
            ("cut-seconds", self.cut_seconds),
            ("away-writes", self.away_writes),
            ("honest-seconds", self.honest_seconds),
            ("sides-rounds", self.sides_rounds),
            ("switches", self.switches),
            ("storm-switches", self.storm_switches),
        ];
        for (name, size) in sizes {
            if let Some(size) = size {
                command += &format!(" --{name} {size}");
            }
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        modes: ModesArgs,
    }

    #[test]
    fn the_command_that_does_it_again_asks_for_the_same() {
        let line = ["x", "--quick", "--rounds", "7", "--away-writes", "9"];
        let asked = Command::parse_from(line).modes;
        assert_eq!(asked.cases().len(), Case::value_variants().len());
        let again = asked.again(Case::Away, 5);
        let words = again.split(' ').collect::<Vec<_>>();
        let parsed = Command::parse_from(words).modes;
        assert_eq!((parsed.seed, parsed.cases()), (Some(5), vec![Case::Away]));
        assert_eq!(parsed.sizes(), asked.sizes());
        assert_eq!(parsed.sizes(), Sizes { rounds: 7, away_writes: 9, ..QUICK });
    }
}
