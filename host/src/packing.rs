//! Payloads packed and unpacked: gzip (RFC 1952), zlib (RFC 1950) and zstd (RFC 8878).
//!
//! One of these for an end, its state used again for every message. What unpacks to more than the
//! limit is found while it unpacks, so a bomb costs no more than the limit.
//! Why not async-compression or flate2's readers: neither keeps its state from one message to the next.

use crate::config::Packing;
use bytes::Bytes;
use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};
use std::fmt;
use std::io;
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

/// Of zstd, its own default.
const ZSTD_LEVEL: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;
/// Room is made for so many times the packed size, and doubled from there.
const USUAL_RATIO: usize = 4;
const LEAST_ROOM: usize = 4 << 10;
/// A larger workspace is not kept for the next message.
const KEPT_BYTES: usize = 1 << 20;
/// A zstd frame may ask for a window of 8 MiB whatever the limit: RFC 8878 wants every decoder to
/// grant that.
const ZSTD_WINDOW_LOG: u32 = 23;
/// The longest window that zstd knows without special mode.
const ZSTD_LONGEST_WINDOW_LOG: u32 = 27;

/// Compresses payloads, each for itself, with one state that is used again.
pub struct Packer {
    engine: PackEngine,
    workspace: Vec<u8>,
}

enum PackEngine {
    Gzip(Compress),
    Zlib(Compress),
    Zstd(zstd::bulk::Compressor<'static>),
}

/// Unpacks payloads, up to a limit.
pub struct Unpacker {
    engine: UnpackEngine,
    max_bytes: usize,
    workspace: Vec<u8>,
}

enum UnpackEngine {
    Gzip(Decompress),
    Zlib(Decompress),
    Zstd(Decoder<'static>),
}

/// Why a payload could not be unpacked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It is larger than the limit.
    #[error("unpacks to more than max_message_size ({0} bytes)")]
    TooLarge(usize),
    /// It is not what it should be.
    #[error("not {packing}: {why}")]
    Broken {
        /// What it should be.
        packing: Packing,
        /// What is wrong with it.
        why: String,
    },
}

impl Packer {
    /// A packer of one kind.
    pub fn new(packing: Packing) -> Self {
        let deflate = |has_header| Compress::new(Compression::default(), has_header);
        let engine = match packing {
            Packing::Gzip => PackEngine::Gzip(deflate(false)),
            Packing::Zlib => PackEngine::Zlib(deflate(true)),
            Packing::Zstd => PackEngine::Zstd(
                zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("zstd knows its own default level"),
            ),
        };
        Self { engine, workspace: Vec::new() }
    }

    /// Compresses these bytes.
    pub fn pack(&mut self, bytes: &[u8]) -> Bytes {
        let out = &mut self.workspace;
        out.clear();
        match &mut self.engine {
            PackEngine::Gzip(engine) => {
                out.extend(GZIP_HEAD);
                deflate(engine, bytes, out);
                let mut crc = Crc::new();
                crc.update(bytes);
                out.extend(crc.sum().to_le_bytes());
                out.extend(crc.amount().to_le_bytes());
            }
            PackEngine::Zlib(engine) => deflate(engine, bytes, out),
            PackEngine::Zstd(engine) => {
                out.reserve(zstd::zstd_safe::compress_bound(bytes.len()));
                engine.compress_to_buffer(bytes, out).expect("zstd packs whatever it has room for");
            }
        }
        let packed = Bytes::copy_from_slice(out);
        out.shrink_to(KEPT_BYTES);
        packed
    }
}

/// Deflated, no flags, no time, unknown system.
const GZIP_HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

fn deflate(engine: &mut Compress, bytes: &[u8], out: &mut Vec<u8>) {
    engine.reset();
    loop {
        let rest = &bytes[usize::try_from(engine.total_in()).unwrap_or(usize::MAX)..];
        out.reserve((rest.len() / 2).max(LEAST_ROOM));
        let status = engine.compress_vec(rest, out, FlushCompress::Finish);
        if status.expect("deflate packs whatever it has room for") == Status::StreamEnd {
            return;
        }
    }
}

impl Unpacker {
    /// An unpacker of one kind, of payloads that unpack to at most `max_bytes`.
    pub fn new(packing: Packing, max_bytes: usize) -> Self {
        let engine = match packing {
            Packing::Gzip => UnpackEngine::Gzip(Decompress::new(false)),
            Packing::Zlib => UnpackEngine::Zlib(Decompress::new(true)),
            Packing::Zstd => {
                let limit_log = usize::BITS - max_bytes.leading_zeros();
                let window_log = limit_log.clamp(ZSTD_WINDOW_LOG, ZSTD_LONGEST_WINDOW_LOG);
                let mut decoder = Decoder::new().expect("a decoder needs memory alone");
                decoder
                    .set_parameter(DParameter::WindowLogMax(window_log))
                    .expect("the window is within what zstd knows");
                UnpackEngine::Zstd(decoder)
            }
        };
        Self { engine, max_bytes, workspace: Vec::new() }
    }

