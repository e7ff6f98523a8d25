//! Makes a gzip file whole that ends in the middle of a member, as a killed process leaves it.
//!
//! Where the text up to some point can be unpacked without what follows, the member is ended there in
//! its place: the file is cut to it and gets the sums of the text. What could still be read behind that
//! point comes back as text, to be written anew. Nothing else of the file is touched.

use super::{HEAD, Tail, tail};
use flate2::bufread::GzDecoder;
use flate2::{Crc, Decompress, FlushDecompress, Status};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom, Write as _};

/// How an empty block ends, behind which a member can be ended: packing is flushed so.
const FLUSHED: [u8; 4] = [0, 0, 0xff, 0xff];
/// Read at once.
const READ_BYTES: usize = 256 << 10;
/// Text behind the last flushed block that is kept in memory. We flush all we write, so it is others'.
const MAX_LOOSE_BYTES: usize = 64 << 20;
/// A header longer than this is none.
const MAX_HEADER_BYTES: u64 = 64 << 10;
/// So many bytes are the same in all heads.
const MAGIC_BYTES: usize = 3;
/// Of the places that look like the end of a flushed block, the last few are looked at: one of 4 billion
/// is none.
const KEPT_PLACES: usize = 4;

/// What was done to a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::sink) struct Mended {
    /// Whether it ended in the middle of a member.
    pub(in crate::sink) was_torn: bool,
    /// Bytes that were cut off its end; what they said is in `loose`, as far as it can be known.
    pub(in crate::sink) cut_bytes: u64,
    /// Text that has to be written again.
    pub(in crate::sink) loose: Vec<u8>,
    /// The last byte of the text that is in the file.
    pub(in crate::sink) last: Option<u8>,
}

/// What is found where a member should be.
enum FoundMember {
    /// It is whole, and ends here.
    Whole(u64),
    /// The file ends in its middle.
    Torn,
    /// It is no member, or not what it was.
    Damaged,
}

/// Makes a file whole, if it is not, so that members can be appended.
///
/// # Errors
/// If it cannot be read or written, if it is damaged otherwise than by ending too early, or if more text
/// would have to be written anew than fits into memory.
pub(in crate::sink) fn mend(file: &File) -> io::Result<Mended> {
    let length = file.metadata()?.len();
    let mut mended = Mended::default();
    // The one before the last as well: of a torn one nothing may be left, and how its text ends counts.
    let last = last_head(file, length)?.unwrap_or(0);
    let mut start = last_head(file, last)?.unwrap_or(0);
    while start < length {
        match member(file, start, &mut mended.last)? {
            FoundMember::Whole(end) => start = end,
            FoundMember::Torn => {
                let torn = Torn::read(file, start)?;
                let keep = torn.place.as_ref().map_or(start, |place| place.end);
                file.set_len(keep)?;
                if let Some(place) = torn.place {
                    append(file, &place.tail)?;
                    mended.last = place.last.or(mended.last);
                }
                return Ok(Mended { was_torn: true, cut_bytes: length - keep, loose: torn.loose, ..mended });
            }
            FoundMember::Damaged => {
                let kept = without_zeros(file, length)?;
                if kept == length {
                    let what = format!("the file is no gzip from byte {start} on: move it away");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                // A power cut leaves zeros where nothing was written yet.
                file.set_len(kept)?;
                let mended = mend(file)?;
                return Ok(Mended {
                    was_torn: true,
                    cut_bytes: mended.cut_bytes + (length - kept),
                    ..mended
                });
            }
        }
    }
    Ok(mended)
}

fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::End(0))?;
    file.write_all(bytes)
}

/// The length of a file without the zeros at its end.
fn without_zeros(file: &File, length: u64) -> io::Result<u64> {
    let mut end = length;
    let mut window = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(READ_BYTES as u64);
        read_window(file, start, end, &mut window)?;
        if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

fn read_window(mut file: &File, start: u64, end: u64, window: &mut Vec<u8>) -> io::Result<()> {
    window.clear();
    file.seek(SeekFrom::Start(start))?;
    file.take(end - start).read_to_end(window)?;
    Ok(())
}

/// Where the last of our members begins that begin before `end`.
fn last_head(file: &File, mut end: u64) -> io::Result<Option<u64>> {
    let mut window = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(READ_BYTES as u64);
        // A head may lie across two windows.
        read_window(file, start, end + HEAD.len() as u64 - 1, &mut window)?;
        if let Some(place) = memchr::memmem::rfind(&window, &HEAD) {
            return Ok(Some(start + place as u64));
        }
        end = start;
    }
    Ok(None)
}

