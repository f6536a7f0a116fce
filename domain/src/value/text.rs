//! How text is cleaned before any rule looks at it (`fields.md`): trimmed, Unicode NFC, line breaks settled, no other control
//! character.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

use crate::field_error::Invalid;

/// What becomes of a line break.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Breaks {
    /// It becomes one space.
    Space,
    /// It stays, as a line feed.
    Keep,
}

/// The text cleaned; it may be empty.
pub(super) fn clean(text: Cow<'_, str>, breaks: Breaks) -> Result<String, Invalid> {
    let trimmed = text.trim_matches(is_blank);
    // Nearly all text is this: nothing to change, so the text is kept as it came.
    if trimmed.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
        return Ok(if trimmed.len() == text.len() { text.into_owned() } else { trimmed.to_owned() });
    }
    let mut cleaned = String::with_capacity(trimmed.len());
    let mut chars = trimmed.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\t' => cleaned.push(' '),
            '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}' => {
                if c == '\r' && chars.peek() == Some(&'\n') {
                    chars.next();
                }
                cleaned.push(if breaks == Breaks::Keep { '\n' } else { ' ' });
            }
            c if c.is_control() => {
                return Err(Invalid::new("control_character", "must not contain control characters"));
            }
            c => cleaned.push(c),
        }
    }
    if is_nfc_quick(cleaned.chars()) != IsNormalized::Yes {
        cleaned = cleaned.nfc().collect();
    }
    Ok(cleaned)
}

/// The text cleaned, neither empty nor longer than `max` characters.
pub(super) fn clean_bounded(text: Cow<'_, str>, breaks: Breaks, max: usize) -> Result<String, Invalid> {
    let cleaned = clean(text, breaks)?;
    if cleaned.is_empty() {
        return Err(Invalid::empty());
    }
    // No text has more characters than bytes, so most need no counting.
    if cleaned.len() > max && cleaned.chars().count() > max {
        return Err(Invalid::too_long(max));
    }
    Ok(cleaned)
}

/// White space, and the characters that look like nothing and come in with copied text.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{200b}' | '\u{2060}' | '\u{feff}')
}
