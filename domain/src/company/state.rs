//! What a company is after its events.

use std::collections::BTreeSet;

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::merge::CompanyAbsorbed;
use super::{CompanyCommand, CompanyError, CompanyEvent, CompanyProfile, CompanyReviewResolved};
use crate::claim::{Claim, ClaimKey, LIVE, Match};
use crate::provenance::{Provenance, attribute_field};
use crate::record::{Context, Record};
use crate::review::{CompanyResolution, ReviewReason};
use crate::status::Status;
use crate::value::{Attributes, Domain, ExternalRef, SocialMedia, company_name, phone_number};

/// A company.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Company {
    /// Whether it is there.
    pub status: Status,
    /// Its plain fields.
    pub profile: CompanyProfile,
    /// Its domain.
    pub domain: Option<Domain>,
    /// Its further domains; its domain is none of them.
    pub additional_domains: BTreeSet<Domain>,
    /// Its ids in other systems.
    pub external_refs: BTreeSet<ExternalRef>,
    /// Its pages on social media, oldest first.
    pub social_media: Vec<SocialMedia>,
    /// What has no field of its own.
    pub attributes: Attributes,
    /// What it got from each company that is merged into it, oldest first.
    pub absorbed: Vec<CompanyAbsorbed>,
    /// Where its values come from.
    pub provenance: Provenance,
    /// Why someone should look at it.
    pub review: Option<ReviewReason>,
}

impl Company {
    /// What a person should look at.
    pub fn flags(&self) -> Vec<&'static str> {
        phone_number::flags(self.profile.phone.as_ref(), self.profile.mobile_phone.as_ref())
    }

    /// Why it is in review, while it is.
    pub fn open_review(&self) -> Option<ReviewReason> {
        self.review.filter(|_| self.status == Status::Live)
    }

    /// What a decision about its review leads to.
    ///
    /// # Errors
    /// If it is not in review.
    pub fn resolve_review(&self, resolution: CompanyResolution) -> Result<CompanyEvent, CompanyError> {
        match self.status {
            Status::Live if self.review.is_some() => Ok(CompanyReviewResolved { resolution }.into()),
            Status::Live => Err(CompanyError::NotInReview),
            Status::Unregistered => Err(CompanyError::NotFound),
            Status::Deleted => Err(CompanyError::Deleted),
            Status::Merged { into } => Err(CompanyError::Merged { into }),
        }
    }

    /// The companies that it stands for beside itself: merged into it, or into one of those before. Which they are stays the same while it
    /// is merged into another one itself.
    pub fn stands_for(&self) -> impl Iterator<Item = Uuid> {
        self.absorbed
            .iter()
            .flat_map(|absorbed| std::iter::once(absorbed.company_id).chain(absorbed.brought.iter().copied()))
    }

    /// The beginning of its name as names are compared ([`company_name::normalise`]): an index takes it whatever the name is. None where
    /// the name has no letter and no digit.
    pub fn name_key(&self) -> Option<String> {
        let key = company_name::key(self.profile.name.as_ref()?.as_str());
        (!key.is_empty()).then_some(key)
    }

    /// What lists of companies are sorted by: the name in lower case.
    pub fn name_sort(&self) -> Option<String> {
        self.profile.name.as_ref().map(|name| name.as_str().to_lowercase())
    }
}

impl Aggregate for Company {
    const TYPE: &'static str = "company";
    type Command = CompanyCommand;
    type Event = CompanyEvent;
    type Error = CompanyError;
    type Services = Context;

    async fn handle(
        &mut self,
        command: CompanyCommand,
        context: &Context,
        sink: &EventSink<Self>,
    ) -> Result<(), CompanyError> {
        for event in self.decide(command, context)? {
            sink.write(event, self).await;
        }
        Ok(())
    }

    fn apply(&mut self, event: CompanyEvent) {
        self.evolve(&event);
    }
}

impl Record for Company {
    fn decide(&self, command: CompanyCommand, context: &Context) -> Result<Vec<CompanyEvent>, CompanyError> {
        super::decide::decide(self, command, context)
    }

