//! How high a job stands.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::text::{Breaks, clean_bounded};
use super::text_value;
use crate::field::Schema;
use crate::field_error::Invalid;

/// One of [`JobTitleLevel::KNOWN`], or another as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobTitleLevel(String);

text_value!(JobTitleLevel, Schema::text(JobTitleLevel::MAX));

/// Spellings in lower case, letters only, and the level that they mean.
const SPELLINGS: &[(&str, &str)] = &[
    ("businessowner", "owner"),
    ("ceo", "c_suite"),
    ("cfo", "c_suite"),
    ("chief", "c_suite"),
    ("cio", "c_suite"),
    ("clevel", "c_suite"),
    ("clevelexecutive", "c_suite"),
    ("cmo", "c_suite"),
    ("cofounder", "founder"),
    ("coo", "c_suite"),
    ("coowner", "owner"),
    ("csuite", "c_suite"),
    ("cto", "c_suite"),
    ("cxo", "c_suite"),
    ("director", "director"),
    ("directorlevel", "director"),
    ("dir", "director"),
    ("entry", "entry"),
    ("entrylevel", "entry"),
    ("evp", "vp"),
    ("founder", "founder"),
    ("founders", "founder"),
    ("head", "head"),
    ("headof", "head"),
    ("headofdepartment", "head"),
    ("intern", "intern"),
    ("internship", "intern"),
    ("junior", "entry"),
    ("manager", "manager"),
    ("managerlevel", "manager"),
    ("mgr", "manager"),
    ("owner", "owner"),
    ("owners", "owner"),
    ("partner", "partner"),
    ("partners", "partner"),
    ("senior", "senior"),
    ("seniorlevel", "senior"),
    ("sr", "senior"),
    ("svp", "vp"),
    ("trainee", "intern"),
    ("vicepresident", "vp"),
    ("vp", "vp"),
    ("vplevel", "vp"),
    ("vps", "vp"),
];

impl JobTitleLevel {
    /// The greatest length of another level, in characters.
    pub const MAX: usize = 100;

    /// The levels that have a name here, from the top down.
    pub const KNOWN: [&'static str; 11] =
        ["owner", "founder", "c_suite", "partner", "vp", "head", "director", "manager", "senior", "entry", "intern"];

    /// Recognises common spellings, such as `C-Level` and `CXO`; keeps any other text.
    ///
    /// # Errors
    /// `empty`, `too_long` or `control_character`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = clean_bounded(Cow::Borrowed(text), Breaks::Space, Self::MAX)?;
        let letters: String = text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let known = SPELLINGS.iter().find(|(spelling, _)| *spelling == letters);
        Ok(Self(known.map_or(text, |(_, level)| (*level).to_owned())))
    }
}
