//! Commands that start a site, as a shell sees them when something is wrong.

use fulmar_client::{Cluster, Place, Settings};
use fulmar_host::real::RealNetwork;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

fn fulmar(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fulmar"));
    command.args(arguments).env_remove("FULMAR_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the binary runs")
}

/// Waits for its end. Returns the exit code and what it said to standard error.
fn end(child: Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("it ends");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The child processes of a process, with their arguments.
fn children(pid: u32) -> Vec<(i32, Vec<String>)> {
    let processes = fs::read_dir("/proc").expect("the processes").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |found: i32| {
        let stat = fs::read_to_string(format!("/proc/{found}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let parent: u32 = rest.split(' ').nth(1)?.parse().ok()?;
        let arguments = fs::read_to_string(format!("/proc/{found}/cmdline")).ok()?;
        let arguments = arguments.split('\0').map(str::to_owned).collect();
        (parent == pid).then_some((found, arguments))
    };
    pids.filter_map(child).collect()
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: no memory is involved.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// The next line with this in it.
fn wait_for(said: &mut impl BufRead, what: &str) -> String {
    let mut line = String::new();
    while !line.contains(what) {
        line.clear();
        assert!(said.read_line(&mut line).expect("text") > 0, "it ended before `{what}`");
    }
    line
}

/// A place for the ports of a site: the first three, those of the peers, 100 further on, and those for
/// metrics, 300 further on.
fn free_ports() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let is_free = |base: &u16| {
        (0..3).all(|at| free(base + at) && free(base + 100 + at) && free(base + 300 + at))
    };
    (20_100..60_000).step_by(400).find(is_free).expect("nine free ports")
}

/// The directory that a message says is kept; it is removed.
fn kept(message: &str) -> PathBuf {
    let (_, rest) = message.split_once("kept in ").expect("it says where");
    let dir = rest.split([';', ' ', '\n']).next().expect("a path").trim_end_matches('.');
    let dir = Path::new(dir).to_owned();
    assert!(dir.join("node-1.log").exists(), "{}", dir.display());
    fs::remove_dir_all(&dir).expect("it is ours");
    dir
}

#[test]
fn a_bench_of_records_that_the_site_refuses_fails_at_once_and_says_why() {
    let bench = fulmar(&["bench", "--record-bytes", "2000000", "--seconds", "60"]);
    let (code, said) = end(bench);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the site refuses the records of this load"), "{said}");
    kept(&said);
}

#[test]
fn a_demo_fails_when_a_node_ends_that_nobody_killed() {
    let mut demo = fulmar(&["demo", "--records", "20000"]);
    let mut said = BufReader::new(demo.stdout.take().expect("it is a pipe"));
    let line = wait_for(&mut said, " leads");
    let id_of = |arguments: &[String]| {
        let at = arguments.iter().position(|argument| argument == "--id")?;
        arguments.get(at + 1).cloned()
    };
    let (_, leader) = line.split_once("node ").expect("it names the leader");
    let leader = leader.split(' ').next().map(str::to_owned);
    let is_follower =
        |(_, arguments): &(i32, Vec<String>)| id_of(arguments).is_some_and(|id| Some(id) != leader);
    let (follower, _) = children(demo.id()).into_iter().find(is_follower).expect("a follower");
    kill(follower, libc::SIGKILL);
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    let (code, error) = end(demo);
    assert_eq!(code, Some(1), "{rest}{error}");
    assert!(error.contains("was killed by signal 9"), "{error}");
    kept(&rest);
}

#[test]
fn up_is_not_ready_because_somebody_else_listens_there() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("up-in-use");
    let _ = fs::remove_dir_all(&dir);
    // Somebody who takes connections on the ports for clients of all three.
    let taken = (20_000..60_000).step_by(200).find_map(|base: u16| {
        let listen = |offset| TcpListener::bind(("127.0.0.1", base + offset)).ok();
        Some((base, [listen(0)?, listen(1)?, listen(2)?]))
    });
    let (base, _listeners) = taken.expect("three free ports in a row");
    let dir_text = dir.to_string_lossy().into_owned();
    let up = fulmar(&["up", "--dir", &dir_text, "--base-port", &base.to_string()]);
    let output = up.wait_with_output().expect("it ends, since every node has");
    let (out, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{out}{error}");
    assert_eq!(error.matches("ended with code 47").count(), 3, "{error}");
    assert!(!out.contains("Ready"), "{out}");
    fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn up_names_the_address_of_each_node_in_whatever_order_they_are_configured() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("up-order");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).expect("a directory");
    let base = free_ports();
    let node = |id: u16| {
        let (kafka, peer) = (base + id - 1, base + 99 + id);
        format!(
            "[[node]]\nid = {id}\ndata = \"node-{id}\"\nkafka = \"127.0.0.1:{kafka}\"\n\
             peer = \"127.0.0.1:{peer}\"\n"
        )
    };
    let site = format!("site = \"order\"\n{}{}{}", node(2), node(1), node(3));
    fs::write(dir.join("site.toml"), site).expect("a file");
    let mut up = fulmar(&["up", "--dir", &dir.to_string_lossy()]);
    let mut said = BufReader::new(up.stdout.take().expect("it is a pipe"));
    for id in 1..=3 {
        let line = wait_for(&mut said, &format!("node {id} "));
        assert!(line.contains(&format!("kafka 127.0.0.1:{} ", base + id - 1)), "{line}");
    }
    wait_for(&mut said, "Ready");
    kill(i32::try_from(up.id()).expect("a process id"), libc::SIGINT);
    let (code, error) = end(up);
    assert_eq!(code, Some(0), "{error}");
    fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn a_node_that_comes_back_alone_knows_its_topics_and_its_site() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("up-alone");
    let _ = fs::remove_dir_all(&dir);
    let dir_text = dir.to_string_lossy().into_owned();
    let base = free_ports();
    let mut up = fulmar(&["up", "--dir", &dir_text, "--base-port", &base.to_string()]);
    let mut said = BufReader::new(up.stdout.take().expect("it is a pipe"));
    wait_for(&mut said, "Ready");
    let address = format!("127.0.0.1:{}", base + 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let bootstrap = vec![Place::from(&*address)];
        let site = Cluster::new(Arc::new(RealNetwork), bootstrap, Settings::default());
        for topic in ["first", "second"] {
            site.create_topic(topic, 1, Duration::from_secs(10)).await.expect("created");
        }
    });
    let stop = |child: Child| {
        kill(i32::try_from(child.id()).expect("a process id"), libc::SIGINT);
        let (code, error) = end(child);
        assert_eq!(code, Some(0), "{error}");
    };
    stop(up);
    let config = dir.join("site.toml").to_string_lossy().into_owned();
    let mut node = fulmar(&["node", "--config", &config, "--id", "2"]);
    wait_for(&mut BufReader::new(node.stdout.take().expect("it is a pipe")), "serves Kafka");
    let status = fulmar(&["status", "--bootstrap", &address]).wait_with_output();
    let said = String::from_utf8_lossy(&status.expect("it ends").stdout).into_owned();
    // The creation of the second says in the log that the first is committed.
    assert!(said.contains("no node leads") && said.contains("topic first: 1 partition"), "{said}");
    stop(node);
    // Alone for ever is another matter: with a majority of one it would overrule the others.
    let alone = dir.join("alone.toml");
    let data = dir.join("node-2");
    let text = format!(
        "site = \"alone\"\n[[node]]\nid = 2\ndata = {data:?}\nkafka = \"{address}\"\n\
         peer = \"127.0.0.1:{}\"\n",
        base + 101
    );
    fs::write(&alone, text).expect("a file");
    let (code, error) = end(fulmar(&["node", "--config", &alone.to_string_lossy(), "--id", "2"]));
    assert_eq!(code, Some(43), "{error}");
    assert!(error.contains("belongs to a site of nodes 1, 2, 3"), "{error}");
    fs::remove_dir_all(&dir).expect("it is ours");
}

#[test]
fn a_node_that_was_started_without_its_directory_can_rejoin_at_once() {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("up-rejoin");
    let _ = fs::remove_dir_all(&dir);
    let dir_text = dir.to_string_lossy().into_owned();
    let base = free_ports().to_string();
    let mut up = fulmar(&["up", "--dir", &dir_text, "--base-port", &base]);
    let mut said = BufReader::new(up.stdout.take().expect("it is a pipe"));
    wait_for(&mut said, "Ready");
    let (code, error) = end(fulmar(&["up", "--dir", &dir_text]));
    assert_eq!(code, Some(46), "{error}");
    assert!(error.contains("a site runs from"), "{error}");
    let third = |arguments: &[String]| arguments.windows(2).any(|pair| pair == ["--id", "3"]);
    let (pid, _) =
        children(up.id()).into_iter().find(|(_, arguments)| third(arguments)).expect("node 3");
    kill(pid, libc::SIGKILL);
    let site = dir.join("site.toml").to_string_lossy().into_owned();
    let mut complaints = BufReader::new(up.stderr.take().expect("it is a pipe"));
    wait_for(&mut complaints, "node 3 was killed by signal 9");
    fs::rename(dir.join("node-3"), dir.join("earlier")).expect("nobody uses it");
    // Most people start the node first, and learn from it that the directory is not there.
    let (code, error) = end(fulmar(&["node", "--config", &site, "--id", "3"]));
    assert_eq!(code, Some(43), "{error}");
    assert!(error.contains("`fulmar rejoin` prepares this one"), "{error}");
    for _ in 0..2 {
        let (code, error) = end(fulmar(&["rejoin", "--config", &site, "--id", "3"]));
        assert_eq!(code, Some(0), "{error}");
    }
    let mut node = fulmar(&["node", "--config", &site, "--id", "3"]);
    let mut log = BufReader::new(node.stderr.take().expect("it is a pipe"));
    wait_for(&mut log, "this node votes again");
    let (code, error) = end(fulmar(&["rejoin", "--config", &site, "--id", "2"]));
    assert_eq!(code, Some(46), "{error}");
    let stop = |child: Child, expected| {
        kill(i32::try_from(child.id()).expect("a process id"), libc::SIGINT);
        let (code, error) = end(child);
        assert_eq!(code, Some(expected), "{error}");
    };
    stop(node, 0);
    let (code, error) = end(fulmar(&["rejoin", "--config", &site, "--id", "3"]));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("is not empty, and nothing in it was touched"), "{error}");
    // The directory of the earlier life turns up, and somebody puts it back.
    fs::rename(dir.join("node-3"), dir.join("later")).expect("nobody uses it");
    fs::rename(dir.join("earlier"), dir.join("node-3")).expect("nobody uses it");
    let (code, error) = end(fulmar(&["node", "--config", &site, "--id", "3"]));
    assert_eq!(code, Some(43), "{error}");
    assert!(error.contains("is refused by all other nodes of its site"), "{error}");
    // `up` ends with 1, since a node of its own had ended.
    stop(up, 1);
    fs::remove_dir_all(&dir).expect("it is ours");
}
