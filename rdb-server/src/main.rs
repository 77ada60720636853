//! `rdb-server`: one FlareDB node.

use clap::Parser as _;
use rdb_server::config::{Config, Flags};
use rdb_server::{Node, init_logging};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// RocksDB's too: it takes the place of the C library's.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A wrong configuration, an address in use, or a directory that must not be used.
const EXIT_REFUSED: u8 = 2;

fn main() -> ExitCode {
    match run(Flags::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr, reason = "whoever started the node reads this")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::from(EXIT_REFUSED)
        }
    }
}

fn run(flags: Flags) -> anyhow::Result<()> {
    #[cfg(feature = "failpoints")]
    rdb_server::crash_as_told()?;
    let config = Config::load(flags)?;
    init_logging(&config.log, config.log_format).map_err(anyhow::Error::msg)?;
    let node = Node::start(config)?;
    wait_for_signal()?;
    node.stop();
    Ok(())
}

/// Returns at SIGTERM or SIGINT.
fn wait_for_signal() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
