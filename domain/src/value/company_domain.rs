//! Whether a domain is a company's own (`fields.md`, "Which domain keys a company"): mail hosts that everybody uses, throw-away mail
//! hosts and hosts of other people's pages make no company.

use serde_json::{Value, json};

use super::domain_name::Form;
use super::{Domain, DomainOfHost};
use crate::field_error::Invalid;

/// Whose a domain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainOwner {
    /// One company's, as far as anybody can tell.
    Company,
    /// A mail host's whose addresses anybody can have.
    FreeMail,
    /// A mail host's whose addresses are thrown away.
    Disposable,
    /// A host's on which others have their pages.
    SharedHost,
}

impl DomainOwner {
    /// The code of the error that refuses it as a company's domain; none where it is a company's.
    pub fn code(self) -> Option<&'static str> {
        match self {
            Self::Company => None,
            Self::FreeMail => Some("free_mail"),
            Self::Disposable => Some("disposable_mail"),
            Self::SharedHost => Some("shared_host"),
        }
    }
}

/// How an e-mail address, URL or host leads to a company's domain, or why it leads to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What each step led to, in order.
    pub steps: Vec<(&'static str, String)>,
    /// The company's domain, or what is wrong with the input.
    pub outcome: Result<Domain, Invalid>,
}

impl Explanation {
    /// As it is told: `{"input", "domain" (null where it leads to none), "reason"? {"code", "detail"}, "steps": [{"step", "result"}]}`.
    pub fn to_json(&self, input: &str) -> Value {
        let steps: Vec<Value> =
            self.steps.iter().map(|(step, result)| json!({"step": step, "result": result})).collect();
        let mut told = json!({"input": input, "domain": self.outcome.as_ref().ok()});
        if let Err(invalid) = &self.outcome {
            told["reason"] = json!({"code": invalid.code, "detail": invalid.detail});
        }
        told["steps"] = steps.into();
        told
    }
}

/// Explains where an input leads.
pub fn explain(input: &str) -> Explanation {
    let mut steps = Vec::new();
    let found = DomainOfHost::traced(input, &mut |step, result| steps.push((step, result.to_owned())));
    let outcome = found.and_then(|found| {
        steps.push(("owner", found.owner().code().unwrap_or("company").to_owned()));
        if let Some(suspicion) = found.suspicion() {
            steps.push(("suspicion", suspicion.to_owned()));
        }
        found.if_of_a_company().map(|found| found.domain)
    });
    Explanation { steps, outcome }
}

impl DomainOfHost {
    /// The domain of the company that an e-mail address, a URL or a host leads to.
    ///
    /// # Errors
    /// As [`DomainOfHost::parse`], and `free_mail`, `disposable_mail` or `shared_host` where it is nobody's own.
    pub fn of_company(input: &str) -> Result<Self, Invalid> {
        Self::parse(input)?.if_of_a_company()
    }

    /// Why a person should look at the domain before a company is made of it: it is one slip of the finger away from a mail host
    /// (`gmial.com`), or ends in what nobody registers domains under (`acme.local`). None if there is nothing to see.
    pub fn suspicion(&self) -> Option<&'static str> {
        let domain = self.domain.as_str();
        let known = psl::suffix(domain.as_bytes()).is_some_and(|suffix| suffix.is_known());
        if !known && !RESERVED.iter().any(|reserved| domain.ends_with(reserved)) {
            return Some("ends in no known public suffix");
        }
        let (label, suffix) = domain.split_once('.')?;
        let near = |host: &&str| {
            let (known, known_suffix) = host.split_once('.').unwrap_or((host, ""));
            (label == known && one_slip(suffix, known_suffix)) || (suffix == known_suffix && one_slip(label, known))
        };
        MISTYPED.iter().find(|host| near(host)).map(|_| "looks like a mistyped mail host")
    }

    fn if_of_a_company(self) -> Result<Self, Invalid> {
        let detail = match self.owner() {
            DomainOwner::Company => return Ok(self),
            DomainOwner::FreeMail => {
                "is a mail host where anybody can have an address, not a company's domain: leave it out"
            }
            DomainOwner::Disposable => "is a throw-away mail host, not a company's domain: leave it out",
            DomainOwner::SharedHost => "is a host where others have their pages, not a company's domain: leave it out",
        };
        Err(Invalid::new(self.owner().code().unwrap_or_default(), detail))
    }

    /// Whose the domain is, as far as the lists and the host say.
    pub fn owner(&self) -> DomainOwner {
        let domain = self.domain.as_str();
        if is_free_mail(domain) {
            DomainOwner::FreeMail
        } else if disposable_emails::is_disposable_domain(domain) && !EXAMPLES.contains(&domain) {
            DomainOwner::Disposable
        } else if self.is_on_a_shared_host() {
            DomainOwner::SharedHost
        } else {
            DomainOwner::Company
        }
    }

    /// `https://github.com/acme` is a page of somebody on a host that is GitHub's; `github.com` alone, or an address there, is
    /// GitHub's own. Under a private suffix (`acme.github.io`) everything is somebody's page, but where the suffix is sold like a
    /// public one (`acme.uk.com`); some domains are like that without being on the list (`acme.wordpress.com`).
    fn is_on_a_shared_host(&self) -> bool {
        let domain = self.domain.as_str();
        let suffix = psl::suffix(domain.as_bytes());
        if suffix.is_some_and(|suffix| suffix.typ() == Some(psl::Type::Private) && !is_sold(suffix.as_bytes())) {
            return true;
        }
        let host = self.host.strip_prefix("www.").unwrap_or(&self.host);
        let is_below = host != domain && self.form != Form::Address;
        PAGE_HOSTS.binary_search(&host).is_ok()
            || (is_below && HOSTS_BELOW.binary_search(&domain).is_ok())
            || (self.form == Form::Page && SHARED_HOSTS.binary_search(&domain).is_ok())
    }
}

