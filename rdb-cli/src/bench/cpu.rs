//! Processor time of processes on this machine, from `/proc`.

use std::time::Duration;

/// Processes of this name, which the kernel cuts to 15 bytes.
pub(super) fn pids_named(name: &str) -> Vec<u32> {
    let wanted: String = name.chars().take(15).collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> = processes
        .filter_map(|process| process.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == wanted)
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// Time that the process has spent on processors, in its own code and in the kernel's. `None`: there is no such process.
pub(super) fn used(pid: u32) -> Option<Duration> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same for this process.
pub(super) fn used_here() -> Option<Duration> {
    used(std::process::id())
}

fn parse(stat: &str) -> Option<Duration> {
    // The name, in brackets, may hold anything; user and system time are the 12th and 13th field after it.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_micros((user + system) * 1_000_000 / ticks_per_second.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 5 6 7";
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
        assert_eq!(parse(stat), Some(Duration::from_secs(300) / ticks));
        assert!(used_here().is_some());
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(pids_named(name.trim_end()).contains(&std::process::id()));
    }
}