/// What is at `start`, and the last byte of its text if it is a whole member.
fn member(file: &File, start: u64, last: &mut Option<u8>) -> io::Result<FoundMember> {
    let mut reader = Counted { inner: reader(file, start)?, taken: 0 };
    if !reader.fill_buf()?.iter().zip(HEAD).take(MAGIC_BYTES).all(|(byte, known)| *byte == known) {
        return Ok(FoundMember::Damaged);
    }
    let mut unpacked = GzDecoder::new(&mut reader);
    let mut text = vec![0; READ_BYTES];
    let mut newest = None;
    loop {
        match unpacked.read(&mut text) {
            Ok(0) => break,
            Ok(read) => newest = Some(text[read - 1]),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(FoundMember::Torn),
            Err(error) if error.raw_os_error().is_none() => return Ok(FoundMember::Damaged),
            Err(error) => return Err(error),
        }
    }
    *last = newest.or(*last);
    Ok(FoundMember::Whole(start + reader.taken))
}

fn reader(mut file: &File, start: u64) -> io::Result<BufReader<&File>> {
    file.seek(SeekFrom::Start(start))?;
    Ok(BufReader::with_capacity(READ_BYTES, file))
}

/// Counts what is taken of a reader.
struct Counted<R> {
    inner: R,
    taken: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.taken += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, taken: usize) {
        self.taken += taken as u64;
        self.inner.consume(taken);
    }
}

/// A place at which a torn member can be ended.
#[derive(Clone, Debug)]
struct PieceEnd {
    end: u64,
    tail: Tail,
    /// How much text is before it, and its last byte.
    text: u64,
    last: Option<u8>,
}

/// A member that is not whole.
struct Torn {
    place: Option<PieceEnd>,
    /// The text behind the place, as far as it can be unpacked.
    loose: Vec<u8>,
}

impl Torn {
    fn read(file: &File, start: u64) -> io::Result<Self> {
        let Some(header) = header(file, start)? else { return Ok(Self { place: None, loose: Vec::new() }) };
        let body = start + header;
        let mut places = VecDeque::new();
        unpack(file, body, |place| {
            if places.len() == KEPT_PLACES {
                places.pop_front();
            }
            places.push_back(place);
        })?;
        let mut place = None;
        while let Some(last) = places.pop_back() {
            if is_flushed(file, body, last.end)? {
                place = Some(last);
                break;
            }
        }
        let known = place.as_ref().map_or(0, |place| place.text);
        let loose = text_behind(file, body, known)?;
        Ok(Self { place, loose })
    }
}

/// How long the header of a member is; `None` if it is none, or not whole.
fn header(file: &File, start: u64) -> io::Result<Option<u64>> {
    let mut reader = Counted { inner: reader(file, start)?.take(MAX_HEADER_BYTES), taken: 0 };
    let unpacked = GzDecoder::new(&mut reader);
    // The header is read when the decoder is made, as far as it is there.
    if unpacked.header().is_none() {
        return Ok(None);
    }
    drop(unpacked);
    Ok(Some(reader.taken))
}

/// Unpacks a body as far as that goes, and tells each place behind which it may be ended.
fn unpack(file: &File, body: u64, mut found: impl FnMut(PieceEnd)) -> io::Result<()> {
    let mut inflating = Inflating::default();
    each_part(file, body, |part, end, is_flushed| {
        let goes_on = inflating.take(part, |_| {});
        if goes_on && is_flushed {
            let Inflating { crc, text, last, .. } = &inflating;
            found(PieceEnd { end, tail: tail(crc), text: *text, last: *last });
        }
        goes_on
    })
}

/// Whether a body can be ended at a place.
fn is_flushed(file: &File, body: u64, place: u64) -> io::Result<bool> {
    let mut inflating = Inflating::default();
    // A part ends at each of these places.
    each_part(file, body, |part, end, _| inflating.take(part, |_| {}) && end < place)?;
    let text = inflating.text;
    inflating.take(&[3, 0], |_| {});
    Ok(inflating.has_ended && inflating.text == text)
}

