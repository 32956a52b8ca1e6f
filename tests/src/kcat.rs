//! kcat, unmodified.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

/// A kcat that runs.
pub struct Kcat {
    child: Child,
    what: String,
    output: JoinHandle<Vec<u8>>,
}

impl Kcat {
    /// Starts it against these addresses.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(bootstrap: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new("kcat")
            .args(["-b", bootstrap])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("kcat starts");
        let mut stdout = child.stdout.take().expect("it is piped");
        // Taken as it comes: a full pipe would hold kcat up.
        let output = thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).expect("a pipe can be read");
            bytes
        });
        Self { child, what: arguments.join(" "), output }
    }

    /// Hands it input.
    ///
    /// # Panics
    /// If it has ended.
    pub fn feed(&mut self, bytes: &[u8]) {
        let input = self.child.stdin.as_mut().expect("the input is open until the end");
        input.write_all(bytes).expect("kcat takes its input");
    }

    /// Closes its input, waits for its end and returns its output.
    ///
    /// # Panics
    /// If it fails, or has not ended in time.
    pub fn finish(mut self, timeout: Duration) -> Vec<u8> {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child can be asked") {
                Some(status) => break status,
                None if begun.elapsed() > timeout => {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                    let output = self.output.join().expect("the reader ends with the pipe");
                    let bytes = output.len();
                    panic!("kcat {} has not ended in {timeout:?}; {bytes} bytes read", self.what);
                }
                None => sleep(Duration::from_millis(20)),
            }
        };
        assert!(status.success(), "kcat {}: {status}", self.what);
        self.output.join().expect("the reader ends with the pipe")
    }
}

/// Writes lines to a topic, one record each, with a codec.
pub fn produce(bootstrap: &str, topic: &str, codec: &str, lines: &[String]) {
    let mut kcat = Kcat::start(bootstrap, &["-P", "-t", topic, "-z", codec, "-X", "acks=all"]);
    kcat.feed((lines.join("\n") + "\n").as_bytes());
    kcat.finish(Duration::from_secs(60));
}

/// Reads a topic from its start to its end, one record a line.
///
/// # Panics
/// If a record is no text.
pub fn consume(bootstrap: &str, topic: &str) -> Vec<String> {
    let kcat = Kcat::start(bootstrap, &["-C", "-t", topic, "-o", "beginning", "-e", "-q"]);
    lines(&kcat.finish(Duration::from_secs(60)))
}

/// The lines of an output.
///
/// # Panics
/// If it is no text.
pub fn lines(output: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(output).expect("kcat printed what was put in");
    text.lines().map(str::to_owned).collect()
}