/// Suffixes for documents and tests (RFC 2606): whoever writes one means it.
const RESERVED: &[&str] = &[".example", ".test"];

/// Mail hosts that are mistyped every day, with labels so long that few other names are near them.
const MISTYPED: &[&str] =
    &["gmail.com", "googlemail.com", "hotmail.com", "icloud.com", "outlook.com", "protonmail.com", "yahoo.com"];

/// Whether one text becomes the other by one letter that is added, left out, or another one, or by two that are swapped.
fn one_slip(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let (short, long) = if one.len() <= other.len() { (one, other) } else { (other, one) };
    let same = short.iter().zip(long).take_while(|(a, b)| a == b).count();
    if same == long.len() {
        return false;
    }
    match long.len() - short.len() {
        0 => {
            let swapped = short.len() > same + 1 && short[same] == long[same + 1] && short[same + 1] == long[same];
            short[same + 1..] == long[same + 1..] || (swapped && short[same + 2..] == long[same + 2..])
        }
        1 => short[same..] == long[same + 1..],
        _ => false,
    }
}

fn is_sold(suffix: &[u8]) -> bool {
    SOLD_SUFFIXES.iter().any(|sold| sold.as_bytes() == suffix)
}

/// Some mail hosts have a domain in each country: `yahoo.co.uk`, `hotmail.fr`.
fn is_free_mail(domain: &str) -> bool {
    let label = domain.split('.').next().unwrap_or_default();
    FREE_MAIL.binary_search(&domain).is_ok() || FREE_MAIL_EVERYWHERE.contains(&label)
}

/// Reserved for documents (RFC 2606), and on lists of throw-away hosts for that.
const EXAMPLES: &[&str] = &["example.com", "example.net", "example.org"];

/// First labels of mail hosts that have a domain in many countries.
const FREE_MAIL_EVERYWHERE: &[&str] = &["aol", "gmx", "googlemail", "hotmail", "outlook", "yahoo", "ymail"];

