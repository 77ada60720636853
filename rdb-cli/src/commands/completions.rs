//! `rdb completions`

use crate::args::Args;
use crate::output::Answer;
use clap::CommandFactory;

const EXAMPLES: &str = "Examples:
  rdb completions bash > ~/.local/share/bash-completion/completions/rdb
  rdb completions zsh > ~/.zfunc/_rdb            with fpath+=~/.zfunc before compinit in ~/.zshrc
  rdb completions fish > ~/.config/fish/completions/rdb.fish

Namespaces and nodes, which the cluster knows, are completed by rdb shell.";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub(crate) fn run(completions: &CompletionsArgs) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(completions.shell, &mut Args::command(), "rdb", &mut script);
    Answer::raw(script)
}