/// The text of a body that comes after so many bytes of it.
fn text_behind(file: &File, body: u64, known: u64) -> io::Result<Vec<u8>> {
    let mut inflating = Inflating::default();
    let mut loose = Vec::new();
    let mut seen = 0;
    each_part(file, body, |part, _, _| {
        let goes_on = inflating.take(part, |text| {
            let skipped = usize::try_from(known.saturating_sub(seen)).unwrap_or(usize::MAX).min(text.len());
            seen += text.len() as u64;
            loose.extend_from_slice(&text[skipped..]);
        });
        goes_on && loose.len() <= MAX_LOOSE_BYTES
    })?;
    if loose.len() > MAX_LOOSE_BYTES {
        let hint = "unpack what is left of it with `gzip -dc`, and move it away";
        return Err(io::Error::other(format!("the file ends in the middle of a long gzip member: {hint}")));
    }
    Ok(loose)
}

/// Reads a body in parts, each up to the next place that looks like the end of a flushed block; `take`
/// is told where the part ends and whether it does so there, and answers whether to go on.
fn each_part(file: &File, body: u64, mut take: impl FnMut(&[u8], u64, bool) -> bool) -> io::Result<()> {
    let mut reader = reader(file, body)?;
    let mut place = body;
    // The last bytes of what was read before: the mark may lie across two reads.
    let mut tail = [1u8; FLUSHED.len()];
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let mut end = buffer.len();
        let mut is_flushed = false;
        for (n, byte) in buffer.iter().enumerate() {
            tail.rotate_left(1);
            tail[FLUSHED.len() - 1] = *byte;
            if tail == FLUSHED {
                (end, is_flushed) = (n + 1, true);
                break;
            }
        }
        place += end as u64;
        if !take(&buffer[..end], place, is_flushed) {
            return Ok(());
        }
        reader.consume(end);
    }
}

/// A body that is being unpacked.
struct Inflating {
    engine: Decompress,
    crc: Crc,
    text: u64,
    last: Option<u8>,
    has_ended: bool,
    scratch: Vec<u8>,
}

impl Default for Inflating {
    fn default() -> Self {
        Self {
            engine: Decompress::new(false),
            crc: Crc::new(),
            text: 0,
            last: None,
            has_ended: false,
            scratch: vec![0; READ_BYTES],
        }
    }
}

