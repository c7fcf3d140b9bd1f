//! [`Fields`]: a message's header fields, which are usually the same for all messages of a kind.

use std::ops::Deref;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Header fields, which are usually the same for all messages of their kind.
#[derive(Debug)]
pub(crate) enum Fields {
    Static(&'static HeaderMap),
    /// In a box, so that the usual ones are small.
    Own(Box<HeaderMap>),
}

impl Fields {
    /// Sets a field of this message only.
    pub(crate) fn set(&mut self, name: HeaderName, value: HeaderValue) {
        if let Self::Static(fields) = self {
            *self = Self::Own(Box::new(fields.clone()));
        }
        if let Self::Own(fields) = self {
            fields.insert(name, value);
        }
    }
}

impl Deref for Fields {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        match self {
            Self::Static(fields) => fields,
            Self::Own(fields) => fields,
        }
    }
}
