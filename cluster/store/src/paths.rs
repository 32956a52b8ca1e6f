//! The names in the directory of a node.
//!
//! ```text
//! life  identity  vote  manifest  install  ballast
//! log/<base index, 20 digits>.seg   one file per segment
//! log/spare-<n>.seg                 ready for use: empty, or an earlier segment
//! snap/                             see `snapshot`
//! incoming/<base index>.seg         a segment on its way from a peer
//! incoming/install.snap             the snapshot of an installation
//! ```

use fulmar_types::LogIndex;
use std::path::{Path, PathBuf};

const SUFFIX: &str = ".seg";
const SPARE: &str = "spare-";

/// The directory of a node.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub root: PathBuf,
    pub log: PathBuf,
    pub snapshots: PathBuf,
    pub incoming: PathBuf,
}

/// What a name in `log/` or `incoming/` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(LogIndex),
    Spare(u64),
    Unknown,
}

impl Paths {
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            log: root.join("log"),
            snapshots: root.join("snap"),
            incoming: root.join("incoming"),
        }
    }

    pub fn identity(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub fn life(&self) -> PathBuf {
        self.root.join("life")
    }

    pub fn vote(&self) -> PathBuf {
        self.root.join("vote")
    }

    pub fn manifest(&self) -> PathBuf {
        self.root.join("manifest")
    }

    pub fn install(&self) -> PathBuf {
        self.root.join("install")
    }

    pub fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    pub fn segment(&self, base: LogIndex) -> PathBuf {
        self.log.join(segment_name(base))
    }

    pub fn spare(&self, number: u64) -> PathBuf {
        self.log.join(format!("{SPARE}{number}{SUFFIX}"))
    }

    pub fn incoming_segment(&self, base: LogIndex) -> PathBuf {
        self.incoming.join(segment_name(base))
    }

    pub fn incoming_snapshot(&self) -> PathBuf {
        self.incoming.join("install.snap")
    }
}

fn segment_name(base: LogIndex) -> String {
    format!("{:020}{SUFFIX}", base.0)
}

/// Reads a name in `log/` or `incoming/`.
pub(crate) fn name_of(name: &str) -> Name {
    let Some(stem) = name.strip_suffix(SUFFIX) else { return Name::Unknown };
    if let Some(number) = stem.strip_prefix(SPARE) {
        // Only the spelling that `spare` gives: `spare-+1` is somebody else's.
        return match number.parse::<u64>() {
            Ok(n) if n.to_string() == number => Name::Spare(n),
            _ => Name::Unknown,
        };
    }
    match stem.parse::<u64>() {
        Ok(base) if segment_name(LogIndex(base)) == name => Name::Segment(LogIndex(base)),
        _ => Name::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_unknown() {
        let paths = Paths::new(Path::new("/data"));
        let name = |path: PathBuf| name_of(path.file_name().unwrap().to_str().unwrap());
        assert_eq!(name(paths.segment(LogIndex(12))), Name::Segment(LogIndex(12)));
        assert_eq!(name(paths.spare(3)), Name::Spare(3));
        for other in ["12.seg", "spare-+1.seg", "spare-.seg", "x", "00000000000000000012.se"] {
            assert_eq!(name_of(other), Name::Unknown, "{other}");
        }
    }
}
