//! How each Rust type lies on the wire, in a version of a message.
//!
//! Invariant: `read` takes at least `bytes_min` bytes or fails, so an array's count is bounded
//! by the bytes that remain before memory is taken for it. `write` then `read` in the same form
//! is the identity.

use super::{DecodeError, EncodeError, Reader, Writer};
use crate::{ErrorCode, Records};
use bytes::Bytes;
use fulmar_types::Uuid;

/// The circumstances of a field: what its form on the wire depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// The version of the message.
    pub version: i16,
    /// Whether this version has compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
    /// Whether null is allowed here in this version.
    pub nullable: bool,
    /// The name of the field, for errors.
    pub field: &'static str,
}

impl Form {
    /// The form of a whole message.
    pub(crate) fn message(version: i16, flexible: bool) -> Self {
        Self { version, flexible, nullable: false, field: "" }
    }

    /// The form of a field of it.
    pub(crate) fn field(self, field: &'static str, nullable: bool) -> Self {
        Self { field, nullable, ..self }
    }

    fn element(self) -> Self {
        Self { nullable: false, ..self }
    }
}

/// A value with a form on the wire.
pub(crate) trait Field: Sized {
    /// The fewest bytes that a value takes.
    fn bytes_min(form: Form) -> usize;
    /// Reads a value.
    fn read(r: &mut Reader, form: Form) -> Result<Self, DecodeError>;
    /// Writes the value.
    fn write(&self, w: &mut Writer, form: Form) -> Result<(), EncodeError>;
}

/// A value behind a length in which null has a place.
pub(crate) trait Prefixed: Sized {
    /// The bytes of the length.
    fn prefix_bytes(form: Form) -> usize;
    /// Reads a value or a null.
    fn read_nullable(r: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError>;
    /// Writes a value or a null.
    fn write_nullable(value: Option<&Self>, w: &mut Writer, form: Form) -> Result<(), EncodeError>;
}

impl<T: Prefixed> Field for Option<T> {
    fn bytes_min(form: Form) -> usize {
        T::prefix_bytes(form)
    }

    fn read(r: &mut Reader, form: Form) -> Result<Self, DecodeError> {
        match T::read_nullable(r, form)? {
            None if !form.nullable => {
                Err(DecodeError::Null { field: form.field, version: form.version })
            }
            value => Ok(value),
        }
    }

    fn write(&self, w: &mut Writer, form: Form) -> Result<(), EncodeError> {
        if self.is_none() && !form.nullable {
            return Err(EncodeError::Null { field: form.field, version: form.version });
        }
        T::write_nullable(self.as_ref(), w, form)
    }
}

/// The field of a type that never is null on the wire, by way of its nullable form.
macro_rules! never_null {
    ($([$($param:tt)*] $type:ty;)*) => {$(
        impl $($param)* Field for $type {
            fn bytes_min(form: Form) -> usize {
                <Self as Prefixed>::prefix_bytes(form)
            }

            fn read(r: &mut Reader, form: Form) -> Result<Self, DecodeError> {
                Self::read_nullable(r, form)?
                    .ok_or(DecodeError::Null { field: form.field, version: form.version })
            }

            fn write(&self, w: &mut Writer, form: Form) -> Result<(), EncodeError> {
                Self::write_nullable(Some(self), w, form)
            }
        }
    )*};
}

never_null! {
    [] String;
    [] Bytes;
    [] Records;
    [<T: Field>] Vec<T>;
}

/// A type of fixed size.
macro_rules! fixed {
    ($($type:ty: $bytes:literal, $method:ident;)*) => {$(
        impl Field for $type {
            fn bytes_min(_: Form) -> usize {
                $bytes
            }

            fn read(r: &mut Reader, _: Form) -> Result<Self, DecodeError> {
                r.$method()
            }

            fn write(&self, w: &mut Writer, _: Form) -> Result<(), EncodeError> {
                w.$method(*self);
                Ok(())
            }
        }
    )*};
}

fixed! {
    i8: 1, int8;
    i16: 2, int16;
    i32: 4, int32;
    i64: 8, int64;
    bool: 1, boolean;
    Uuid: 16, uuid;
}

impl Field for ErrorCode {
    fn bytes_min(_: Form) -> usize {
        2
    }

    fn read(r: &mut Reader, _: Form) -> Result<Self, DecodeError> {
        r.int16().map(Self::from_code)
    }

    fn write(&self, w: &mut Writer, _: Form) -> Result<(), EncodeError> {
        w.int16(self.code());
        Ok(())
    }
}

impl Prefixed for String {
    fn prefix_bytes(form: Form) -> usize {
        if form.flexible { 1 } else { 2 }
    }

    fn read_nullable(r: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError> {
        r.string_len(form.flexible)?.map(|len| r.text(len)).transpose()
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, form: Form) -> Result<(), EncodeError> {
        w.string_len(value.map(String::len), form.flexible)?;
        w.slice(value.map_or(&[], String::as_bytes));
        Ok(())
    }
}

fn long_prefix_bytes(form: Form) -> usize {
    if form.flexible { 1 } else { 4 }
}

impl Prefixed for Bytes {
    fn prefix_bytes(form: Form) -> usize {
        long_prefix_bytes(form)
    }

    fn read_nullable(r: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError> {
        r.long_len(form.flexible)?.map(|len| r.bytes(len)).transpose()
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, form: Form) -> Result<(), EncodeError> {
        w.long_len(value.map(Bytes::len), form.flexible)?;
        if let Some(bytes) = value {
            w.bytes(bytes);
        }
        Ok(())
    }
}

impl Prefixed for Records {
    fn prefix_bytes(form: Form) -> usize {
        long_prefix_bytes(form)
    }

    fn read_nullable(r: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError> {
        Ok(Bytes::read_nullable(r, form)?.map(Records::from))
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, form: Form) -> Result<(), EncodeError> {
        w.long_len(value.map(Records::len), form.flexible)?;
        for chunk in value.map_or(&[][..], Records::chunks) {
            w.bytes(chunk);
        }
        Ok(())
    }
}

impl<T: Field> Prefixed for Vec<T> {
    fn prefix_bytes(form: Form) -> usize {
        long_prefix_bytes(form)
    }

    fn read_nullable(r: &mut Reader, form: Form) -> Result<Option<Self>, DecodeError> {
        let Some(count) = r.long_len(form.flexible)? else { return Ok(None) };
        let form = form.element();
        let mut elements = r.elements(count, T::bytes_min(form))?;
        for _ in 0..count {
            elements.push(T::read(r, form)?);
        }
        Ok(Some(elements))
    }

    fn write_nullable(value: Option<&Self>, w: &mut Writer, form: Form) -> Result<(), EncodeError> {
        w.long_len(value.map(Vec::len), form.flexible)?;
        for element in value.into_iter().flatten() {
            element.write(w, form.element())?;
        }
        Ok(())
    }
}
