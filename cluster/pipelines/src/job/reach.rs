//! How far beyond the partition that is last others are read while there is little memory.
//!
//! What an epoch makes of state is not known before: it depends on how many rows come in a stretch of event time. So
//! the stretch is found by trying. If the epoch is full before all have come so far, it is made shorter, faster than what an
//! epoch may still grow by: so those that are last come to be read, however little room the others have left.
//!
//! Never: decide anything that is not logged. Another owner begins anew.

/// What a pipeline begins with.
const FIRST_MS: i64 = 1_000;

/// It never gets longer than a day.
const MAX_MS: i64 = 86_400_000;

/// What became of an epoch that read no further than that.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// It was full.
    pub is_full: bool,
    /// A partition had come so far.
    pub is_held: bool,
    /// By how much state has grown, and might have.
    pub grown: (usize, usize),
}

/// A stretch of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    ms: i64,
}

impl Default for Reach {
    fn default() -> Self {
        Self { ms: FIRST_MS }
    }
}

impl Reach {
    /// In milliseconds.
    pub fn ms(self) -> i64 {
        self.ms
    }

    /// An epoch has been read.
    pub fn note(&mut self, Reached { is_full, is_held, grown: (grown, most) }: Reached) {
        if is_full {
            self.ms = (self.ms / 4).max(1);
        } else if is_held && grown < most / 2 {
            self.ms = (self.ms * 2).min(MAX_MS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Reached = Reached { is_full: true, is_held: false, grown: (10, 10) };
    const SHORT: Reached = Reached { is_full: false, is_held: true, grown: (4, 10) };

    #[test]
    fn it_is_shorter_after_an_epoch_that_was_full_and_longer_after_one_that_had_room() {
        let mut reach = Reach::default();
        reach.note(FULL);
        assert_eq!(reach.ms(), 250);
        reach.note(SHORT);
        assert_eq!(reach.ms(), 500);
        reach.note(Reached { grown: (5, 10), ..SHORT });
        reach.note(Reached { is_held: false, ..SHORT });
        assert_eq!(reach.ms(), 500, "it is about right, or there was no more to read");
    }

    #[test]
    fn it_has_bounds() {
        let mut reach = Reach::default();
        (0..40).for_each(|_| reach.note(FULL));
        assert_eq!(reach.ms(), 1);
        (0..40).for_each(|_| reach.note(SHORT));
        assert_eq!(reach.ms(), MAX_MS);
    }
}
