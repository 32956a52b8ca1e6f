//! How fast the line is that the connections of a session share, and how much they may have on their way together.
//!
//! What all of them have written and the other side has not got takes the line as long as it is slow. Each
//! connection may have some on its way whatever its speed; but eight times that is half a minute of a line of
//! 128 kbit/s, in which nothing else comes through, neither what is urgent nor that somebody is still there. So what
//! is not urgent waits for its place among all that is on its way:
//!
//! ```text
//! may be on its way    64 KiB, or what came through in the last four seconds
//! carried by           three connections, and one more for each 64 KiB of that
//! ```
//!
//! That grows as fast as the line lets it: who has begun only now is judged by what came through since. What a
//! connection holds back until a packet has come again comes through at once then, so less than some seconds are no
//! measure otherwise.
//!
//! Invariant: it is never less than [`LINE_BYTES_MIN`], so something is always on its way by which it can grow.

use crate::flow::WINDOW_BYTES_MAX;
use fulmar_host::planted;
use fulmar_host::time::{self, Duration, Instant};
use fulmar_types::Plant;
use fulmar_types::link::LINK_CONNECTIONS_MAX;
use std::collections::VecDeque;

/// What may be on its way over all connections, whatever the speed of the line: four seconds of 128 kbit/s.
pub(crate) const LINE_BYTES_MIN: u64 = 64 << 10;

const LINE_BYTES_MAX: u64 = WINDOW_BYTES_MAX * LINK_CONNECTIONS_MAX as u64;

/// As much may be on its way as comes through in this time: more than a round trip, far less than a silence after which
/// a connection is given up.
const LOOKED_BACK: Duration = Duration::from_secs(4);

/// Who has begun only now is judged by what came through since then, but not by less than this.
const MEASURED_MIN: Duration = Duration::from_secs(1);

/// How exactly it is known when something came through.
const STEP: Duration = Duration::from_millis(250);

/// One more connection carries what is not urgent for so much that may be on its way.
const CARRIER_BYTES: u64 = 64 << 10;

/// How many do in any case: of a line that loses much a single one might use too little for it to be seen.
const CARRIERS_MIN: u64 = 2;

/// What is known of a line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// What came through, from when on, oldest first.
    steps: VecDeque<(Instant, u64)>,
    moved: u64,
}

impl Line {
    /// Bytes have come through, over whichever connection.
    pub(crate) fn moved(&mut self, bytes: u64) {
        let now = time::now();
        match self.steps.back_mut() {
            Some((from, moved)) if now - *from < STEP => *moved += bytes,
            _ => self.steps.push_back((now, bytes)),
        }
        self.moved += bytes;
        while let Some((_, moved)) =
            self.steps.front().filter(|(from, _)| now - *from > LOOKED_BACK)
        {
            self.moved -= moved;
            self.steps.pop_front();
        }
    }

    /// How many connections carry what is not urgent. On a slow line many would take each other's place in its queue,
    /// and what is lost there comes again after ever longer pauses.
    pub(crate) fn carriers(&self) -> usize {
        usize::try_from(CARRIERS_MIN + self.window() / CARRIER_BYTES).unwrap_or(usize::MAX)
    }

    /// How much of what is not urgent becomes one frame: a second of the line.
    pub(crate) fn group_bytes(&self) -> usize {
        usize::try_from(self.window() / 4).unwrap_or(usize::MAX)
    }

    /// In parts of what size it is written: some of them fit into what may be on its way.
    pub(crate) fn piece_bytes(&self) -> usize {
        usize::try_from(self.window() / 8).unwrap_or(usize::MAX)
    }

    /// How much may be on its way.
    pub(crate) fn window(&self) -> u64 {
        if planted(Plant::LineUnmeasured) {
            return LINE_BYTES_MAX;
        }
        let age = self.steps.front().map_or(LOOKED_BACK, |(from, _)| time::now() - *from);
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let as_long = ms(age.clamp(MEASURED_MIN, LOOKED_BACK));
        let would_have = self.moved.saturating_mul(ms(LOOKED_BACK)) / as_long;
        would_have.clamp(LINE_BYTES_MIN, LINE_BYTES_MAX)
    }
}
