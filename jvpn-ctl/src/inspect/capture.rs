//! Frames out of a capture file, pcap or pcapng.
//!
//! Owns what is made of a file: numbers, times, lengths. Must never guess: a link type whose first bytes are no
//! Ethernet header is refused, and so is a file that ends in the middle.

use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use thiserror::Error;

/// Bytes of one block at most; tcpdump's largest snapshot is a quarter of it.
const BLOCK_MAX: usize = 1 << 20;
/// Bytes of a frame that are put back where the capture cut it. No frame on an interface is longer.
const FRAME_MAX: usize = 1 << 16;

/// One captured frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Place in the file, from 1, as other tools count.
    pub number: u64,
    /// When, in nanoseconds since 1970; 0 = the file does not say.
    pub at_ns: u64,
    /// The frame at its whole length, zeros where it was cut.
    pub frame: Vec<u8>,
    /// Bytes of it that were captured.
    pub captured: usize,
}

/// Why a capture cannot be read.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The file cannot be opened or read.
    #[error("{0}")]
    Io(std::io::Error),
    /// Another kind of file.
    #[error("neither pcap nor pcapng")]
    Form,
    /// Not Ethernet.
    #[error("link type {0} ({name}), not Ethernet (1)", name = link_name(*.0))]
    Link(i32),
    /// It ends in the middle.
    #[error("the file ends in the middle of a block, after frame {0}")]
    Short(u64),
    /// A block that contradicts itself or is too large.
    #[error("broken after frame {0}: {1}")]
    Broken(u64, String),
}

fn link_name(link: i32) -> &'static str {
    match link {
        12 | 14 | 101 => "raw IP",
        105 => "802.11",
        113 | 276 => "Linux cooked, as `tcpdump -i any` writes",
        127 => "802.11 with radiotap",
        _ => "not known here",
    }
}

/// What one interface of the file says.
#[derive(Clone, Copy)]
struct Link {
    kind: i32,
    /// Units of a time stamp in a second.
    resolution: u64,
    offset_s: i64,
}

/// An open capture.
pub struct Capture {
    reader: Box<dyn PcapReaderIterator + Send>,
    links: Vec<Link>,
    number: u64,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture").field("number", &self.number).finish_non_exhaustive()
    }
}

/// When, in units of its interface.
enum Stamp {
    Units(u64),
    Parts(u32, u32),
}

/// What a block was.
enum Found {
    Frame { link: u32, stamp: Stamp, data: Vec<u8>, whole: usize },
    Link(Link),
    Section,
    Other,
}

impl Capture {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Self::over(File::open(path).map_err(CaptureError::Io)?)
    }

    /// A capture over any source of bytes.
    pub fn over(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let reader = create_reader(BLOCK_MAX, source).map_err(|error| match error {
            PcapError::ReadError => CaptureError::Io(std::io::Error::other("cannot be read")),
            _ => CaptureError::Form,
        })?;
        Ok(Self { reader, links: Vec::new(), number: 0 })
    }

    /// The next frame; none at the end.
    pub fn next_frame(&mut self) -> Result<Option<Captured>, CaptureError> {
        let mut asked = 0;
        loop {
            let (used, found) = match self.reader.next() {
                Ok((used, block)) => (used, found(&block)),
                Err(PcapError::Eof) => return Ok(None),
                // A reader that was given more and still cannot go on has nothing more to give.
                Err(PcapError::Incomplete(_)) if asked < 2 => {
                    asked += 1;
                    self.reader.refill().map_err(|error| broken(self.number, &error))?;
                    continue;
                }
                Err(PcapError::Incomplete(_) | PcapError::UnexpectedEof) => {
                    return Err(CaptureError::Short(self.number));
                }
                Err(error) => return Err(broken(self.number, &error)),
            };
            self.reader.consume(used);
            asked = 0;
            match found {
                Found::Frame { link, stamp, data, whole } => return self.frame(link, stamp, data, whole).map(Some),
                Found::Link(link) => self.links.push(link),
                Found::Section => self.links.clear(),
                Found::Other => {}
            }
        }
    }

    fn frame(&mut self, link: u32, stamp: Stamp, mut frame: Vec<u8>, whole: usize) -> Result<Captured, CaptureError> {
        let unknown =
            || CaptureError::Broken(self.number, format!("a frame of interface {link}, which is not declared"));
        let link = self.links.get(link as usize).copied().ok_or_else(unknown)?;
        if link.kind != Linktype::ETHERNET.0 {
            return Err(CaptureError::Link(link.kind));
        }
        self.number += 1;
        let captured = frame.len();
        frame.resize(whole.clamp(captured, captured.max(FRAME_MAX)), 0);
        let stamp = match stamp {
            Stamp::Units(units) => u128::from(units),
            Stamp::Parts(seconds, part) => u128::from(seconds) * u128::from(link.resolution) + u128::from(part),
        };
        let ns = stamp * 1_000_000_000 / u128::from(link.resolution.max(1));
        let ns = i128::try_from(ns).unwrap_or(0) + i128::from(link.offset_s) * 1_000_000_000;
        Ok(Captured { number: self.number, at_ns: u64::try_from(ns).unwrap_or(0), frame, captured })
    }
}

fn broken(number: u64, error: &PcapError<&[u8]>) -> CaptureError {
    let what = match error {
        PcapError::ReadError => "it cannot be read further",
        PcapError::BufferTooSmall => "a block is larger than any frame",
        _ => "a block contradicts itself",
    };
    CaptureError::Broken(number, what.to_owned())
}

