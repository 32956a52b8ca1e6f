//! The undo journal: how each file and name was before it was changed without a flush.
//!
//! Written by the preloaded library, read by the tests. One record after the other:
//!
//! ```text
//! +---------+------+---------+---------+-----------+------+
//! | len u32 | kind | seq u64 | dev u64 | inode u64 | body |   little-endian; len counts what follows it
//! +---------+------+---------+---------+-----------+------+
//! kind 1, content   body: file length before u64, range start u64, range length u64,
//!                         then extents { at u64, len u32, bytes }: what was not zero in the range
//! kind 2, name      body: kept u8 (1: a hard link to what the name meant is kept), path
//! kind 3, durable   no body: everything of this inode up to `seq` has been flushed
//! ```
//!
//! Invariants: a record is written before the change that it can undo; a torn record at the end
//! therefore belongs to a change that did not happen. `seq` grows; a directory is an inode too.

/// A file or a directory, whatever its name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inode {
    /// The device that it lies on.
    pub device: u64,
    /// Its number there.
    pub number: u64,
}

/// Bytes at a place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where, in bytes from the start of the file.
    pub at: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// How a range of a file was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The length of the file, in bytes.
    pub file_bytes: u64,
    /// Where the range starts.
    pub at: u64,
    /// How long it is.
    pub len: u64,
    /// What was not zero in it.
    pub extents: Vec<Extent>,
}

/// What can be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A range of a file.
    Content(Content),
    /// A name in a directory.
    Name {
        /// The full path.
        path: Vec<u8>,
        /// Whether it meant something, to which a hard link is kept.
        kept: bool,
    },
    /// Nothing any more, of this inode, up to this number.
    Durable,
}

/// A record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// The file, or for a name the directory.
    pub inode: Inode,
    /// What can be undone.
    pub what: What,
}

/// The file in the side directory that holds the journal.
pub const JOURNAL: &str = "undo.journal";

/// The name of the hard link that a record keeps, in the side directory.
pub fn kept_name(seq: u64) -> String {
    format!("{seq}.kept")
}

impl Record {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.push(match self.what {
            What::Content(_) => 1,
            What::Name { .. } => 2,
            What::Durable => 3,
        });
        for word in [self.seq, self.inode.device, self.inode.number] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        match &self.what {
            What::Content(content) => {
                for word in [content.file_bytes, content.at, content.len] {
                    bytes.extend_from_slice(&word.to_le_bytes());
                }
                for extent in &content.extents {
                    bytes.extend_from_slice(&extent.at.to_le_bytes());
                    bytes.extend_from_slice(&(extent.bytes.len() as u32).to_le_bytes());
                    bytes.extend_from_slice(&extent.bytes);
                }
            }
            What::Name { path, kept } => {
                bytes.push(u8::from(*kept));
                bytes.extend_from_slice(path);
            }
            What::Durable => {}
        }
        let len = (bytes.len() - 4) as u32;
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes
    }

    fn decode(mut body: &[u8]) -> Option<Self> {
        let kind = take::<1>(&mut body)?[0];
        let mut word = || take::<8>(&mut body).map(u64::from_le_bytes);
        let seq = word()?;
        let inode = Inode { device: word()?, number: word()? };
        let what = match kind {
            1 => {
                let (file_bytes, at, len) = (word()?, word()?, word()?);
                let mut extents = Vec::new();
                while !body.is_empty() {
                    let at = u64::from_le_bytes(take(&mut body)?);
                    let len = u32::from_le_bytes(take(&mut body)?) as usize;
                    let (bytes, rest) = body.split_at_checked(len)?;
                    extents.push(Extent { at, bytes: bytes.to_vec() });
                    body = rest;
                }
                What::Content(Content { file_bytes, at, len, extents })
            }
            2 => {
                let kept = take::<1>(&mut body)?[0] == 1;
                What::Name { path: body.to_vec(), kept }
            }
            3 => What::Durable,
            _ => return None,
        };
        Some(Self { seq, inode, what })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// The records of a journal, and the length of its whole records in bytes.
pub fn decode_all(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut rest = bytes;
    loop {
        let mut ahead = rest;
        let record = take::<4>(&mut ahead)
            .and_then(|len| ahead.split_at_checked(u32::from_le_bytes(len) as usize))
            .and_then(|(body, behind)| Some((Record::decode(body)?, behind)));
        let Some((record, behind)) = record else {
            return (records, bytes.len() - rest.len());
        };
        records.push(record);
        rest = behind;
    }
}

/// Cuts bytes into what is not zero, in steps of 512 bytes.
pub fn extents(at: u64, bytes: &[u8]) -> Vec<Extent> {
    let mut found: Vec<Extent> = Vec::new();
    for (n, block) in bytes.chunks(512).enumerate() {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let block_at = at + 512 * n as u64;
        match found.last_mut() {
            Some(last) if last.at + last.bytes.len() as u64 == block_at => {
                last.bytes.extend_from_slice(block);
            }
            _ => found.push(Extent { at: block_at, bytes: block.to_vec() }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let inode = Inode { device: 7, number: 1 << 40 };
        let extents =
            vec![Extent { at: 512, bytes: vec![1, 2, 3] }, Extent { at: 9, bytes: vec![] }];
        let content = Content { file_bytes: 4096, at: 512, len: 99, extents };
        vec![
            Record { seq: 1, inode, what: What::Content(content) },
            Record { seq: 2, inode, what: What::Name { path: b"/a/b".to_vec(), kept: true } },
            Record { seq: 2, inode, what: What::Durable },
        ]
    }

    #[test]
    fn records_come_back_as_they_were() {
        let bytes: Vec<u8> = records().iter().flat_map(Record::encode).collect();
        assert_eq!(decode_all(&bytes), (records(), bytes.len()));
    }

    #[test]
    fn a_torn_record_at_the_end_is_left_out() {
        let bytes: Vec<u8> = records().iter().flat_map(Record::encode).collect();
        let whole: usize = records()[..2].iter().map(|record| record.encode().len()).sum();
        for cut in whole..bytes.len() {
            let (read, good) = decode_all(&bytes[..cut]);
            assert_eq!((read.len(), good), (2, whole), "cut at {cut}");
        }
    }

    #[test]
    fn zeros_take_no_room() {
        let mut bytes = vec![0; 4096];
        assert_eq!(extents(0, &bytes), []);
        bytes[600] = 1;
        bytes[1024] = 2;
        bytes[4095] = 3;
        let found = extents(10_000, &bytes);
        let places: Vec<(u64, usize)> = found.iter().map(|e| (e.at, e.bytes.len())).collect();
        assert_eq!(places, [(10_512, 1024), (13_584, 512)]);
    }
}