    /// The unpacked bytes.
    ///
    /// # Errors
    /// If they are more than the limit, or `bytes` are not packed as they should be.
    pub fn unpack(&mut self, bytes: &[u8]) -> Result<Bytes, UnpackError> {
        let mut room = OutputRoom { out: &mut self.workspace, max_bytes: self.max_bytes };
        room.out.clear();
        room.make(bytes.len().saturating_mul(USUAL_RATIO))?;
        let (packing, unpacked) = match &mut self.engine {
            UnpackEngine::Gzip(engine) => (Packing::Gzip, gunzip(engine, bytes, &mut room)),
            UnpackEngine::Zlib(engine) => (Packing::Zlib, inflate_whole(engine, bytes, &mut room)),
            UnpackEngine::Zstd(engine) => (Packing::Zstd, unzstd(engine, bytes, &mut room)),
        };
        let result = match unpacked {
            Ok(()) if self.workspace.len() > self.max_bytes => Err(UnpackError::TooLarge(self.max_bytes)),
            Ok(()) => Ok(Bytes::copy_from_slice(&self.workspace)),
            Err(Stop::TooLarge(error)) => Err(error),
            Err(Stop::Broken(why)) => Err(UnpackError::Broken { packing, why }),
        };
        self.workspace.clear();
        self.workspace.shrink_to(KEPT_BYTES);
        result
    }
}

/// What unpacking stops at.
enum Stop {
    TooLarge(UnpackError),
    Broken(String),
}

impl From<UnpackError> for Stop {
    fn from(error: UnpackError) -> Self {
        Self::TooLarge(error)
    }
}

fn broken(why: impl Into<String>) -> Stop {
    Stop::Broken(why.into())
}

/// What was unpacked so far, and how much it may become: one byte more than the limit, to know.
struct OutputRoom<'a> {
    out: &'a mut Vec<u8>,
    max_bytes: usize,
}

impl OutputRoom<'_> {
    fn is_full(&self) -> bool {
        self.out.len() == self.out.capacity()
    }

    /// Makes room for `more` bytes, or for as many as there may be.
    fn make(&mut self, more: usize) -> Result<(), UnpackError> {
        if self.out.len() > self.max_bytes {
            return Err(UnpackError::TooLarge(self.max_bytes));
        }
        let most = self.max_bytes.saturating_add(1) - self.out.len();
        self.out.reserve_exact(more.max(LEAST_ROOM).min(most));
        Ok(())
    }

    fn grow(&mut self) -> Result<(), UnpackError> {
        self.make(self.out.len())
    }
}

/// Unpacks one deflated stream; answers what follows it.
fn inflate<'b>(
    engine: &mut Decompress,
    bytes: &'b [u8],
    room: &mut OutputRoom<'_>,
) -> Result<&'b [u8], Stop> {
    loop {
        let before = engine.total_in();
        let rest = &bytes[usize::try_from(before).unwrap_or(usize::MAX)..];
        let length = room.out.len();
        let status = engine.decompress_vec(rest, room.out, FlushDecompress::None);
        let status = status.map_err(|error| broken(error.to_string()))?;
        let taken = usize::try_from(engine.total_in()).unwrap_or(usize::MAX);
        if status == Status::StreamEnd {
            return Ok(&bytes[taken..]);
        }
        if room.is_full() {
            room.grow()?;
        } else if engine.total_in() == before && room.out.len() == length {
            return Err(broken("it ends too early"));
        }
    }
}