    fn evolve(&mut self, event: &CompanyEvent) {
        match event {
            CompanyEvent::CompanyRegistered(registered) => {
                *self = Self {
                    status: Status::Live,
                    profile: registered.profile.clone(),
                    domain: registered.domain.clone(),
                    additional_domains: registered.additional_domains.clone(),
                    external_refs: registered.external_refs.clone(),
                    social_media: registered.social_media.clone(),
                    attributes: registered.attributes.clone(),
                    provenance: Provenance::of(registered.said.as_ref()),
                    ..Self::default()
                };
            }
            CompanyEvent::CompanyProfileUpdated(updated) => {
                let provenance = &mut self.provenance;
                self.profile.replaced(&updated.changes, |field, stood| provenance.replace(None, field, Some(&stood)));
                self.profile.apply(&updated.changes);
            }
            CompanyEvent::CompanyDomainChanged(changed) => {
                self.domain.clone_from(&changed.domain);
                if let Some(domain) = &changed.domain {
                    self.additional_domains.remove(domain);
                }
            }
            CompanyEvent::CompanyAdditionalDomainsChanged(changes) => changes.apply_to(&mut self.additional_domains),
            CompanyEvent::CompanyExternalRefsChanged(changes) => changes.apply_to(&mut self.external_refs),
            CompanyEvent::CompanyAttributesChanged(changes) => {
                for key in changes.keys() {
                    self.provenance.replace(None, &attribute_field(key), self.attributes.get(key));
                }
                self.attributes.apply(changes);
            }
            CompanyEvent::CompanyImported(imported) => imported.apply_to(self),
            CompanyEvent::CompanyImportUndone(undone) => match &undone.before {
                Some(before) => *self = (**before).clone(),
                None => self.status = Status::Deleted,
            },
            CompanyEvent::CompanyReviewRequested(requested) => self.review = Some(requested.reason),
            CompanyEvent::CompanyReviewResolved(_) => self.review = None,
            CompanyEvent::CompanySocialMediaAdded(entry) => self.social_media.push(entry.clone()),
            CompanyEvent::CompanySocialMediaRemoved(removed) => {
                self.social_media.retain(|entry| entry.social_media_id != removed.social_media_id);
            }
            CompanyEvent::CompanyDeleted(_) => self.status = Status::Deleted,
            CompanyEvent::CompanyRestored(_) | CompanyEvent::CompanyUnmerged(_) => self.status = Status::Live,
            CompanyEvent::CompanyMerged(merged) => self.status = Status::Merged { into: merged.into },
            CompanyEvent::CompanyAbsorbed(absorbed) => absorbed.add_to(self),
            CompanyEvent::CompanySeparated(separated) => separated.apply_to(self),
        }
    }

    fn claims(&self, id: Uuid) -> Vec<Claim> {
        if self.status != Status::Live {
            return Vec::new();
        }
        let claim = |kind, key| Claim { kind, key: ClaimKey::Plain(key) };
        let domains = self.domain.iter().chain(&self.additional_domains);
        let mut claims: Vec<_> = domains.map(|domain| claim("domain", domain.as_str().to_owned())).collect();
        claims.extend(self.external_refs.iter().map(|reference| claim("company_ref", reference.key())));
        claims.push(claim(LIVE, id.to_string()));
        claims.sort_unstable();
        claims.dedup();
        claims
    }

    fn matches(&self, _id: Uuid) -> Vec<Match> {
        let name = self.profile.name.as_ref().filter(|_| self.status == Status::Live);
        let key = name.map(|name| {
            let country = self.profile.country.as_ref().map_or("", |country| country.as_str());
            format!("{}/{country}", company_name::normalise(name.as_str()))
        });
        key.into_iter().map(|key| Match { kind: "name_country", key: ClaimKey::Plain(key) }).collect()
    }

    fn weight_bytes(&self) -> usize {
        size_of::<Self>()
            + self.profile.heap_bytes()
            + self.domain.iter().chain(&self.additional_domains).map(|domain| 24 + domain.as_str().len()).sum::<usize>()
            + self
                .external_refs
                .iter()
                .map(|reference| size_of::<ExternalRef>() + reference.heap_bytes())
                .sum::<usize>()
            + self.social_media.iter().map(|entry| size_of::<SocialMedia>() + entry.heap_bytes()).sum::<usize>()
            + self.attributes.heap_bytes()
            + self.provenance.heap_bytes()
            + self.absorbed.iter().map(CompanyAbsorbed::heap_bytes).sum::<usize>()
    }
}
