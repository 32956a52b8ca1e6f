//! A disk in memory that loses power at a chosen operation, for the tests of the snapshot files.

use fulmar_host::clock::Clock;
use fulmar_host::disk::{DirectoryLock, Disk, File, Flush, Listed, Open, Write};
use fulmar_host::net::{Connection, Listener, Network};
use fulmar_host::process::Process;
use fulmar_host::{BoxFuture, Host, NoLinks, Observer};
use fulmar_types::{Event, ExitCode};
use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

/// Runs a future that never waits: nothing here does.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a future on the memory disk waits"),
    }
}

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    flushed: Vec<u8>,
}

#[derive(Default)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<PathBuf, usize>,
    flushed_names: BTreeMap<PathBuf, usize>,
    /// Changes that still take effect, `None` for all.
    changes_left: Option<usize>,
    events: Vec<Event>,
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        match &mut self.changes_left {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn content(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// The disk, the rest of a host, and the listener to its events.
#[derive(Clone, Default)]
pub(super) struct Memory(Arc<Mutex<State>>);

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it holds this")
    }

    pub(super) fn host(&self) -> Host {
        Host {
            network: Arc::new(Nothing),
            http: Arc::new(Nothing),
            peers: Arc::new(Nothing),
            links: Arc::new(NoLinks),
            disk: Arc::new(self.clone()),
            clock: Arc::new(Nothing),
            process: Arc::new(Nothing),
            observer: Arc::new(self.clone()),
        }
    }

    /// Lets so many changes happen, and fails every one after them.
    pub(super) fn fail_after(&self, changes: usize) {
        self.state().changes_left = Some(changes);
    }

    /// Cuts the power: what was not flushed may be lost, names and contents apart.
    pub(super) fn cut_power(&self, keep_names: bool, keep_contents: bool) {
        let mut state = self.state();
        if keep_names {
            state.flushed_names = state.names.clone();
        } else {
            state.names = state.flushed_names.clone();
        }
        for content in &mut state.contents {
            if keep_contents {
                content.flushed = content.live.clone();
            } else {
                content.live = content.flushed.clone();
            }
        }
        state.changes_left = None;
    }

    pub(super) fn names(&self) -> Vec<String> {
        let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into());
        self.state().names.keys().filter_map(name).collect()
    }

    /// Damages a file in place.
    pub(super) fn rot(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let content = state.content(path).expect("the file is there");
        let content = &mut state.contents[content];
        change(&mut content.live);
        content.flushed = content.live.clone();
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.state().events.clone()
    }
}

struct MemoryFile {
    memory: Memory,
    content: usize,
}

impl Disk for Memory {
    fn open<'a>(&'a self, path: &'a Path, how: Open) -> BoxFuture<'a, io::Result<Arc<dyn File>>> {
        let open = || {
            let mut state = self.state();
            let content = match (how, state.content(path)) {
                (Open::New, Ok(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                (Open::New, Err(_)) => {
                    state.change()?;
                    state.contents.push(Content::default());
                    let content = state.contents.len() - 1;
                    state.names.insert(path.to_owned(), content);
                    content
                }
                (Open::Existing, found) => found?,
            };
            Ok(Arc::new(MemoryFile { memory: self.clone(), content }) as Arc<dyn File>)
        };
        Box::pin(ready(open()))
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        let rename = || {
            let mut state = self.state();
            state.change()?;
            let content = state.content(from)?;
            state.names.remove(from);
            state.names.insert(to.to_owned(), content);
            Ok(())
        };
        Box::pin(ready(rename()))
    }

    fn remove<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        let remove = || {
            let mut state = self.state();
            state.change()?;
            state.content(path)?;
            state.names.remove(path);
            Ok(())
        };
        Box::pin(ready(remove()))
    }

    fn list<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<Vec<Listed>>> {
        let state = self.state();
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(directory));
        let listed = inside.map(|(path, content)| Listed {
            name: path.file_name().unwrap_or_default().to_string_lossy().into(),
            len_bytes: state.contents[*content].live.len() as u64,
            is_dir: false,
        });
        Box::pin(ready(Ok(listed.collect())))
    }

    fn create_dir<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(ready(Ok(())))
    }

    fn sync_dir<'a>(&'a self, directory: &'a Path) -> BoxFuture<'a, io::Result<()>> {
        let sync = || {
            let mut state = self.state();
            state.change()?;
            state.flushed_names.retain(|path, _| path.parent() != Some(directory));
            let inside = state.names.clone().into_iter();
            state.flushed_names.extend(inside.filter(|(path, _)| path.parent() == Some(directory)));
            Ok(())
        };
        Box::pin(ready(sync()))
    }

    fn free_bytes<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<u64>> {
        Box::pin(ready(Ok(u64::MAX)))
    }

    fn lock<'a>(&'a self, _: &'a Path) -> BoxFuture<'a, io::Result<Box<dyn DirectoryLock>>> {
        Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

impl File for MemoryFile {
    fn len_bytes(&self) -> BoxFuture<'_, io::Result<u64>> {
        Box::pin(ready(Ok(self.memory.state().contents[self.content].live.len() as u64)))
    }

    fn read(&self, at: u64, len: usize) -> BoxFuture<'_, io::Result<Bytes>> {
        let state = self.memory.state();
        let live = &state.contents[self.content].live;
        let at = live.len().min(at as usize);
        let end = live.len().min(at + len);
        Box::pin(ready(Ok(Bytes::copy_from_slice(&live[at..end]))))
    }

    fn write(&self, writes: Vec<Write>, flush: Flush) -> BoxFuture<'_, io::Result<()>> {
        let write = || {
            let mut state = self.memory.state();
            for write in writes {
                state.change()?;
                let bytes = write.pieces.concat();
                let live = &mut state.contents[self.content].live;
                let end = write.at as usize + bytes.len();
                live.resize(live.len().max(end), 0);
                live[write.at as usize..end].copy_from_slice(&bytes);
            }
            if flush == Flush::Data {
                state.change()?;
                let content = &mut state.contents[self.content];
                content.flushed = content.live.clone();
            }
            Ok(())
        };
        Box::pin(ready(write()))
    }

    fn sync(&self) -> BoxFuture<'_, io::Result<()>> {
        self.write(Vec::new(), Flush::Data)
    }

    fn forget_cached(&self) -> BoxFuture<'_, io::Result<()>> {
        self.sync()
    }

    fn set_len(&self, _: u64) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

impl Observer for Memory {
    fn observe(&self, event: &Event) {
        self.state().events.push(event.clone());
    }
}

/// The parts of a host that snapshots have no use for.
struct Nothing;

impl Network for Nothing {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn connect(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(ready(Err(io::ErrorKind::Unsupported.into())))
    }
}

impl Clock for Nothing {
    fn wall_ms(&self) -> u64 {
        0
    }
}

impl Process for Nothing {
    fn exit(&self, code: ExitCode, message: &str) {
        panic!("exit {code:?}: {message}");
    }
}
