//! A unit as it is built, and as it is read from a decoded entry.
//!
//! Invariants: a [`UnitView`] exists only over bytes that [`super::Entry::decode`] has checked, or
//! is being checked by it; iterating over it copies no batch.

use super::link::LinkOperation;
use super::operation::Item;
use super::{ENTRY_HEADER_BYTES, EntryError, Operation, Precondition, UNIT_HEADER_BYTES};
use crate::reader::Reader;
use bytes::{BufMut, Bytes, BytesMut};

const CHECKED: &str = "the entry was checked when it was decoded";

/// What takes effect all or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// What must hold, at most 65,535.
    pub preconditions: Vec<Precondition>,
    /// What is done, in order; at least one, at most 65,535.
    pub operations: Vec<Operation>,
}

impl Unit {
    /// A unit of one operation without preconditions.
    pub fn of(operation: Operation) -> Self {
        Self { preconditions: Vec::new(), operations: vec![operation] }
    }

    /// How many bytes it takes in an entry, its header included.
    pub fn encoded_len(&self) -> usize {
        let preconditions: usize = self.preconditions.iter().map(Precondition::encoded_len).sum();
        let operations: usize = self.operations.iter().map(Operation::encoded_len).sum();
        UNIT_HEADER_BYTES + preconditions + operations
    }

    /// Whether it brings record batches, and not only changes of a few bytes.
    pub fn has_records(&self) -> bool {
        self.operations.iter().any(|operation| match operation {
            Operation::Append { .. } | Operation::Link(LinkOperation::MirrorAppend { .. }) => true,
            Operation::Pipeline(operation) => operation.has_records(),
            Operation::Noop
            | Operation::CreateTopic { .. }
            | Operation::DeleteTopic { .. }
            | Operation::InitProducer { .. }
            | Operation::AdvanceStart { .. }
            | Operation::ExpireProducers { .. }
            | Operation::AlterTopic { .. }
            | Operation::Link(_) => false,
        })
    }

    /// Whether it has an operation, and every count and text of it can be written down.
    pub(super) fn is_encodable(&self) -> bool {
        !self.operations.is_empty()
            && self.operations.len() <= usize::from(u16::MAX)
            && self.preconditions.len() <= usize::from(u16::MAX)
            && self.operations.iter().all(Operation::is_encodable)
    }

    pub(super) fn encode(&self, out: &mut BytesMut) {
        let start = out.len();
        let len = self.encoded_len();
        out.put_u32_le(u32::try_from(len - 4).expect("a unit is far below 4 GiB"));
        out.put_u16_le(u16::try_from(self.preconditions.len()).expect("checked by the builder"));
        out.put_u16_le(u16::try_from(self.operations.len()).expect("checked by the builder"));
        self.preconditions.iter().for_each(|precondition| precondition.encode(out));
        self.operations.iter().for_each(|operation| operation.encode(out));
        assert_eq!(out.len() - start, len, "a unit is as long as it said");
    }
}

/// The units of a decoded entry, in order.
#[derive(Clone, Debug)]
pub struct Units<'a> {
    payload: &'a Bytes,
    at: usize,
    left: u32,
}

impl<'a> Units<'a> {
    pub(super) const fn new(payload: &'a Bytes, units: u32) -> Self {
        Self { payload, at: ENTRY_HEADER_BYTES, left: units }
    }
}

impl<'a> Iterator for Units<'a> {
    type Item = UnitView<'a>;

    fn next(&mut self) -> Option<UnitView<'a>> {
        self.left = self.left.checked_sub(1)?;
        let unit = read_unit(self.payload, self.at).expect(CHECKED);
        self.at = unit.end();
        Some(unit)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Units<'_> {}

/// One unit of a decoded entry.
#[derive(Clone, Debug)]
pub struct UnitView<'a> {
    payload: &'a Bytes,
    preconditions: u16,
    operations: u16,
    preconditions_at: usize,
    operations_at: usize,
    end: usize,
}

impl<'a> UnitView<'a> {
    /// How many preconditions it has.
    pub const fn precondition_count(&self) -> u16 {
        self.preconditions
    }

    /// How many operations it has, at least one.
    pub const fn operation_count(&self) -> u16 {
        self.operations
    }

    /// What must hold, in order.
    pub fn preconditions(&self) -> impl Iterator<Item = Precondition> + 'a {
        let payload = self.payload;
        self.items(self.preconditions_at, self.preconditions).map(move |item| {
            item.and_then(|item| Precondition::decode(payload, &item)).expect(CHECKED)
        })
    }

    /// What is done, in order. The batch of an append shares the memory of the payload and says
    /// where in it it lies.
    pub fn operations(&self) -> impl Iterator<Item = Operation> + 'a {
        let payload = self.payload;
        self.items(self.operations_at, self.operations).map(move |item| {
            item.and_then(|item| Operation::decode(payload, &item)).expect(CHECKED)
        })
    }

    /// The same unit, to be put into another entry.
    pub fn to_unit(&self) -> Unit {
        Unit {
            preconditions: self.preconditions().collect(),
            operations: self.operations().collect(),
        }
    }

    /// Where the next unit begins.
    pub(super) const fn end(&self) -> usize {
        self.end
    }

    /// Decodes every item, and demands that they fill the unit.
    pub(super) fn check(&self) -> Result<(), EntryError> {
        for item in self.items(self.preconditions_at, self.preconditions) {
            Precondition::decode(self.payload, &item?)?;
        }
        let mut at = self.operations_at;
        for item in self.items(self.operations_at, self.operations) {
            let item = item?;
            at = item.end();
            Operation::decode(self.payload, &item)?;
        }
        if at == self.end {
            Ok(())
        } else {
            Err(EntryError::Malformed { what: "the end of the unit", at })
        }
    }

    fn items(
        &self,
        mut at: usize,
        count: u16,
    ) -> impl Iterator<Item = Result<Item, EntryError>> + 'a {
        let (payload, end) = (self.payload, self.end);
        (0..count).map(move |_| {
            let item = Item::read(payload, at, end)?;
            at = item.end();
            Ok(item)
        })
    }
}

/// Reads the header of the unit at `at` and the headers of its preconditions.
pub(super) fn read_unit(payload: &Bytes, at: usize) -> Result<UnitView<'_>, EntryError> {
    let malformed = |what| EntryError::Malformed { what, at };
    let mut reader = Reader::starting_at(payload, at);
    let mut header = || {
        let len = usize::try_from(reader.u32()?).ok()?;
        let end = reader.position().checked_add(len).filter(|end| *end <= payload.len())?;
        Some((end, reader.u16()?, reader.u16()?))
    };
    let (end, preconditions, operations) =
        header().ok_or_else(|| malformed("a unit within its entry"))?;
    if operations == 0 {
        return Err(malformed("a unit with an operation"));
    }
    let preconditions_at = reader.position();
    let mut operations_at = preconditions_at;
    for _ in 0..preconditions {
        operations_at = Item::read(payload, operations_at, end)?.end();
    }
    Ok(UnitView { payload, preconditions, operations, preconditions_at, operations_at, end })
}
