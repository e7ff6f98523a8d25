//! A batch as it crosses: the contract's record, of which the host borrows every part.
//!
//! Packed payloads are copied once: from where each message lies into the memory of the guest, which has room made for
//! all of them. The generated record wants them in a row, which would be a copy before that one.

use super::bindings::tidemill::plugin::types::{Column, PayloadParam};
use crate::copying::copy_in_pieces;
use crate::message::Message;
use std::mem::MaybeUninit;
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lower};
use wasmtime::{ValRaw, format_err};

/// Messages that cross together.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct GuestBatch<'a> {
    pub(super) count: u32,
    pub(super) payloads: Option<BatchPayloads<'a>>,
    pub(super) times: Option<&'a [u64]>,
    pub(super) columns: Option<&'a [Column<'a>]>,
}

/// What they say.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub(super) enum BatchPayloads<'a> {
    #[component(name = "packed")]
    Packed(PackedPayloads<'a>),
    #[component(name = "each")]
    Each(&'a [PayloadParam<'a>]),
}

/// Payloads in a row.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct PackedPayloads<'a> {
    pub(super) data: PayloadRow<'a>,
    pub(super) ends: &'a [u32],
    pub(super) binary: Option<&'a [u8]>,
}

/// The payloads of messages, which become a list of bytes in the guest.
#[derive(Clone, Copy)]
pub(super) struct PayloadRow<'a> {
    messages: &'a [Message],
    bytes: usize,
}

impl<'a> PayloadRow<'a> {
    /// The payloads of these messages, which are so many bytes together.
    pub(super) fn new(messages: &'a [Message], bytes: usize) -> Self {
        Self { messages, bytes }
    }

    #[cfg(test)]
    pub(super) fn to_vec(self) -> Vec<u8> {
        let mut room = vec![0xff; self.bytes];
        self.copy_to(&mut room);
        room
    }

    /// Copies them, one after the other, to where there is exactly as much room.
    fn copy_to(&self, mut room: &mut [u8]) {
        for message in self.messages {
            let payload = message.payload.as_bytes();
            let (to, rest) = room.split_at_mut(payload.len());
            copy_in_pieces(payload, to);
            room = rest;
        }
    }

    /// Has the guest make room, and copies them there. Gives where, and how long they are, as the guest is told.
    fn lower<T>(&self, cx: &mut LowerContext<'_, T>) -> wasmtime::Result<[u32; 2]> {
        let start = cx.realloc(0, 0, 1, self.bytes)?;
        let room = cx.as_slice_mut().get_mut(start..).and_then(|memory| memory.get_mut(..self.bytes));
        self.copy_to(room.ok_or_else(|| format_err!("the guest has no such room"))?);
        Ok([u32::try_from(start)?, u32::try_from(self.bytes)?])
    }
}

#[expect(unsafe_code, reason = "it has the shape of a list of bytes, whose own promises these are")]
// SAFETY: the layout, the flat values and the check of the type are those of a list of bytes.
unsafe impl ComponentType for PayloadRow<'_> {
    type Lower = <[u8] as ComponentType>::Lower;
    const ABI: CanonicalAbiInfo = <[u8] as ComponentType>::ABI;
    const IS_RUST_UNIT_TYPE: bool = false;
    const MAY_REQUIRE_REALLOC: bool = true;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> wasmtime::Result<()> {
        <[u8] as ComponentType>::typecheck(ty, types)
    }
}

#[expect(
    unsafe_code,
    reason = "what is written is what a list of bytes is written as: a pointer and a length"
)]
// SAFETY: all of the flat values, and all of the memory that the layout has, is written.
unsafe impl Lower for PayloadRow<'_> {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        flat: &mut MaybeUninit<Self::Lower>,
    ) -> wasmtime::Result<()> {
        let pair = self.lower(cx)?;
        flat.write(pair.map(|value| ValRaw::i64(i64::from(value))));
        Ok(())
    }

    fn linear_lower_to_memory<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        offset: usize,
    ) -> wasmtime::Result<()> {
        let [start, length] = self.lower(cx)?;
        *cx.get(offset) = start.to_le_bytes();
        *cx.get(offset + size_of::<u32>()) = length.to_le_bytes();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Payload;
    use crate::message::metadata::{Metadata, Origin};

    #[test]
    fn payloads_are_copied_one_after_the_other_however_long_they_are() {
        let origin = Origin::new([("room", "7")]);
        let lengths = [0, 1, 1024, 1025, 100_000, 0];
        let payloads = lengths.map(|length| (0..length).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        let messages = payloads.clone().map(|bytes| Message {
            payload: Payload::binary(bytes),
            metadata: Metadata::new(origin.clone(), 1),
        });
        assert!(PayloadRow::new(&messages, lengths.iter().sum()).to_vec() == payloads.concat());
        assert!(PayloadRow::new(&[], 0).to_vec().is_empty());
    }
}
