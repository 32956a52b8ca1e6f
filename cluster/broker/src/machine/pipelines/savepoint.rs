//! Savepoints, as the state of the machine has them.

use super::{Changed, CodecError, Element, Reader, Writer, name};
use fulmar_store::StreamId;
use fulmar_types::Offset;
use fulmar_types::pipeline::{DELTAS_MAX, PIPELINE_PARTITIONS_MAX, Shape};

/// The state of a pipeline under a name.
///
/// ```text
/// name len u32, UTF-8 | number u64 | who len u32, UTF-8 | wall ms u64 | pipeline len u32, UTF-8
/// | shape [u8; 16] | epoch u64 | age ms u64 | positions u32, each stream u32, offset u64
/// | deltas u32, each epoch u64, first u64, end u64
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savepoint {
    /// Its name.
    pub name: String,
    /// The index of the entry that made it.
    pub number: u64,
    /// By whom, and when.
    pub changed: Changed,
    /// The pipeline, by name.
    pub pipeline: String,
    /// What the state depends on.
    pub shape: Shape,
    /// The epoch at whose end it is.
    pub epoch: u64,
    /// The age at which that ended, in milliseconds.
    pub age_ms: u64,
    /// Up to where each partition has been read.
    pub positions: Vec<(StreamId, Offset)>,
    /// The deltas, each with its epoch and where it lies.
    pub deltas: Vec<(u64, Offset, Offset)>,
}

impl Element for Savepoint {
    type Key = String;
    const SEED: u64 = 21;
    const BYTES_MIN: usize = 68;

    fn key(&self) -> String {
        self.name.clone()
    }

    fn encode(&self, out: &mut Writer) {
        out.text(&self.name);
        out.u64(self.number);
        self.changed.encode(out);
        out.text(&self.pipeline);
        out.raw(&self.shape);
        out.u64(self.epoch);
        out.u64(self.age_ms);
        out.count(self.positions.len());
        for (stream, next) in &self.positions {
            out.u32(stream.0);
            out.u64(next.0);
        }
        out.count(self.deltas.len());
        for (epoch, first, end) in &self.deltas {
            [*epoch, first.0, end.0].into_iter().for_each(|number| out.u64(number));
        }
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, CodecError> {
        let (own, number) = (name(input)?, input.u64()?);
        let changed = Changed::decode(input)?;
        let (pipeline, shape) = (name(input)?, input.array()?);
        let (epoch, age_ms) = (input.u64()?, input.u64()?);
        let positions = input.count(12)?;
        if positions > PIPELINE_PARTITIONS_MAX {
            return Err(CodecError::Tag);
        }
        let positions = (0..positions)
            .map(|_| Ok((StreamId(input.u32()?), Offset(input.u64()?))))
            .collect::<Result<_, CodecError>>()?;
        let deltas = input.count(24)?;
        if deltas > DELTAS_MAX {
            return Err(CodecError::Tag);
        }
        let deltas = (0..deltas)
            .map(|_| Ok((input.u64()?, Offset(input.u64()?), Offset(input.u64()?))))
            .collect::<Result<_, CodecError>>()?;
        Ok(Self { name: own, number, changed, pipeline, shape, epoch, age_ms, positions, deltas })
    }
}