/// Mail hosts where anybody can have an address, sorted. Written down from what such lists have in common.
const FREE_MAIL: &[&str] = &[
    "126.com",
    "139.com",
    "163.com",
    "189.cn",
    "abv.bg",
    "alice.it",
    "aliyun.com",
    "arcor.de",
    "aruba.it",
    "att.net",
    "bellsouth.net",
    "bezeqint.net",
    "bigpond.com",
    "bk.ru",
    "bluewin.ch",
    "blueyonder.co.uk",
    "bol.com.br",
    "btinternet.com",
    "centrum.cz",
    "charter.net",
    "chello.nl",
    "comcast.net",
    "cox.net",
    "daum.net",
    "earthlink.net",
    "eircom.net",
    "email.com",
    "email.cz",
    "email.de",
    "emirates.net.ae",
    "excite.com",
    "fastmail.com",
    "fastmail.fm",
    "foxmail.com",
    "free.fr",
    "freemail.hu",
    "freenet.de",
    "frontier.com",
    "gmail.co",
    "gmail.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hanmail.net",
    "hey.com",
    "home.nl",
    "hotmail.com",
    "hushmail.com",
    "i.ua",
    "icloud.com",
    "ig.com.br",
    "iinet.net.au",
    "in.com",
    "inbox.com",
    "inbox.lv",
    "inbox.ru",
    "indiatimes.com",
    "interia.pl",
    "internode.on.net",
    "jcom.home.ne.jp",
    "juno.com",
    "kakao.com",
    "kpnmail.nl",
    "laposte.net",
    "libero.it",
    "list.ru",
    "live.ca",
    "live.cn",
    "live.co.uk",
    "live.com",
    "live.com.au",
    "live.com.mx",
    "live.de",
    "live.fr",
    "live.it",
    "live.nl",
    "live.se",
    "lycos.com",
    "mac.com",
    "mail.bg",
    "mail.com",
    "mail.de",
    "mail.ee",
    "mail.ru",
    "mail2world.com",
    "mailbox.org",
    "maktoob.com",
    "me.com",
    "msn.com",
    "mweb.co.za",
    "mymail.com.br",
    "mynet.com",
    "nate.com",
    "naver.com",
    "netvigator.com",
    "neuf.fr",
    "ngs.ru",
    "nifty.com",
    "ntlworld.com",
    "o2.pl",
    "onet.pl",
    "online.de",
    "op.pl",
    "optonline.net",
    "optusnet.com.au",
    "orange.fr",
    "outlook.com",
    "pacbell.net",
    "planet.nl",
    "pldtdsl.net",
    "pm.me",
    "pobox.com",
    "post.cz",
    "posteo.de",
    "proton.me",
    "protonmail.ch",
    "protonmail.com",
    "qq.com",
    "rambler.ru",
    "rediffmail.com",
    "rocketmail.com",
    "runbox.com",
    "sapo.pt",
    "sbcglobal.net",
    "seznam.cz",
    "sfr.fr",
    "shaw.ca",
    "sify.com",
    "sina.cn",
    "sina.com",
    "singnet.com.sg",
    "sky.com",
    "skynet.be",
    "sohu.com",
    "spray.se",
    "startmail.com",
    "suddenlink.net",
    "sympatico.ca",
    "t-online.de",
    "talktalk.net",
    "telenet.be",
    "telia.com",
    "telus.net",
    "terra.com.br",
    "terra.es",
    "tin.it",
    "tiscali.co.uk",
    "tiscali.it",
    "tuta.com",
    "tuta.io",
    "tutamail.com",
    "tutanota.com",
    "tutanota.de",
    "ukr.net",
    "ultramail.com",
    "uol.com.br",
    "usa.net",
    "verizon.net",
    "videotron.ca",
    "virgilio.it",
    "virgin.net",
    "virginmedia.com",
    "vodafone.it",
    "voila.fr",
    "volny.cz",
    "vsnl.com",
    "walla.co.il",
    "walla.com",
    "wanadoo.fr",
    "web.de",
    "windowslive.com",
    "windstream.net",
    "wp.pl",
    "xs4all.nl",
    "xtra.co.nz",
    "ya.ru",
    "yandex.by",
    "yandex.com",
    "yandex.kz",
    "yandex.ru",
    "yandex.ua",
    "yeah.net",
    "zeelandnet.nl",
    "ziggo.nl",
    "zoho.com",
    "zohomail.com",
    "zonnet.nl",
];

