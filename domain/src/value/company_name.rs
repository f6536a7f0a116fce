//! Company names as they are compared.

use unicode_normalization::UnicodeNormalization;

/// Legal forms as words of a normalised name, longest first where one ends with another. They say how a company is
/// incorporated, not which company it is.
const LEGAL_FORMS: &[&str] = &[
    "sp z o o",
    "s a r l",
    "s r o",
    "s r l",
    "s p a",
    "s a s",
    "d o o",
    "l l c",
    "l l p",
    "l t d",
    "a s",
    "b v",
    "k k",
    "n v",
    "s a",
    "s l",
    "s e",
    "l p",
    "ab",
    "ag",
    "aps",
    "as",
    "bhd",
    "bv",
    "bvba",
    "co",
    "company",
    "corp",
    "corporation",
    "doo",
    "eirl",
    "ev",
    "gbr",
    "gesmbh",
    "gmbh",
    "inc",
    "incorporated",
    "kft",
    "kg",
    "kgaa",
    "kk",
    "lda",
    "limited",
    "llc",
    "llp",
    "lp",
    "ltd",
    "ltda",
    "mbh",
    "nv",
    "ohg",
    "ou",
    "oü",
    "oy",
    "oyj",
    "plc",
    "private",
    "pte",
    "pty",
    "pvt",
    "sa",
    "sarl",
    "sas",
    "sdn",
    "se",
    "sl",
    "spa",
    "sro",
    "srl",
    "ug",
    "zrt",
];

/// Characters of a name's key in the read tables.
const KEY_CHARACTERS_MAX: usize = 255;

/// Lower case, NFKC, one space for everything between words, legal forms stripped from the end; the whole name where it
/// consists of nothing else. Empty only where the name has no letter and no digit.
pub fn normalise(name: &str) -> String {
    let mut words = String::with_capacity(name.len());
    for c in name.nfkc().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() || is_mark(c) {
            words.push(c);
        } else if !matches!(c, '\'' | '’') && !words.is_empty() && !words.ends_with(' ') {
            words.push(' ');
        }
    }
    let mut name = words.trim_end();
    while let Some(shorter) = LEGAL_FORMS.iter().find_map(|form| name.strip_suffix(form)?.strip_suffix(' ')) {
        name = shorter;
    }
    name.to_owned()
}

/// The first characters of the normalised name, as read tables hold it: some characters become eighteen.
pub fn key(name: &str) -> String {
    normalise(name).chars().take(KEY_CHARACTERS_MAX).collect::<String>().trim_end().to_owned()
}

/// Combining marks belong to the letter before them.
fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}
