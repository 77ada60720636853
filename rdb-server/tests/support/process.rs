//! One `rdb-server` process.

use super::{LOOK_INTERVAL, PATIENCE};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A running process, killed when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a node with this configuration file, to crash at a point, if that is not empty. What it says is added to `log`. It
    /// may open `files_max` files, where that is given.
    pub fn start(config: &Path, log: &Path, crash_at: &str, files_max: Option<usize>) -> Self {
        let output = File::options().create(true).append(true).open(log).unwrap();
        let limit = files_max.map(|files_max| format!("ulimit -n {files_max}; "));
        // The node takes the shell's place, and with it its process id.
        let script = format!("{}exec \"$@\"", limit.unwrap_or_default());
        let child = Command::new("sh")
            .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_rdb-server"), "--config"])
            .arg(config)
            .envs((!crash_at.is_empty()).then_some(("FLAREDB_CRASH_AT", crash_at)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self { child, log: log.to_owned() }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it, and waits until it stands still. The signal is taken by one thread, which stops the others when it is its turn to
    /// run: on a busy machine they go on for a while, and a follower that was to be away confirms one more read.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + PATIENCE;
        while !self.stands_still() {
            assert!(
                Instant::now() < deadline,
                "the process does not stop; its log is {}",
                self.log.display()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stands_still(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        // One that has ended meanwhile runs no more either.
        let states =
            threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        states.into_iter().all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    }

    /// The most memory that it has had so far.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The memory that it has.
    pub fn memory_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib << 10
    }

    /// Has the most memory be counted from now on.
    pub fn forget_peak_memory(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// Files that it has open, connections among them.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Has it open no file past `more` of those that it has.
    pub fn limit_open_files(&self, more: usize) {
        let current = Some((self.open_files() + more) as u64);
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(Some(Pid::from_child(&self.child)), Resource::Nofile, Rlimit { current, maximum }).unwrap();
    }

    /// The processor time that it has used.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // Behind the name, which may hold anything but a bracket; the times are in hundredths of a second.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let times = rest.split_whitespace().skip(11).take(2);
        Duration::from_millis(times.map(|ticks| 10 * ticks.parse::<u64>().unwrap()).sum())
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "the process runs on; its log is {}", self.log.display());
            std::thread::sleep(LOOK_INTERVAL);
        }
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
