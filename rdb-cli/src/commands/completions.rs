//! `rdb completions`

use crate::args::Args;
use crate::output::Answer;
use clap::CommandFactory;

#[derive(Debug, clap::Args)]
pub(crate) struct CompletionsArgs {
    /// For bash: rdb completions bash > ~/.local/share/bash-completion/completions/rdb
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn run(completions: &CompletionsArgs) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Args::command(), "rdb", &mut script);
    Answer::raw(script)
}
