//! Places in JSON messages, all of them found in one pass over a message: fields to read, and members to edit.

use super::fault::Fault;
use std::fmt::Display;
use tidemill_json::{Change, Document, EditError, Edits, Field, Found, Invalid, Sites};

/// The places that a guest has named, and where they are in the messages of a batch.
#[derive(Default)]
pub(super) struct JsonPlaces {
    pointers: Edits,
    sites: Sites,
}

impl JsonPlaces {
    /// # Errors
    /// A fault of kind `invalid`, if the pointer is none.
    pub(super) fn add_field(&mut self, pointer: &str) -> Result<Field, Fault> {
        self.pointers.add_field(pointer).map_err(|error| invalid("fields", error))
    }

    /// # Errors
    /// A fault of kind `invalid`, if the pointer is none, or cannot be edited beside another.
    pub(super) fn add_member(&mut self, pointer: &str) -> Result<(), Fault> {
        self.pointers.add(pointer).map(drop).map_err(|error| invalid("edits", error))
    }

    /// Another batch begins.
    pub(super) fn clear(&mut self) {
        self.sites.clear();
    }

    /// Goes over the next message of the batch. One that is not JSON is only counted by [`Self::skip`].
    #[inline]
    pub(super) fn find<'a>(&'a mut self, document: Document<'a>) -> Result<Found<'a>, Invalid> {
        self.pointers.find(document, &mut self.sites)
    }

    /// Counts a message of which nothing is known.
    pub(super) fn skip(&mut self) {
        self.sites.skip();
    }

    /// Appends message number `index` with its members changed. It is gone over again if nothing is known of it.
    #[inline]
    pub(super) fn edit(
        &mut self,
        index: usize,
        document: Document<'_>,
        changes: &[Change<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), EditError> {
        self.pointers.apply_at(document, (&self.sites, index), changes, out)
    }
}

fn invalid(list: &str, error: impl Display) -> Fault {
    Fault::invalid(format!("init described {list}: {error}"))
}
