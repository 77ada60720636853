//! A host of a node's own: a network namespace with one address, on a bridge with the others and with this program. What a host sends
//! to another one is lost on the way, or refused, packet by packet and in one direction, as by a broken cable or a firewall; TCP finds
//! out by itself. Needs root and iproute2.
//!
//! A packet is lost since it is sent to a card that nobody has; it is refused since there is no way to its address.

use anyhow::{Context as _, Result, bail};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// A card that nobody has.
const NOBODY: &str = "02:00:00:00:00:01";
/// Where iproute2 keeps its namespaces.
const NAMESPACES: &str = "/run/netns";

/// The bridge that hosts are on, taken down when dropped.
#[derive(Debug)]
pub(super) struct Bridge {
    name: String,
    network: [u8; 3],
}

impl Bridge {
    /// Puts one up, with an address for this program.
    pub(super) fn put_up() -> Result<Self> {
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("fl{process}.{number}");
        let [.., low] = process.to_be_bytes();
        let bridge = Self { name, network: [10, 77, low.wrapping_add(number)] };
        let name = &bridge.name;
        ip(&["link", "add", name, "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", bridge.address(254)), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        Ok(bridge)
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        let [first, second, third] = self.network;
        Ipv4Addr::new(first, second, third, host)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", &self.name]);
    }
}

/// What becomes of what a host sends to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    Arrives,
    IsLost,
    IsRefused,
}

/// One host, taken down when dropped.
#[derive(Debug)]
pub(super) struct Host {
    name: String,
    address: Ipv4Addr,
}

impl Host {
    /// Puts up the host of this number, from 1.
    pub(super) fn put_up(bridge: &Bridge, number: u64) -> Result<Self> {
        let (name, cable) = (format!("{}.{number}", bridge.name), format!("{}v{number}", bridge.name));
        let host = Self { address: bridge.address(u8::try_from(number)?), name };
        let name = &host.name;
        ip(&["netns", "add", name])?;
        ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", name])?;
        ip(&["link", "set", &cable, "master", &bridge.name, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/24", host.address), "dev", "eth0"])?;
        ip(&["-n", name, "link", "set", "eth0", "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// Where it is reached.
    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// To start a program there.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMESPACES}/{}", self.name)).arg("--").arg(program);
        command
    }

    /// What it sends to the other one, from now on.
    pub(super) fn sends(&self, to: &Self, sending: Sending) -> Result<()> {
        let (name, address) = (self.name.as_str(), to.address.to_string());
        // Neither need be there.
        let _ = ip(&["-n", name, "route", "del", "unreachable", &address]);
        let _ = ip(&["-n", name, "neigh", "del", &address, "dev", "eth0"]);
        match sending {
            Sending::Arrives => Ok(()),
            Sending::IsLost => ip(&[
                "-n",
                name,
                "neigh",
                "replace",
                &address,
                "lladdr",
                NOBODY,
                "dev",
                "eth0",
                "nud",
                "permanent",
            ]),
            Sending::IsRefused => ip(&["-n", name, "route", "add", "unreachable", &address]),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Its cable goes with it.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// How often a process's host has had to send something again, or could not send it, as its kernel tells.
pub(super) fn sent_again(process: u32) -> Result<u64> {
    let told = |file: &str| {
        let path = format!("/proc/{process}/net/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    };
    let (snmp, netstat) = (told("snmp")?, told("netstat")?);
    let counts = [
        counter(&snmp, "Tcp:", "RetransSegs"),
        counter(&snmp, "Ip:", "OutNoRoutes"),
        counter(&netstat, "TcpExt:", "TCPTimeouts"),
        counter(&netstat, "TcpExt:", "TCPRetransFail"),
    ];
    Ok(counts.into_iter().flatten().sum())
}

/// A counter in a table of two lines a protocol: what they are called, and how many there are.
fn counter(table: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.strip_prefix(protocol));
    let (names, counts) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|known| known == name)?;
    counts.split_ascii_whitespace().nth(at)?.parse().ok()
}

/// Whether hosts can be put up here, and lose what they send.
///
/// # Errors
/// Why not.
pub(crate) fn try_two() -> Result<()> {
    let bridge = Bridge::put_up()?;
    let (one, other) = (Host::put_up(&bridge, 1)?, Host::put_up(&bridge, 2)?);
    for sending in [Sending::IsLost, Sending::IsRefused, Sending::Arrives] {
        one.sends(&other, sending)?;
    }
    let status = one.command(Path::new("true")).status().context("nsenter (util-linux) cannot be run")?;
    if !status.success() {
        bail!("nsenter cannot enter a network namespace: {status}");
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("`ip` (iproute2) cannot be run")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let table = "Ip: Forwarding OutNoRoutes\nIp: 2 17\nTcp: RetransSegs MaxConn\nTcp: 9 -1\n";
        assert_eq!(counter(table, "Tcp:", "RetransSegs"), Some(9));
        assert_eq!(counter(table, "Ip:", "OutNoRoutes"), Some(17));
        assert_eq!(counter(table, "Tcp:", "MaxConn"), None, "no count");
        assert_eq!(counter(table, "Udp:", "RetransSegs"), None);
        assert!(sent_again(std::process::id()).is_ok());
    }
}
