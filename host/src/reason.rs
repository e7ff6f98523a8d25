//! Why a message went no further: the `reason` label of the drop and dead-letter counters.

/// The reasons of `tidemill_messages_dropped_total` and `tidemill_messages_dead_lettered_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The source's codec could not read it.
    Decode,
    /// The plugin refused it.
    Rejected,
    /// The plugin trapped on it, or answered its call with an error.
    Trap,
    /// The plugin ran longer than its deadline on it.
    Deadline,
    /// The plugin wanted more memory than its limit for it.
    Memory,
    /// The plugin returned more than its output limit for it.
    Output,
    /// The plugin's answer broke the contract.
    Invalid,
    /// No sink takes its output.
    NoOutput,
    /// The sink could not be reached.
    SinkUnavailable,
    /// The queue of the sink was full.
    BufferFull,
    /// The peer read too slowly.
    SlowPeer,
    /// No peer was connected to the sink.
    NoPeers,
    /// The peer went away before the message was delivered.
    PeerClosed,
    /// The message was larger than `max_message_size`.
    TooLarge,
    /// The grace period of a shutdown ran out.
    Shutdown,
}

impl Reason {
    /// Every reason, in the order in which they are declared.
    pub const ALL: [Self; 15] = [
        Self::Decode,
        Self::Rejected,
        Self::Trap,
        Self::Deadline,
        Self::Memory,
        Self::Output,
        Self::Invalid,
        Self::NoOutput,
        Self::SinkUnavailable,
        Self::BufferFull,
        Self::SlowPeer,
        Self::NoPeers,
        Self::PeerClosed,
        Self::TooLarge,
        Self::Shutdown,
    ];

    /// The reason of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }

    /// The reason as the label `reason` of metrics has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Rejected => "rejected",
            Self::Trap => "trap",
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Output => "output",
            Self::Invalid => "invalid",
            Self::NoOutput => "no_output",
            Self::SinkUnavailable => "sink_unavailable",
            Self::BufferFull => "buffer_full",
            Self::SlowPeer => "slow_peer",
            Self::NoPeers => "no_peers",
            Self::PeerClosed => "peer_closed",
            Self::TooLarge => "too_large",
            Self::Shutdown => "shutdown",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
