//! Does to files what its arguments say, then waits to be killed: the victim of the tests of the
//! preloaded library. It uses the same calls of the standard library as a node.
//!
//! | arguments | does |
//! |---|---|
//! | `write FILE AT TEXT` | writes at a place; the file must exist |
//! | `append FILE TEXT` | writes at the end |
//! | `create FILE` | makes an empty file |
//! | `len FILE BYTES` | cuts or extends |
//! | `sync FILE` / `sync-dir DIR` | flushes |
//! | `rename FROM TO`, `remove FILE`, `mkdir DIR` | changes names |
//! | `threads FILE N` | N threads write and flush 20 blocks each, all at once |

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

fn existing(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn number(text: &str) -> io::Result<u64> {
    text.parse().map_err(io::Error::other)
}

fn threads(path: &str, count: u64) -> io::Result<()> {
    let file = existing(path)?;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..count)
            .map(|thread| {
                let file = &file;
                scope.spawn(move || {
                    for block in 0..20u8 {
                        let at = (u64::from(block) * count + thread) * 64;
                        file.write_all_at(&[block + 1; 64], at)?;
                        file.sync_data()?;
                    }
                    io::Result::Ok(())
                })
            })
            .collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer ends"))
    })
}

fn step(arguments: &mut VecDeque<String>) -> io::Result<()> {
    let mut next = || arguments.pop_front().ok_or(io::ErrorKind::InvalidInput);
    match next()?.as_str() {
        "write" => {
            let (path, at, text) = (next()?, number(&next()?)?, next()?);
            existing(&path)?.write_all_at(text.as_bytes(), at)
        }
        "append" => {
            let (path, text) = (next()?, next()?);
            OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
        }
        "create" => File::create_new(next()?).map(|_| ()),
        "len" => {
            let (path, len) = (next()?, number(&next()?)?);
            existing(&path)?.set_len(len)
        }
        "sync" => existing(&next()?)?.sync_data(),
        "sync-dir" => File::open(next()?)?.sync_all(),
        "rename" => fs::rename(next()?, next()?),
        "remove" => fs::remove_file(next()?),
        "mkdir" => fs::create_dir(next()?),
        "threads" => threads(&next()?, number(&next()?)?),
        other => Err(io::Error::other(format!("no such step: {other}"))),
    }
}

fn main() -> io::Result<()> {
    let mut arguments: VecDeque<String> = std::env::args().skip(1).collect();
    while !arguments.is_empty() {
        step(&mut arguments)?;
    }
    println!("done");
    loop {
        std::thread::park();
    }
}
