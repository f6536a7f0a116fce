//! From bytes to text.

use encoding_rs::{CoderResult, Decoder};

use super::form::Charset;

/// The charset that the first bytes announce with a byte order mark, and how long that is.
pub(super) fn byte_order_mark(head: &[u8]) -> Option<(Charset, usize)> {
    match head {
        [0xef, 0xbb, 0xbf, ..] => Some((Charset::Utf8, 3)),
        [0xff, 0xfe, ..] => Some((Charset::Utf16Le, 2)),
        [0xfe, 0xff, ..] => Some((Charset::Utf16Be, 2)),
        _ => None,
    }
}

/// Whether every other one of the first bytes is NUL, as in UTF-16 of western text.
pub(super) fn looks_like_utf_16(head: &[u8]) -> bool {
    let head = &head[..head.len().min(64)];
    let (pairs, _) = head.as_chunks::<2>();
    let count = |index: usize| pairs.iter().filter(|pair| pair[index] == 0 && pair[1 - index] != 0).count();
    !pairs.is_empty() && count(0).max(count(1)) * 2 > pairs.len()
}

/// A decoder that marks what is not of its charset with U+FFFD.
pub(super) fn decoder(charset: Charset) -> Decoder {
    charset.encoding().new_decoder_without_bom_handling()
}

/// Appends what `bytes` stand for to `text`; what is cut off at their end comes with the next ones.
pub(super) fn decode(decoder: &mut Decoder, mut bytes: &[u8], last: bool, text: &mut String) {
    loop {
        // Room for the worst case would be three times the bytes; mostly one byte is one byte.
        text.reserve(bytes.len() + 16);
        let (result, read, _) = decoder.decode_to_string(bytes, text, last);
        bytes = &bytes[read..];
        if result == CoderResult::InputEmpty {
            return;
        }
    }
}
