//! How a client behaves towards the site as a whole.

use std::time::Duration;

/// How a client connects, waits and tries again.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name that the client gives itself in every request.
    pub client_id: String,
    /// The longest wait for a connection and its handshake.
    pub connect_timeout: Duration,
    /// The longest wait for one answer, on top of the wait that the request itself asks for. The
    /// connection is given up after it, because the answer could still come and be taken for
    /// another.
    pub request_timeout: Duration,
    /// After this long without an answer the other nodes are asked whether there is a new leader;
    /// if so, the request to the old one is given up. A paused leader answers nothing at all.
    pub leader_check: Duration,
    /// The pause after the first failed attempt; each further one doubles it.
    pub backoff_min: Duration,
    /// The longest pause between two attempts.
    pub backoff_max: Duration,
    /// Requests of one connection that may wait for their answer.
    pub in_flight_max: usize,
    /// The largest answer that is accepted.
    pub response_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            client_id: "fulmar".to_owned(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(10),
            leader_check: Duration::from_millis(400),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(80),
            in_flight_max: 32,
            response_bytes_max: 64 << 20,
        }
    }
}

impl Settings {
    /// The pause after this many failed attempts in a row. Without jitter: the number of our own
    /// clients is small, and a client without randomness is easier to replay.
    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.backoff_min.saturating_mul(1 << doublings).min(self.backoff_max)
    }
}
