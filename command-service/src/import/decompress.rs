//! gzip and Zstandard, a small piece at a time.

use std::fmt;

use flate2::{Crc, Decompress, FlushDecompress, Status};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

use super::refusal::Refusal;

/// The most bytes that one step makes.
pub(super) const PIECE_BYTES: usize = 64 << 10;
/// 8 MiB: what `zstd -19` asks for at most.
const WINDOW_LOG_MAX: u32 = 23;
/// What the decoders hold, roughly: their window and their tables.
const GZIP_BYTES: usize = 48 << 10;
const ZSTD_BYTES: usize = (1 << WINDOW_LOG_MAX) + (512 << 10);

/// A stream of gzip members or Zstandard frames.
pub(super) enum Unpack {
    Gzip(Gzip),
    Zstd(Zstd),
}

pub(super) struct Gzip {
    state: Member,
    inflate: Decompress,
    crc: Crc,
    /// Members that were whole.
    members: u64,
}

/// Where in a member the bytes are.
#[derive(Clone, Copy)]
enum Member {
    /// Between members.
    Start,
    /// In the ten bytes that each begins with: how many were read, and the flags among them.
    Fixed(u8, u8),
    ExtraLength(u8, u8, u16),
    Extra(u8, u16),
    Name(u8),
    Comment(u8),
    HeaderCrc(u8),
    Body,
    /// In the eight bytes of checksum and length: how many were read, and these.
    Trailer(u8, u64),
}

pub(super) struct Zstd {
    decoder: Decoder<'static>,
    in_frame: bool,
    frames: u64,
}

impl Unpack {
    pub(super) fn gzip() -> Self {
        Self::Gzip(Gzip { state: Member::Start, inflate: Decompress::new(false), crc: Crc::new(), members: 0 })
    }

    pub(super) fn zstd() -> Result<Self, Refusal> {
        let damaged = |_| Refusal::Damaged { format: "zstd", after_end: false };
        let mut decoder = Decoder::new().map_err(damaged)?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(damaged)?;
        Ok(Self::Zstd(Zstd { decoder, in_frame: false, frames: 0 }))
    }

    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Gzip(_) => GZIP_BYTES,
            Self::Zstd(_) => ZSTD_BYTES,
        }
    }

    /// Takes some bytes off the front of `bytes` and puts what they stand for into `piece`, which has place for
    /// [`PIECE_BYTES`]. How many bytes it made, and whether there is more before further bytes are needed.
    pub(super) fn step(&mut self, bytes: &mut &[u8], piece: &mut [u8]) -> Result<(usize, bool), Refusal> {
        match self {
            Self::Gzip(gzip) => gzip.step(bytes, piece),
            Self::Zstd(zstd) => zstd.step(bytes, piece),
        }
    }

    /// Whether the bytes may end here.
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        match self {
            Self::Gzip(gzip) if !matches!(gzip.state, Member::Start) => Err(Refusal::CutOff { format: "gzip" }),
            Self::Zstd(zstd) if zstd.in_frame => Err(Refusal::CutOff { format: "zstd" }),
            _ => Ok(()),
        }
    }
}

impl Gzip {
    fn step(&mut self, bytes: &mut &[u8], piece: &mut [u8]) -> Result<(usize, bool), Refusal> {
        while !matches!(self.state, Member::Body) {
            let Some((byte, rest)) = bytes.split_first() else { return Ok((0, false)) };
            *bytes = rest;
            self.state = self.framing(*byte)?;
        }
        let (read_before, made_before) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self.inflate.decompress(bytes, piece, FlushDecompress::None).map_err(|_| self.damaged())?;
        let read = usize::try_from(self.inflate.total_in() - read_before).unwrap_or(usize::MAX).min(bytes.len());
        let made = usize::try_from(self.inflate.total_out() - made_before).unwrap_or(usize::MAX).min(piece.len());
        *bytes = &bytes[read..];
        self.crc.update(&piece[..made]);
        if status == Status::StreamEnd {
            self.state = Member::Trailer(0, 0);
            return Ok((made, false));
        }
        Ok((made, made == piece.len()))
    }

