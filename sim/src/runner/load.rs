//! Load on the machine: a process that does nothing but take processor time.
//!
//! It is this very program with the hidden command `spin`. It ends with the run that it stands
//! beside, with the one who started it, and in any case after the patience for a run.

use super::child::PATIENCE;
use std::io;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How often a busy process looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// A busy process, which ends when this is dropped.
pub struct Load(Child);

impl Load {
    /// Starts a busy process.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(program: &Path) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg("spin").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes processor time until the parent is gone, or no run can last any longer.
pub fn spin() {
    spin_while(parent_id(), PATIENCE);
}

fn spin_while(parent: u32, patience: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < patience && parent_id() == parent {
        let look = Instant::now();
        while look.elapsed() < LOOK {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_ends_by_itself() {
        let begun = Instant::now();
        spin_while(parent_id(), LOOK);
        assert!(begun.elapsed() >= LOOK);
        spin_while(parent_id().wrapping_add(1), PATIENCE);
        assert!(begun.elapsed() < PATIENCE, "nobody wants it any more");
    }

    #[test]
    fn a_busy_process_ends_with_its_run() {
        let sleeper = Command::new("sleep").arg("60").spawn().expect("every system has it");
        let (id, begun) = (sleeper.id(), Instant::now());
        drop(Load(sleeper));
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }
}
