//! How much came of the inputs, for whoever runs the engine: the engine counts what it executes, and not what was accepted.

use std::path::PathBuf;

/// Between two times that the file is written.
const WRITTEN_EVERY: u64 = 1024;

/// Counts inputs, and writes the counts to a file now and then: the engine ends its process by itself.
#[derive(Debug, Default)]
pub struct Tally {
    /// Where to.
    file: Option<PathBuf>,
    executed: u64,
    accepted: u64,
}

impl Tally {
    /// One that writes to `file`, if it is given.
    pub fn to(file: Option<PathBuf>) -> Self {
        Self { file, ..Self::default() }
    }

    /// Takes note of an input.
    pub fn count(&mut self, accepted: bool) {
        self.executed += 1;
        self.accepted += u64::from(accepted);
        let is_first = accepted && self.accepted == 1;
        if (is_first || self.executed.is_multiple_of(WRITTEN_EVERY))
            && let Some(file) = &self.file
        {
            // Who reads it finds that too little was done.
            let _ = std::fs::write(file, format!("{} {}\n", self.executed, self.accepted));
        }
    }
}
