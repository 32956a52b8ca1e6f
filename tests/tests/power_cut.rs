//! The preloaded library, tested from outside: what was flushed survives SIGKILL, the rest does not.

use fulmar_tests::power_cut::{Lost, PowerCut};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A directory of a test, removed when the test has passed.
struct Bench {
    root: PathBuf,
    power_cut: PowerCut,
    lie: bool,
}

impl Bench {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("fulmar-{name}-{}", std::process::id()));
        let power_cut =
            PowerCut::new(&root.join("data"), &root.join("side")).expect("a temporary directory");
        Self { root, power_cut, lie: false }
    }

    /// Runs steps in a process of their own, kills it, and cuts the power unless told not to.
    fn run(&self, script: &str) {
        let arguments = script.split_whitespace().map(|word| {
            // A word with a point is a file of the directory, and so is `.` itself.
            if word.contains('.') {
                self.root.join("data").join(word).to_string_lossy().into_owned()
            } else {
                word.to_owned()
            }
        });
        let mut command = Command::new(env!("CARGO_BIN_EXE_disk-script"));
        self.power_cut.watch(&mut command, self.lie);
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).spawn().expect("the script starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the script speaks");
        child.kill().expect("SIGKILL");
        child.wait().expect("it is dead");
        assert_eq!(line, "done\n", "{script}");
    }

    fn cut(&self) -> Lost {
        self.power_cut.cut().expect("what was lost can be taken back")
    }

    fn read(&self, name: &str) -> Option<String> {
        let bytes = fs::read(self.root.join("data").join(name)).ok()?;
        Some(String::from_utf8(bytes).expect("text"))
    }

    fn assert(&self, name: &str, content: Option<&str>) {
        assert_eq!(self.read(name).as_deref(), content, "{name}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

#[test]
fn what_was_not_flushed_is_gone_and_what_was_stays() {
    let bench = Bench::new("content");
    bench.run("create a.log write a.log 0 flushed sync a.log sync-dir . write a.log 3 XYZ12345");
    bench.assert("a.log", Some("fluXYZ12345"));
    let lost = bench.cut();
    bench.assert("a.log", Some("flushed"));
    assert_eq!((lost.writes, lost.names), (1, 0));
    assert_eq!(bench.cut(), Lost::default(), "a second cut finds nothing");
}

#[test]
fn overwriting_again_and_again_goes_back_to_the_last_flush() {
    let bench = Bench::new("again");
    bench.run(
        "create a.log sync-dir . write a.log 0 one sync a.log write a.log 0 two write a.log 1 hr \
         sync a.log write a.log 0 four append a.log more write a.log 20 far",
    );
    bench.cut();
    bench.assert("a.log", Some("thr"));
}

#[test]
fn lengths_come_back() {
    let bench = Bench::new("length");
    bench.run(
        "create a.log sync-dir . write a.log 0 0123456789 sync a.log len a.log 4 len a.log 900",
    );
    bench.cut();
    bench.assert("a.log", Some("0123456789"));
    bench.run("len a.log 4 sync a.log append a.log x");
    bench.cut();
    bench.assert("a.log", Some("0123"));
}

#[test]
fn names_need_a_flush_of_their_directory() {
    let bench = Bench::new("names");
    bench.run("create a.log write a.log 0 one sync a.log");
    bench.cut();
    bench.assert("a.log", None);

    bench.run("create a.log write a.log 0 one sync a.log sync-dir . rename a.log b.log");
    bench.assert("b.log", Some("one"));
    bench.cut();
    bench.assert("a.log", Some("one"));
    bench.assert("b.log", None);

    bench.run("rename a.log b.log sync-dir . remove b.log");
    bench.assert("b.log", None);
    bench.cut();
    bench.assert("b.log", Some("one"));
    bench.run("remove b.log sync-dir .");
    bench.cut();
    bench.assert("b.log", None);
}

#[test]
fn a_rename_over_a_file_gives_both_back() {
    let bench = Bench::new("over");
    bench.run(
        "create a.log write a.log 0 old sync a.log create b.tmp write b.tmp 0 new sync b.tmp \
         sync-dir . rename b.tmp a.log",
    );
    bench.assert("a.log", Some("new"));
    bench.cut();
    bench.assert("a.log", Some("old"));
    bench.assert("b.tmp", Some("new"));
    bench.run("rename b.tmp a.log sync-dir .");
    bench.cut();
    bench.assert("a.log", Some("new"));
    bench.assert("b.tmp", None);
}

#[test]
fn a_renamed_file_has_its_content_taken_back_too() {
    let bench = Bench::new("renamed");
    bench.run(
        "create a.log write a.log 0 one sync a.log sync-dir . write a.log 0 two rename a.log b.log \
         sync-dir .",
    );
    bench.cut();
    bench.assert("b.log", Some("one"));
}

#[test]
fn a_directory_needs_a_flush_of_the_one_above() {
    let bench = Bench::new("directory");
    bench.run("mkdir d.d create d.d/a.log sync-dir d.d");
    bench.cut();
    assert!(!bench.root.join("data/d.d").exists());
    bench.run("mkdir d.d sync-dir . create d.d/a.log sync-dir d.d");
    bench.cut();
    bench.assert("d.d/a.log", Some(""));
}

#[test]
fn a_later_process_can_flush_what_an_earlier_one_wrote() {
    let bench = Bench::new("later");
    bench.run("create a.log sync-dir . write a.log 0 one");
    bench.run("sync a.log write a.log 3 two");
    bench.cut();
    bench.assert("a.log", Some("one"));
}

#[test]
fn a_new_file_is_not_taken_for_an_old_one_with_its_number() {
    let bench = Bench::new("reuse");
    bench.run(
        "create a.log sync-dir . write a.log 0 one remove a.log sync-dir . create b.log \
         write b.log 0 two sync b.log sync-dir .",
    );
    bench.cut();
    bench.assert("b.log", Some("two"));
}

#[test]
fn flushes_of_many_threads_hold() {
    let bench = Bench::new("threads");
    bench.run("create a.log sync-dir . threads a.log 8 write a.log 0 zzzz");
    bench.cut();
    let expected: Vec<u8> = (1..=20u8).flat_map(|block| [block; 8 * 64]).collect();
    assert_eq!(fs::read(bench.root.join("data/a.log")).expect("it is there"), expected);
}

#[test]
fn a_flush_that_lies_keeps_nothing() {
    let mut bench = Bench::new("lie");
    bench.run("create a.log write a.log 0 one sync a.log sync-dir .");
    bench.lie = true;
    bench.run("write a.log 0 two sync a.log create b.log sync-dir .");
    bench.assert("a.log", Some("two"));
    let lost = bench.cut();
    bench.assert("a.log", Some("one"));
    bench.assert("b.log", None);
    assert_eq!((lost.writes, lost.names), (1, 1));
}
