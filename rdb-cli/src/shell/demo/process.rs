//! A node's files and its process, as `scripts/lib/cluster.sh` treats them.

use crate::exit::{Class, Failure};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// For a process to end.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// For a process to notice a signal.
const SIGNAL_WAIT: Duration = Duration::from_secs(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// For a page of a node.
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines of its log that are shown of a node that did not start.
const LOG_LINES: usize = 8;

/// Where a node's things are.
pub(super) struct NodeFiles {
    pub(super) config: PathBuf,
    pid: PathBuf,
    log: PathBuf,
}

/// A node's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up(i32),
    Paused(i32),
    Down,
}

impl NodeFiles {
    pub(super) fn new(folder: &Path, node: u64) -> Self {
        let file = |kind: &str| folder.join(format!("node-{node}.{kind}"));
        Self { config: file("toml"), pid: file("pid"), log: file("log") }
    }

    /// A pid alone may have gone to another program since: the process also names this node's configuration.
    pub(super) fn state(&self) -> State {
        let pid = std::fs::read_to_string(&self.pid).ok().and_then(|pid| pid.trim().parse().ok());
        let Some(pid) = pid.filter(|pid| self.is_of_node(*pid)) else { return State::Down };
        match letter(pid) {
            Some('T' | 't') => State::Paused(pid),
            Some('Z' | 'X') | None => State::Down,
            Some(_) => State::Up(pid),
        }
    }

    /// Waits until a signal has shown its effect, or long enough.
    pub(super) async fn until(&self, shown: impl Fn(State) -> bool) {
        let deadline = Instant::now() + SIGNAL_WAIT;
        while !shown(self.state()) && Instant::now() < deadline {
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn is_of_node(&self, pid: i32) -> bool {
        let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let own = self.config.canonicalize().ok();
        let is_own = |word: &[u8]| {
            let word = Path::new(std::str::from_utf8(word).unwrap_or_default());
            word.file_name() == self.config.file_name() && word.canonicalize().ok() == own
        };
        own.is_some() && command_line.split(|byte| *byte == 0).any(is_own)
    }

    /// Starts the node's process, in a session of its own so that Ctrl-C here does not reach it. Returns its pid.
    pub(super) fn start(&self, server: &Path, node: u64) -> Result<i32, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(
                Class::NotDone,
                format!("node {node} cannot be started with {}: {error}", server.display()),
            )
        };
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut child = Command::new("setsid")
            .arg(server)
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let pid = child.id();
        std::fs::write(&self.pid, format!("{pid}\n")).map_err(failed)?;
        // Somebody must take note of its end, or it stays behind as a zombie for as long as this shell runs.
        let reaper = std::thread::Builder::new().name(format!("node-{node}"));
        reaper.spawn(move || drop(child.wait())).map_err(failed)?;
        Ok(pid.cast_signed())
    }

    /// Waits until the node is ready, or for so long. Returns why it is not ready yet.
    pub(super) async fn until_ready(
        &self,
        http_address: &str,
        wait: Duration,
        node: u64,
    ) -> Result<Option<String>, Failure> {
        let deadline = Instant::now() + wait;
        // Until it has become the server, the new process does not pass for the node's.
        let mut seen = false;
        loop {
            let runs = self.state() != State::Down;
            seen |= runs;
            let why = match page(http_address, "/readyz").await {
                Some((200, _)) if runs => return Ok(None),
                Some((_, why)) => why.trim().to_owned(),
                None => "it does not answer".to_owned(),
            };
            if seen && !runs {
                let message =
                    format!("node {node} stopped while starting; the end of its log:\n{}", self.log_end());
                return Err(Failure::new(Class::NotDone, message));
            }
            if deadline <= Instant::now() {
                return Ok(Some(why));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn log_end(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

/// The state of a process, as the kernel names it.
fn letter(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; the state stands behind its closing bracket.
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(super) fn signal(pid: i32, signal: Signal, node: u64) -> Result<(), Failure> {
    let sent = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH).and_then(|pid| kill_process(pid, signal));
    sent.map_err(|error| {
        Failure::new(Class::NotDone, format!("node {node} (pid {pid}) takes no signal: {error}"))
    })
}

/// Waits for the end of a process: its sockets are closed only when its last thread is over.
pub(super) async fn until_gone(pid: i32, node: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + STOP_WAIT;
    while !is_over(pid) {
        if deadline <= Instant::now() {
            let message = format!("node {node} (pid {pid}) has not ended within {} s", STOP_WAIT.as_secs());
            return Err(Failure::new(Class::InDoubt, message).hint(format!("\\kill {node}")));
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

fn is_over(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    match letter(pid) {
        None => true,
        Some('Z' | 'X') => threads <= 1,
        Some(_) => false,
    }
}

/// A page that a node serves over HTTP: its status and body.
async fn page(address: &str, path: &str) -> Option<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    };
    timeout(PAGE_TIMEOUT, exchange).await.ok()?
}
