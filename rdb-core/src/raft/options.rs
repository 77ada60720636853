//! What a group can be told. Every option of raft-rs is passed from here, at one place in `group.rs`.

/// Options of one Raft group. All are in ticks, counts and bytes; how long a tick is, the caller decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Ticks without a word from the leader after which a follower may stand for election. The wait is drawn between
    /// this and twice this. A leader that hears no majority for this long, or cannot write its log, steps down.
    pub election_ticks: usize,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Entries that one append message carries at most, in bytes; one entry always fits.
    pub append_bytes_max: u64,
    /// Append messages on their way to one follower.
    pub appends_in_flight_max: usize,
    /// Entries proposed and not yet committed, while commands gather for the next one. Two keep the pipeline full
    /// and pack more commands into each than more would.
    pub entries_in_flight_max: usize,
    /// Commands' bytes in one entry, at most; one proposal always fits.
    pub entry_bytes_max: usize,
    /// Commands' bytes waiting for an entry. Past it proposals are refused.
    pub queue_bytes_max: usize,
    /// Reads waiting for a round. Past it reads are refused.
    pub reads_max: usize,
    /// Bytes of uncommitted entries after which raft-rs drops proposals.
    pub uncommitted_bytes_max: u64,
    /// Bytes of committed entries handed to the applier at a time.
    pub apply_bytes_max: u64,
    /// Whether followers are told of a commit at once, by a message of its own, or with the next append or heartbeat.
    pub eager_commits: bool,
    /// Whether leaders may serve reads by their clock. Then a replica grants no vote for an election timeout after it starts,
    /// except to a successor that the leader has named: it cannot know which leader it promised to follow before.
    pub leases: bool,
    /// Ticks without anything to do after which a group may sleep; `None`: it never does.
    pub sleep_after_ticks: Option<u64>,
    /// Bytes of synced entries kept in memory for followers that lag a little.
    pub tail_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            election_ticks: 16,
            heartbeat_ticks: 2,
            append_bytes_max: 1 << 20,
            appends_in_flight_max: 64,
            entries_in_flight_max: 2,
            entry_bytes_max: 1 << 20,
            queue_bytes_max: 64 << 20,
            reads_max: 65_536,
            uncommitted_bytes_max: 64 << 20,
            apply_bytes_max: 8 << 20,
            eager_commits: false,
            leases: false,
            sleep_after_ticks: None,
            tail_bytes_max: 8 << 20,
        }
    }
}