fn found(block: &PcapBlockOwned<'_>) -> Found {
    let cut = |data: &[u8], len: u32| data.get(..len as usize).unwrap_or(data).to_vec();
    match block {
        PcapBlockOwned::LegacyHeader(head) => {
            let resolution = if head.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            // The upper half says how long a checksum behind each frame is.
            Found::Link(Link { kind: head.network.0 & 0xffff, resolution, offset_s: 0 })
        }
        PcapBlockOwned::Legacy(frame) => {
            // Seconds and a fraction of them: one number once the resolution is known.
            let stamp = Stamp::Parts(frame.ts_sec, frame.ts_usec);
            Found::Frame { link: 0, stamp, data: cut(frame.data, frame.caplen), whole: frame.origlen as usize }
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => Found::Section,
        PcapBlockOwned::NG(Block::InterfaceDescription(link)) => Found::Link(Link {
            kind: link.linktype.0,
            resolution: link.ts_resolution().unwrap_or(1_000_000),
            offset_s: link.ts_offset(),
        }),
        PcapBlockOwned::NG(Block::EnhancedPacket(frame)) => Found::Frame {
            link: frame.if_id,
            stamp: Stamp::Units(u64::from(frame.ts_high) << 32 | u64::from(frame.ts_low)),
            data: cut(frame.data, frame.caplen),
            whole: frame.origlen as usize,
        },
        PcapBlockOwned::NG(Block::SimplePacket(frame)) => Found::Frame {
            link: 0,
            stamp: Stamp::Units(0),
            data: cut(frame.data, frame.origlen),
            whole: frame.origlen as usize,
        },
        PcapBlockOwned::NG(_) => Found::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut padded = body.to_vec();
        padded.resize(body.len().next_multiple_of(4), 0);
        let len = u32::try_from(padded.len() + 12).expect("short").to_le_bytes();
        [&kind.to_le_bytes()[..], &len, &padded, &len].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// A pcapng of one interface of `link` type, nanoseconds, one frame of 60 bytes cut to 16, one simple one.
    fn pcapng(link: u32) -> Vec<u8> {
        let section = [words(&[0x1a2b_3c4d, 1]), vec![0xff; 8]].concat();
        let interface = [words(&[link, 0]), vec![9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]].concat();
        let at = 1_700_000_000_123_456_789_u64;
        let enhanced = [words(&[0, (at >> 32) as u32, at as u32, 16, 60]), vec![7; 16]].concat();
        let simple = [words(&[14]), vec![8; 14]].concat();
        [block(0x0a0d_0d0a, &section), block(1, &interface), block(6, &enhanced), block(3, &simple)].concat()
    }

    fn pcap(magic: u32, link: u32) -> Vec<u8> {
        let head = words(&[magic, 4 << 16 | 2, 0, 0, 65_535, link]);
        [head, words(&[1_700_000_000, 500, 14, 14]), vec![9; 14]].concat()
    }

    fn all(bytes: Vec<u8>) -> Result<Vec<Captured>, CaptureError> {
        let mut capture = Capture::over(std::io::Cursor::new(bytes))?;
        let mut frames = Vec::new();
        while let Some(frame) = capture.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn frames_of_both_forms_come_with_number_time_and_whole_length() {
        let frames = all(pcapng(1)).expect("a capture");
        assert_eq!(frames.len(), 2);
        assert_eq!((frames[0].number, frames[0].at_ns), (1, 1_700_000_000_123_456_789));
        assert_eq!((frames[0].captured, frames[0].frame.len()), (16, 60));
        assert_eq!(frames[0].frame[..17], [&[7; 16][..], &[0]].concat(), "zeros where it was cut");
        assert_eq!((frames[1].number, frames[1].at_ns, &frames[1].frame), (2, 0, &vec![8; 14]));
        for (magic, ns) in [(0xa1b2_c3d4, 500_000), (0xa1b2_3c4d, 500)] {
            let frames = all(pcap(magic, 1)).expect("a capture");
            assert_eq!((frames.len(), frames[0].at_ns), (1, 1_700_000_000_000_000_000 + ns));
            assert_eq!(frames[0].frame, [9; 14]);
        }
    }

    #[test]
    fn another_link_type_is_refused_by_its_name() {
        for bytes in [pcapng(113), pcap(0xa1b2_c3d4, 113)] {
            let error = all(bytes).expect_err("no Ethernet").to_string();
            assert_eq!(error, "link type 113 (Linux cooked, as `tcpdump -i any` writes), not Ethernet (1)");
        }
        assert!(all(pcap(0xa1b2_c3d4, 101)).expect_err("no Ethernet").to_string().contains("raw IP"));
    }

    #[test]
    fn no_beginning_of_a_file_and_no_changed_byte_of_one_panics_or_hangs() {
        for bytes in [pcapng(1), pcap(0xa1b2_c3d4, 1)] {
            for len in 0..bytes.len() {
                let frames = all(bytes[..len].to_vec());
                assert!(frames.is_err() || frames.is_ok_and(|frames| frames.len() < 2), "{len}");
            }
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    let _ = all(changed);
                }
            }
        }
        assert!(matches!(all(b"no capture at all, but long enough to be one".to_vec()), Err(CaptureError::Form)));
        assert!(matches!(all(Vec::new()), Err(CaptureError::Form)));
    }
}