impl Inflating {
    /// Unpacks all of a part and gives its text; whether more may follow.
    fn take(&mut self, mut part: &[u8], mut give: impl FnMut(&[u8])) -> bool {
        loop {
            let (taken, given) = (self.engine.total_in(), self.engine.total_out());
            let status = self.engine.decompress(part, &mut self.scratch, FlushDecompress::None);
            let text = &self.scratch[..(self.engine.total_out() - given) as usize];
            self.crc.update(text);
            self.text += text.len() as u64;
            self.last = text.last().copied().or(self.last);
            give(text);
            part = &part[(self.engine.total_in() - taken) as usize..];
            match status {
                Ok(Status::StreamEnd) => {
                    self.has_ended = true;
                    return false;
                }
                Err(_) => return false,
                Ok(_) if part.is_empty() && text.len() < self.scratch.len() => return true,
                // Neither bytes taken nor text given: what it waits for does not come.
                Ok(_) if self.engine.total_in() == taken && text.is_empty() => return false,
                Ok(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::GzipPacker;
    use super::*;
    use flate2::read::MultiGzDecoder;
    use flate2::write::GzEncoder;
    use flate2::{Compression, GzBuilder};
    use proptest::prelude::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file can be made");
        file.write_all(bytes).expect("it is written");
        file
    }

    fn unpacked(mut file: &File) -> Vec<u8> {
        file.seek(SeekFrom::Start(0)).expect("it is a file");
        let mut text = Vec::new();
        MultiGzDecoder::new(file).read_to_end(&mut text).expect("it is whole");
        text
    }

    /// What our own sink writes in three pieces, the first of which ends a member.
    fn ours() -> (Vec<u8>, Vec<Vec<u8>>, Vec<usize>) {
        let line = |n: usize| format!("{{\"n\":{n},\"price\":\"{}\"}}\n", n * 7919 % 1000);
        let pieces: Vec<Vec<u8>> = [0..50_000, 50_000..50_300, 50_300..50_301]
            .map(|lines| lines.map(line).collect::<String>().into())
            .into();
        let mut packer = GzipPacker::new(true);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for text in &pieces {
            let (packed, piece) = packer.pack(text);
            bytes.extend_from_slice(packed);
            packer.written(piece);
            ends.push(bytes.len());
        }
        bytes.extend(packer.finish());
        (bytes, pieces, ends)
    }

    #[test]
    fn wherever_our_file_is_torn_what_was_flushed_is_whole_again_and_can_be_appended_to() {
        let (bytes, pieces, ends) = ours();
        let near_ends = ends.iter().flat_map(|end| end.saturating_sub(40)..(end + 40).min(bytes.len()));
        for torn_at in near_ends.chain([1, 5, 10, 15, 16, 17, 100, bytes.len()]) {
            let mut file = file(&bytes[..torn_at]);
            let mended = mend(&file).expect("it can be mended");
            let flushed = ends.iter().filter(|end| **end <= torn_at).count();
            let expected = pieces[..flushed].concat();
            let text = unpacked_with(&mut file, &mended.loose);
            assert!(text.starts_with(&expected), "torn at {torn_at}");
            assert!(pieces.concat().starts_with(&text), "torn at {torn_at}");
            if flushed > 0 && mended.loose.is_empty() {
                assert_eq!(mended.last, Some(b'\n'), "torn at {torn_at}");
            }
            assert!(!mend(&file).expect("it is whole").was_torn);
        }
    }

    /// Appends as the sink does, then unpacks.
    fn unpacked_with(file: &mut File, loose: &[u8]) -> Vec<u8> {
        let mut packer = GzipPacker::new(true);
        file.seek(SeekFrom::End(0)).expect("it is a file");
        let (packed, piece) = packer.pack(loose);
        file.write_all(packed).expect("it is written");
        packer.written(piece);
        file.write_all(&packer.finish()).expect("it is written");
        unpacked(file)
    }

    #[test]
    fn a_file_of_others_keeps_all_that_can_be_read_of_it() {
        let text: String = (0..20_000u32).map(|n| format!("{}\n", n.wrapping_mul(2_654_435_761))).collect();
        let mut packed: GzEncoder<Vec<u8>> =
            GzBuilder::new().filename("a.jsonl").comment("b").write(Vec::new(), Compression::best());
        packed.write_all(text.as_bytes()).expect("it is written");
        let packed = packed.finish().expect("it is written");
        let mut file = file(&packed[..packed.len() / 2]);
        let mended = mend(&file).expect("it can be mended");
        assert_eq!(mended.cut_bytes, packed.len() as u64 / 2);
        let kept = unpacked_with(&mut file, &mended.loose);
        assert!(text.as_bytes().starts_with(&kept));
        assert!(kept.len() > text.len() / 3, "{} of {}", kept.len(), text.len());
    }

    #[test]
    fn what_was_flushed_by_one_long_member_is_ended_in_its_place() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        let mut text = Vec::new();
        for n in 0..100 {
            let line = format!("{n} and more\n");
            packed.write_all(line.as_bytes()).expect("it is written");
            packed.flush().expect("it is written");
            text.extend(line.into_bytes());
        }
        let bytes = packed.get_ref().clone();
        let file = file(&bytes);
        let mended = mend(&file).expect("it can be mended");
        assert_eq!(mended, Mended { was_torn: true, last: Some(b'\n'), ..Mended::default() });
        assert_eq!(unpacked(&file), text);
    }

    #[test]
    fn zeros_of_a_power_cut_are_cut_off_and_what_is_no_gzip_is_left_alone() {
        let (bytes, pieces, ends) = ours();
        for torn_at in [bytes.len(), ends[1], ends[1] - 5] {
            let mut file = file(&[&bytes[..torn_at], &[0; 5000]].concat());
            let mended = mend(&file).expect("it can be mended");
            assert!(mended.cut_bytes >= 5000, "{}", mended.cut_bytes);
            let text = unpacked_with(&mut file, &mended.loose);
            assert!(pieces.concat().starts_with(&text) && text.starts_with(&pieces[0]));
        }
        for others in [&b"no gzip"[..], &[&bytes[..], b"rubbish"].concat()] {
            let file = file(others);
            assert_eq!(mend(&file).expect_err("it is no gzip").kind(), io::ErrorKind::InvalidData);
            assert_eq!(file.metadata().expect("it is a file").len(), others.len() as u64);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_leave_a_file_that_cannot_be_read(
            begin_with in 0..3usize,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let begin: [&[u8]; 3] = [b"", &HEAD, &[0x1f, 0x8b, 8]];
            let mut file = file(&[begin[begin_with], &bytes].concat());
            if let Ok(mended) = mend(&file) {
                unpacked_with(&mut file, &mended.loose);
            }
        }
    }
}