/// Domains of hosts whose pages are other people's, sorted; the host as a whole is its owner's.
const SHARED_HOSTS: &[&str] = &[
    "about.me",
    "academia.edu",
    "angel.co",
    "atlassian.net",
    "behance.net",
    "bit.ly",
    "bitbucket.org",
    "blogger.com",
    "calendly.com",
    "carrd.co",
    "crunchbase.com",
    "dev.to",
    "devpost.com",
    "discord.com",
    "discord.gg",
    "dribbble.com",
    "ebay.com",
    "etsy.com",
    "eventbrite.com",
    "facebook.com",
    "fb.com",
    "fb.me",
    "fiverr.com",
    "flickr.com",
    "foursquare.com",
    "github.com",
    "gitlab.com",
    "glassdoor.com",
    "gofundme.com",
    "goo.gl",
    "gumroad.com",
    "hackernoon.com",
    "huggingface.co",
    "indeed.com",
    "indiegogo.com",
    "instagram.com",
    "issuu.com",
    "itch.io",
    "justgiving.com",
    "kickstarter.com",
    "linkedin.com",
    "linktr.ee",
    "lnkd.in",
    "loom.com",
    "mailchi.mp",
    "medium.com",
    "meetup.com",
    "messenger.com",
    "myspace.com",
    "notion.so",
    "npmjs.com",
    "onlyfans.com",
    "patreon.com",
    "pinterest.com",
    "producthunt.com",
    "pypi.org",
    "quora.com",
    "reddit.com",
    "researchgate.net",
    "scribd.com",
    "slideshare.net",
    "snapchat.com",
    "soundcloud.com",
    "sourceforge.net",
    "steamcommunity.com",
    "substack.com",
    "t.co",
    "t.me",
    "telegram.me",
    "tiktok.com",
    "tinyurl.com",
    "tripadvisor.com",
    "trustpilot.com",
    "tumblr.com",
    "twitch.tv",
    "twitter.com",
    "udemy.com",
    "upwork.com",
    "vimeo.com",
    "vk.com",
    "wa.me",
    "wellfound.com",
    "whatsapp.com",
    "wikipedia.org",
    "wixsite.com",
    "x.com",
    "xing.com",
    "ycombinator.com",
    "yelp.com",
    "youtu.be",
    "youtube.com",
];

/// Hosts that have nothing but other people's pages, under a domain that has more, sorted.
const PAGE_HOSTS: &[&str] = &[
    "apps.apple.com",
    "business.facebook.com",
    "chrome.google.com",
    "docs.google.com",
    "drive.google.com",
    "forms.gle",
    "gist.github.com",
    "groups.google.com",
    "itunes.apple.com",
    "m.facebook.com",
    "maps.google.com",
    "marketplace.visualstudio.com",
    "open.spotify.com",
    "photos.google.com",
    "play.google.com",
    "podcasts.apple.com",
    "sites.google.com",
];

/// Domains that are their owner's, while the hosts below them are other people's pages, sorted. The Public Suffix List has most of their
/// kind, not these.
const HOSTS_BELOW: &[&str] = &[
    "atlassian.net",
    "bandcamp.com",
    "business.site",
    "gumroad.com",
    "hubpages.com",
    "itch.io",
    "jimdo.com",
    "jimdofree.com",
    "livejournal.com",
    "medium.com",
    "squarespace.com",
    "strikingly.com",
    "substack.com",
    "tumblr.com",
    "typeform.com",
    "webs.com",
    "weebly.com",
    "wordpress.com",
    "zendesk.com",
];

/// Private suffixes of the Public Suffix List under which domains are sold to anybody, as under a public one, sorted.
const SOLD_SUFFIXES: &[&str] = &[
    "ae.org",
    "africa.com",
    "br.com",
    "cn.com",
    "co.com",
    "co.nl",
    "co.no",
    "com.de",
    "com.se",
    "de.com",
    "eu.com",
    "gb.net",
    "gr.com",
    "hu.net",
    "in.net",
    "jp.net",
    "jpn.com",
    "mex.com",
    "ru.com",
    "sa.com",
    "se.net",
    "uk.com",
    "uk.net",
    "uk.org",
    "us.com",
    "us.org",
    "za.com",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistyped_mail_hosts_and_unknown_suffixes_are_suspicious_and_their_neighbours_are_not() {
        let suspicion = |input: &str| DomainOfHost::parse(input).ok().and_then(|found| found.suspicion());
        for input in
            ["a@gmial.com", "a@gmal.com", "a@gmaill.com", "a@hotmial.com", "a@yahoo.cmo", "a@acme.local", "outlok.com"]
        {
            assert!(suspicion(input).is_some(), "{input}");
        }
        for input in [
            "a@acme.com",
            "a@acme.co.uk",
            "a@acme.example",
            "a@snail.com",
            "a@yard.com",
            "a@gmail-tools.com",
            "https://cloudy.io",
        ] {
            assert_eq!(suspicion(input), None, "{input}");
        }
    }

    #[test]
    fn the_lists_are_sorted_as_they_are_searched() {
        for list in [FREE_MAIL, SHARED_HOSTS, PAGE_HOSTS, HOSTS_BELOW, SOLD_SUFFIXES] {
            assert!(list.is_sorted_by(|one, next| one < next), "{list:?}");
        }
    }
}