    /// A byte that is not in a body.
    fn framing(&mut self, byte: u8) -> Result<Member, Refusal> {
        const HEADER_CRC: u8 = 2;
        const EXTRA: u8 = 4;
        const NAME: u8 = 8;
        const COMMENT: u8 = 16;
        let after_comment = |flags| if flags & HEADER_CRC != 0 { Member::HeaderCrc(0) } else { Member::Body };
        let after_name = |flags| if flags & COMMENT != 0 { Member::Comment(flags) } else { after_comment(flags) };
        let after_extra = |flags| if flags & NAME != 0 { Member::Name(flags) } else { after_name(flags) };
        Ok(match self.state {
            Member::Start if byte == 0x1f => Member::Fixed(1, 0),
            Member::Fixed(1, _) if byte == 0x8b => Member::Fixed(2, 0),
            // Deflate, the only method there is.
            Member::Fixed(2, _) if byte == 8 => Member::Fixed(3, 0),
            Member::Fixed(3, _) if byte & 0xe0 == 0 => Member::Fixed(4, byte),
            Member::Fixed(read @ 4..=8, flags) => Member::Fixed(read + 1, flags),
            Member::Fixed(9, flags) if flags & EXTRA != 0 => Member::ExtraLength(flags, 0, 0),
            Member::ExtraLength(flags, 0, _) => Member::ExtraLength(flags, 1, byte.into()),
            Member::ExtraLength(flags, _, low) => match low | (u16::from(byte) << 8) {
                0 => after_extra(flags),
                length => Member::Extra(flags, length),
            },
            Member::Fixed(9, flags) | Member::Extra(flags, 1) => after_extra(flags),
            Member::Extra(flags, length) => Member::Extra(flags, length - 1),
            Member::Name(flags) if byte == 0 => after_name(flags),
            Member::Comment(flags) if byte == 0 => after_comment(flags),
            state @ (Member::Name(_) | Member::Comment(_)) => state,
            Member::HeaderCrc(0) => Member::HeaderCrc(1),
            Member::HeaderCrc(_) => Member::Body,
            Member::Trailer(read, value) => {
                let value = value | (u64::from(byte) << (8 * read));
                if read < 7 {
                    Member::Trailer(read + 1, value)
                } else if value == u64::from(self.crc.sum()) | (u64::from(self.crc.amount()) << 32) {
                    self.members += 1;
                    self.crc.reset();
                    self.inflate.reset(false);
                    Member::Start
                } else {
                    return Err(Refusal::Damaged { format: "gzip", after_end: false });
                }
            }
            Member::Start | Member::Fixed(..) | Member::Body => return Err(self.damaged()),
        })
    }

    fn damaged(&self) -> Refusal {
        let framing = matches!(self.state, Member::Start | Member::Fixed(..));
        Refusal::Damaged { format: "gzip", after_end: framing && self.members > 0 }
    }
}

impl Zstd {
    fn step(&mut self, bytes: &mut &[u8], piece: &mut [u8]) -> Result<(usize, bool), Refusal> {
        if bytes.is_empty() && !self.in_frame {
            return Ok((0, false));
        }
        let mut input = InBuffer::around(bytes);
        let mut output = OutBuffer::around(piece);
        let remaining = self.decoder.run(&mut input, &mut output).map_err(|error| self.refusal(&error))?;
        let (read, made) = (input.pos(), output.pos());
        *bytes = &bytes[read..];
        self.in_frame = remaining != 0;
        self.frames += u64::from(!self.in_frame);
        Ok((made, self.in_frame && made == piece.len()))
    }

    fn refusal(&self, error: &std::io::Error) -> Refusal {
        if error.to_string().contains("too much memory") {
            return Refusal::Window;
        }
        Refusal::Damaged { format: "zstd", after_end: !self.in_frame && self.frames > 0 }
    }
}

impl fmt::Debug for Unpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
        })
    }
}
