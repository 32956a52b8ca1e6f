//! Opens sealed segments by their trailer and the summary of their footer, in bounded memory.
//!
//! Never: read the frames here. A restart must not cost a pass over all data; scrubbing is for
//! that.

use crate::error::{Damage, DiskError, Failure};
use crate::files::{open_if_there, read_around};
use crate::footer::{FOOTER_HEADER_BYTES, FooterError, FooterHeader, Summary};
use crate::format::SECTOR;
use crate::format::frame::Chain;
use crate::format::header::SegmentHeader;
use crate::format::identity::Identity;
use crate::format::manifest::{Manifest, SealedInfo};
use crate::format::trailer::Trailer;
use crate::paths::Paths;
use fulmar_host::Host;
use fulmar_host::disk::File;
use fulmar_types::limits::SECTOR_BYTES;
use std::path::Path;

/// A sealed segment, as it is kept in memory.
#[derive(Clone, Debug)]
pub(crate) struct SealedSegment {
    pub info: SealedInfo,
    pub header: SegmentHeader,
    pub trailer: Trailer,
    pub summary: Summary,
}

/// Opens every segment that the manifest names.
pub(super) async fn open_all(
    host: &Host,
    paths: &Paths,
    identity: &Identity,
    manifest: &Manifest,
) -> Result<Vec<SealedSegment>, Failure> {
    let mut opened: Vec<SealedSegment> = Vec::with_capacity(manifest.sealed.len());
    for info in manifest.sealed.values() {
        let path = paths.segment(info.base);
        let Some(file) = open_if_there(host.disk.as_ref(), &path).await? else {
            let what = "the manifest names this segment, and it is missing";
            return Err(Damage::new(&path, None, what).into());
        };
        let segment = open_sealed(file.as_ref(), &path, info).await?;
        if segment.header.site != identity.site {
            return Err(Damage::new(&path, Some(0), "it belongs to another site").into());
        }
        if let Some(before) = opened.last()
            && before.info.last.index.next() == info.base
            && !follows(&segment.header, before)
        {
            let what = "it does not continue the segment before it";
            return Err(Damage::new(&path, Some(0), what).into());
        }
        opened.push(segment);
    }
    Ok(opened)
}

/// Whether a segment continues a sealed one.
pub(crate) fn follows(header: &SegmentHeader, before: &SealedSegment) -> bool {
    let chain: Chain = before.trailer.chain;
    header.chain == chain && header.predecessor == Some(before.info.last)
}

/// Opens one sealed segment and checks header, trailer and summary against what is known of it.
pub(crate) async fn open_sealed(
    file: &dyn File,
    path: &Path,
    info: &SealedInfo,
) -> Result<SealedSegment, Failure> {
    let bad = |at: u64, what: &str| Failure::from(Damage::new(path, Some(at), what));
    let failed = |error| Failure::from(DiskError::with("read", path)(error));
    let len = file.len_bytes().await.map_err(failed)?;
    if len != info.file_bytes || len < SECTOR {
        return Err(bad(len, &format!("it is {len} bytes long instead of {}", info.file_bytes)));
    }
    let sector = read_around(file, len - SECTOR, SECTOR_BYTES).await.map_err(failed)?;
    let trailer = Trailer::decode(&sector, len)
        .filter(|t| t.base == info.base && t.last == info.last && t.hash == info.hash)
        .ok_or_else(|| bad(len - SECTOR, "the trailer is not the one that the manifest names"))?;
    let sector = read_around(file, 0, SECTOR_BYTES).await.map_err(failed)?;
    let header = SegmentHeader::decode(&sector)
        .filter(|header| header.base == info.base)
        .ok_or_else(|| bad(0, "the header of the segment is not readable"))?;
    let at = trailer.frames_end;
    let damaged = |error: FooterError| bad(at, &error.to_string());
    let head = read_around(file, at, FOOTER_HEADER_BYTES).await.map_err(failed)?;
    let footer = FooterHeader::read(&head).map_err(damaged)?;
    if footer.len_bytes() != trailer.footer_len
        || footer.base != info.base
        || footer.last() != info.last.index
    {
        return Err(bad(at, "the footer is not the one of this segment"));
    }
    let summary = read_around(file, at, footer.summary_end()).await.map_err(failed)?;
    let summary = Summary::read(&summary).map_err(damaged)?;
    Ok(SealedSegment { info: *info, header, trailer, summary })
}
