//! One `rdb-server` process.

use super::host::Host;
use super::preload::Preload;
use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A node that is asked to stop has this long.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// What a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time on processors, in its own code and in the kernel's.
    pub(crate) processor: Duration,
    /// Memory that it holds now.
    pub(crate) resident_bytes: u64,
}

/// A running process, killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a node with this configuration file, and these libraries, on its host where it has one. What it says is added to `log`.
    pub(super) fn start<'a>(
        server: &Path,
        host: Option<&Host>,
        config: &Path,
        log: &Path,
        preloads: impl Iterator<Item = &'a Preload>,
    ) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let mut command = host.map_or_else(|| Command::new(server), |host| host.command(server));
        Preload::give_to(preloads, &mut command);
        let child = command
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {}", server.display()))?;
        Ok(Self { child })
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that it runs, as the kernel says.
    pub(crate) fn executable(&self) -> Result<PathBuf> {
        Ok(std::fs::read_link(format!("/proc/{}/exe", self.id()))?)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot send a signal to a node")
    }

    /// Whether the kernel says that it is stopped.
    pub(crate) fn is_stopped(&self) -> Result<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The state follows the name, which is in parentheses and may hold anything.
        Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// What it has used so far, as the kernel says.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let read = |what: &str| {
            let path = format!("/proc/{}/{what}", self.child.id());
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        Ok(Usage {
            processor: processor_time(&read("stat")?).context("/proc/PID/stat holds no times")?,
            resident_bytes: resident_bytes(&read("status")?).context("/proc/PID/status has no VmRSS")?,
        })
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Ends it at once, as a crash would, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            sleep(LOOK_INTERVAL).await;
        }
        anyhow::bail!("a node that was asked to stop still runs after {} s", STOP_PATIENCE.as_secs())
    }

    fn end(&mut self) {
        // SIGKILL works on a stopped process, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn processor_time(stat: &str) -> Option<Duration> {
    // The name, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_micros((user + system) * 1_000_000 / ticks_per_second.max(1)))
}

pub(super) fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        assert_eq!(processor_time(stat), Some(Duration::from_secs(300) / ticks));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t  1024 kB\nThreads:\t3\n"), Some(1 << 20));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        assert!(resident_bytes(&own).is_some());
    }
}
