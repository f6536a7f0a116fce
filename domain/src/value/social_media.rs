//! Where a company is found on social media.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Line, Url};
use crate::field::FieldValue;
use crate::field_error::{FieldErrors, Invalid, pointer_to};

/// One entry of a company.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocialMedia {
    /// What it is removed by.
    pub social_media_id: Uuid,
    /// The platform, as it was given.
    pub platform: Line<100>,
    /// The company's page there.
    pub url: Url,
}

/// An entry before it has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSocialMedia {
    /// The platform.
    pub platform: Line<100>,
    /// The company's page there.
    pub url: Url,
}

impl SocialMedia {
    /// The most that one company has.
    pub const MANY_MAX: usize = 100;

    /// Whether this is the same page: the same URL on the same platform, however the platform is capitalised.
    pub fn is_at(&self, platform: &Line<100>, url: &Url) -> bool {
        same_page((&self.platform, &self.url), (platform, url))
    }

    /// Bytes that it holds outside itself, roughly.
    pub fn heap_bytes(&self) -> usize {
        self.platform.heap_bytes() + self.url.heap_bytes()
    }
}

impl NewSocialMedia {
    /// The entry under its id.
    pub fn with_id(self, social_media_id: Uuid) -> SocialMedia {
        SocialMedia { social_media_id, platform: self.platform, url: self.url }
    }

    /// Reads `{platform, url}`; what is wrong goes to `errors`, below `pointer`.
    pub(crate) fn from_json(value: Value, pointer: &str, errors: &mut FieldErrors) -> Option<Self> {
        let Value::Object(members) = value else {
            errors.push(pointer, Invalid::wrong_type("an object {platform, url}"));
            return None;
        };
        let (mut platform, mut url) = (None, None);
        let (mut has_platform, mut has_url) = (false, false);
        for (name, value) in members {
            let at = pointer_to(pointer, &name);
            match name.as_str() {
                "platform" => {
                    has_platform = true;
                    platform = Line::from_json(value).map_err(|invalid| errors.push(at, invalid)).ok();
                }
                "url" => {
                    has_url = true;
                    url = Url::from_json(value).map_err(|invalid| errors.push(at, invalid)).ok();
                }
                "social_media_id" | "created_at" | "updated_at" => errors.push(at, Invalid::read_only()),
                _ => errors.push(at, Invalid::unknown_field()),
            }
        }
        if !has_platform {
            errors.push(pointer_to(pointer, "platform"), Invalid::required("is required"));
        }
        if !has_url {
            errors.push(pointer_to(pointer, "url"), Invalid::required("is required"));
        }
        Some(Self { platform: platform?, url: url? })
    }

    /// Reads a list of `{platform, url}`; an entry that is there twice counts once.
    pub(crate) fn many_from_json(value: Value, pointer: &str, errors: &mut FieldErrors) -> Vec<Self> {
        let Value::Array(entries) = value else {
            errors.push(pointer, Invalid::wrong_type("a list of {platform, url}"));
            return Vec::new();
        };
        if entries.len() > SocialMedia::MANY_MAX {
            errors.push(pointer, Invalid::too_many(SocialMedia::MANY_MAX));
            return Vec::new();
        }
        let mut many: Vec<Self> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let at = pointer_to(pointer, &index.to_string());
            if let Some(entry) = Self::from_json(entry, &at, errors)
                && !many.iter().any(|other| same_page((&other.platform, &other.url), (&entry.platform, &entry.url)))
            {
                many.push(entry);
            }
        }
        many
    }
}

fn same_page((platform, url): (&Line<100>, &Url), (other_platform, other_url): (&Line<100>, &Url)) -> bool {
    url == other_url && platform.as_str().to_lowercase() == other_platform.as_str().to_lowercase()
}