fn inflate_whole(engine: &mut Decompress, bytes: &[u8], room: &mut OutputRoom<'_>) -> Result<(), Stop> {
    engine.reset(true);
    let rest = inflate(engine, bytes, room)?;
    if rest.is_empty() { Ok(()) } else { Err(broken("more follows its end")) }
}

/// Unpacks all members of a gzip text.
fn gunzip(engine: &mut Decompress, mut bytes: &[u8], room: &mut OutputRoom<'_>) -> Result<(), Stop> {
    loop {
        let start = room.out.len();
        engine.reset(false);
        bytes = inflate(engine, gzip_body(bytes)?, room)?;
        let (trailer, rest) = bytes.split_at_checked(8).ok_or_else(|| broken("it ends too early"))?;
        let mut crc = Crc::new();
        crc.update(&room.out[start..]);
        let sums = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()];
        if trailer != sums.as_flattened() {
            return Err(broken("its checksum is wrong"));
        }
        if rest.is_empty() {
            return Ok(());
        }
        bytes = rest;
    }
}

/// What follows the header of a gzip member.
fn gzip_body(bytes: &[u8]) -> Result<&[u8], Stop> {
    const HEADER_CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    let early = || broken("it ends too early");
    let (head, mut rest) = bytes.split_at_checked(GZIP_HEAD.len()).ok_or_else(early)?;
    if head[..3] != GZIP_HEAD[..3] {
        return Err(broken("its header is wrong"));
    }
    let flags = head[3];
    if flags & EXTRA != 0 {
        let (length, after) = rest.split_at_checked(2).ok_or_else(early)?;
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        rest = after.get(length..).ok_or_else(early)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = memchr::memchr(0, rest).ok_or_else(early)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HEADER_CRC != 0 {
        rest = rest.get(2..).ok_or_else(early)?;
    }
    Ok(rest)
}

/// Unpacks all frames of a zstd text.
fn unzstd(engine: &mut Decoder<'static>, bytes: &[u8], room: &mut OutputRoom<'_>) -> Result<(), Stop> {
    let failed = |error: io::Error| broken(error.to_string().to_lowercase());
    engine.reinit().map_err(failed)?;
    let mut input = InBuffer::around(bytes);
    let mut is_whole = false;
    while !is_whole || input.pos() < bytes.len() {
        let (length, before) = (room.out.len(), input.pos());
        let mut output = OutBuffer::around_pos(&mut *room.out, length);
        is_whole = engine.run(&mut input, &mut output).map_err(failed)? == 0;
        if is_whole {
            continue;
        }
        if room.is_full() {
            room.grow()?;
        } else if input.pos() == before && room.out.len() == length {
            return Err(broken("it ends too early"));
        }
    }
    Ok(())
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{GzBuilder, read, write};
    use proptest::prelude::*;
    use std::io::{Read as _, Write as _};

    const ALL: [Packing; 3] = [Packing::Gzip, Packing::Zlib, Packing::Zstd];

    /// Unpacked by others than us.
    fn reference(packing: Packing, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        match packing {
            Packing::Gzip => read::GzDecoder::new(bytes).read_to_end(&mut out).map(|_| ()),
            Packing::Zlib => read::ZlibDecoder::new(bytes).read_to_end(&mut out).map(|_| ()),
            Packing::Zstd => zstd::stream::copy_decode(bytes, &mut out),
        }
        .expect("it is sound");
        out
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_to_the_same_with_state_used_again(
            texts in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..5000), 1..5),
        ) {
            for packing in ALL {
                let (mut packer, mut unpacker) = (Packer::new(packing), Unpacker::new(packing, 5000));
                for text in &texts {
                    let packed = packer.pack(text);
                    prop_assert_eq!(&reference(packing, &packed), text);
                    prop_assert_eq!(unpacker.unpack(&packed), Ok(Bytes::from(text.clone())));
                }
            }
        }

        #[test]
        fn no_bytes_make_unpacking_panic_or_exceed_the_limit(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 0usize..200,
        ) {
            for packing in ALL {
                let mut unpacker = Unpacker::new(packing, 100);
                prop_assert!(unpacker.unpack(&bytes).map_or(0, |out| out.len()) <= 100);
                let mut packed = Packer::new(packing).pack(&bytes[..bytes.len().min(100)]).to_vec();
                if cut < packed.len() {
                    packed.truncate(cut);
                    let is_broken = matches!(unpacker.unpack(&packed), Err(UnpackError::Broken { .. }));
                    prop_assert!(is_broken, "{:?} cut at {}", packing, cut);
                }
            }
        }
    }

    #[test]
    fn the_limit_is_exact_and_the_next_message_is_not_hurt() {
        for packing in ALL {
            let (mut packer, mut unpacker) = (Packer::new(packing), Unpacker::new(packing, 1000));
            assert_eq!(unpacker.unpack(&packer.pack(&[7; 1000])).map(|out| out.len()), Ok(1000));
            let error = unpacker.unpack(&packer.pack(&[7; 1001])).expect_err("one too many");
            assert_eq!(error, UnpackError::TooLarge(1000));
            assert_eq!(unpacker.unpack(&packer.pack(b"next")).as_deref(), Ok(&b"next"[..]));
        }
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        for packing in ALL {
            let bomb = Packer::new(packing).pack(&vec![0; 64 << 20]);
            assert!(bomb.len() < 128 << 10, "{packing:?}");
            let mut unpacker = Unpacker::new(packing, 1 << 20);
            assert_eq!(unpacker.unpack(&bomb), Err(UnpackError::TooLarge(1 << 20)));
            assert!(unpacker.workspace.capacity() <= KEPT_BYTES + 1);
        }
    }

    #[test]
    fn a_window_larger_than_the_limit_allows_is_refused() {
        // Magic, a frame header with a window of 128 MiB, an empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 1, 0, 0];
        let error = Unpacker::new(Packing::Zstd, 1 << 20).unpack(&frame).expect_err("too much memory");
        assert!(matches!(error, UnpackError::Broken { .. }), "{error}");
    }

    #[test]
    fn members_and_frames_in_a_row_are_one_text() {
        for packing in [Packing::Gzip, Packing::Zstd] {
            let mut packer = Packer::new(packing);
            let row = [packer.pack(b"one "), packer.pack(b""), packer.pack(b"text")].concat();
            assert_eq!(Unpacker::new(packing, 100).unpack(&row).as_deref(), Ok(&b"one text"[..]));
        }
    }

    #[test]
    fn headers_of_other_makers_are_read() {
        let builder = GzBuilder::new().filename("a").comment("b").extra(vec![1, 2, 3]).mtime(5);
        let mut encoder: write::GzEncoder<Vec<u8>> = builder.write(Vec::new(), Compression::best());
        encoder.write_all(b"text").expect("it is written");
        let packed = encoder.finish().expect("it is written");
        let mut unpacker = Unpacker::new(Packing::Gzip, 100);
        assert_eq!(unpacker.unpack(&packed).as_deref(), Ok(&b"text"[..]));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let told = |packing, bytes: &[u8]| {
            Unpacker::new(packing, 100).unpack(bytes).expect_err("it is broken").to_string()
        };
        assert_eq!(told(Packing::Gzip, b"{\"a\": 1, \"b\": 2}"), "not gzip: its header is wrong");
        assert_eq!(told(Packing::Zstd, b""), "not zstd: it ends too early");
        let mut packed = Packer::new(Packing::Gzip).pack(b"text").to_vec();
        let length = packed.len();
        packed[length - 5] ^= 1;
        assert_eq!(told(Packing::Gzip, &packed), "not gzip: its checksum is wrong");
        let trailing = [&Packer::new(Packing::Zlib).pack(b"text")[..], b"!"].concat();
        assert_eq!(told(Packing::Zlib, &trailing), "not zlib: more follows its end");
    }
}
