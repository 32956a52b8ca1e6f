//! The declaration of messages: one table per struct, from which reading and writing follow.
//!
//! ```text
//! message! {
//!     /// Doc of the struct.
//!     pub struct FetchTopic {
//!         /// Doc of the field.      versions   name         type         default    flag
//!         [4..]                                topic:       String;
//!         [0.., nullable 1..]                  names:       Option<Vec<String>>;
//!         [7..]                                session_id:  i32          = -1,      ignorable;
//!         [12.., tag 0]                        cluster_id:  Option<String>;
//!     }
//! }
//! ```
//!
//! - *versions* is a range pattern: in other versions the field is not on the wire and reads as
//!   its default (of the type, unless one is given).
//! - *nullable* says in which versions an `Option` may be `None`.
//! - *tag* makes it a tagged field of the flexible versions (KIP-482), written only if it differs
//!   from its default. Tags are declared in ascending order.
//! - *ignorable* (Kafka's word): the value is dropped where the version lacks the field. Without
//!   it, writing a value other than the default there is an error, because the peer would act
//!   on less than it was told.
//!
//! Whether a version is flexible is a fact of the API and stands in the table of `api`.

use crate::ApiKey;
use crate::primitives::{DecodeError, EncodeError, Writer};
use bytes::{Bytes, BytesMut};

/// A request or a response body.
pub trait Message: Sized {
    /// The API that the message belongs to.
    const API: ApiKey;

    /// Reads a whole body in a version.
    ///
    /// # Errors
    /// A version that is not served, or bytes that are not this message in this version.
    fn decode(body: Bytes, version: i16) -> Result<Self, DecodeError>;

    /// Writes the body in a version.
    ///
    /// # Errors
    /// A version that is not served, or a value that has no form in it. What was written before
    /// the error stays written; [`crate::frame`] removes it.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;

    /// The body alone, as bytes.
    ///
    /// # Errors
    /// As [`Self::encode`].
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = Writer::copying(BytesMut::new());
        self.encode(&mut w, version)?;
        Ok(w.into_bytes().freeze())
    }
}

/// A request body, tied to the response that answers it.
pub trait RequestMessage: Message {
    /// The body of the answer, in the same version.
    type Response: Message;
}

/// Declares structs as described at the top of this module.
macro_rules! message {
    ($(
        $(#[$meta:meta])*
        pub struct $Name:ident {$(
            $(#[$field_meta:meta])*
            [$range:pat $(, nullable $null:pat)? $(, tag $tag:literal)?]
            $field:ident: $type:ty $(= $default:expr)? $(, $ignorable:ident)?;
        )*}
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $Name {$(
            $(#[$field_meta])*
            pub $field: $type,
        )*}

        impl Default for $Name {
            fn default() -> Self {
                Self {$( $field: message!(@default $type $(, $default)?), )*}
            }
        }

        impl crate::primitives::Field for $Name {
            fn bytes_min(form: crate::primitives::Form) -> usize {
                // A section of tagged fields is at least the byte of its count.
                let mut bytes = usize::from(form.flexible);
                $(if message!(@tag $($tag)?).is_none() && matches!(form.version, $range) {
                    bytes += <$type as crate::primitives::Field>::bytes_min(form);
                })*
                bytes
            }

            fn read(
                r: &mut crate::primitives::Reader,
                form: crate::primitives::Form,
            ) -> Result<Self, crate::primitives::DecodeError> {
                use crate::primitives::Field;
                let version = form.version;
                let mut message = Self::default();
                $(if message!(@tag $($tag)?).is_none() && matches!(version, $range) {
                    let form = form.field(stringify!($field), message!(@null version $(, $null)?));
                    message.$field = Field::read(r, form)?;
                })*
                if form.flexible {
                    r.tagged_fields(|tag, value| {
                        $(if message!(@tag $($tag)?) == Some(tag) && matches!(version, $range) {
                            let nullable = message!(@null version $(, $null)?);
                            let form = form.field(stringify!($field), nullable);
                            message.$field = Field::read(value, form)?;
                        })*
                        Ok(())
                    })?;
                }
                Ok(message)
            }

            fn write(
                &self,
                w: &mut crate::primitives::Writer,
                form: crate::primitives::Form,
            ) -> Result<(), crate::primitives::EncodeError> {
                let version = form.version;
                let mut tagged = 0;
                $(
                    let field = stringify!($field);
                    let in_version = matches!(version, $range);
                    let nullable = message!(@null version $(, $null)?);
                    let is_default = || self.$field == message!(@default $type $(, $default)?);
                    if !in_version {
                        if !message!(@ignorable $($ignorable)?) && !is_default() {
                            return Err(crate::primitives::EncodeError::NotInVersion {
                                field,
                                version,
                            });
                        }
                    } else if message!(@tag $($tag)?).is_some() {
                        tagged += u32::from(!is_default());
                    } else {
                        self.$field.write(w, form.field(field, nullable))?;
                    }
                )*
                if form.flexible {
                    w.uvarint(tagged);
                    $(if let Some(tag) = message!(@tag $($tag)?)
                        && matches!(version, $range)
                        && self.$field != message!(@default $type $(, $default)?)
                    {
                        let nullable = message!(@null version $(, $null)?);
                        let form = form.field(stringify!($field), nullable);
                        w.tagged_field(tag, |w| self.$field.write(w, form))?;
                    })*
                }
                Ok(())
            }
        }
    )+};
    (@default $type:ty) => { <$type>::default() };
    (@default $type:ty, $default:expr) => { $default };
    (@ignorable) => { false };
    (@ignorable ignorable) => { true };
    (@tag) => { None::<u32> };
    (@tag $tag:literal) => { Some::<u32>($tag) };
    (@null $version:ident) => { false };
    (@null $version:ident, $range:pat) => { matches!($version, $range) };
}

pub(crate) use message;
