//! How fresh a client wants its answer, and what an answer includes (decision 14).

use std::time::Duration;

use event_store::epoch::Epoch;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use service_kit::problem::{Code, Problem};
use tokio_postgres::GenericClient;

use crate::parameters::Parameters;
use crate::problems::ReadError;
use crate::read::State;

/// What an answer includes.
const POSITION: HeaderName = HeaderName::from_static("prospectus-position");
/// The life of the log that the position belongs to.
const EPOCH: HeaderName = HeaderName::from_static("prospectus-epoch");

const MIN_POSITION: &str = "prospectus-min-position";
const WAIT_DEFAULT: Duration = Duration::from_secs(2);
const WAIT_SECONDS_MAX: u64 = 30;

impl State {
    /// What every answer of a snapshot says about itself, in headers.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
        let epoch = HeaderValue::from_str(&self.epoch).ok().filter(|epoch| !epoch.is_empty());
        let headers = [
            Some((POSITION, HeaderValue::from(self.position))),
            epoch.map(|epoch| (EPOCH, epoch)),
            // Kept by nobody without asking: what a key may see is not for others, and an ETag makes asking cheap.
            Some((header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"))),
        ];
        headers.into_iter().flatten()
    }

    /// The same on a refusal that rests on the snapshot.
    pub(crate) fn describe(&self, problem: Problem) -> Problem {
        self.headers().fold(problem, |problem, (name, value)| problem.header(name, value))
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The least position that the answer must include; 0 is any.
    pub(crate) position: i64,
    /// The epoch that the position is of, where the client says so.
    pub(crate) epoch: Option<String>,
    /// How long the answer may wait for it.
    pub(crate) wait: Duration,
}

impl Wanted {
    /// Reads `Prospectus-Min-Position` and `Prefer: wait=S`; a position that is none is noted with the parameters. A wait that is no
    /// number is left out of account, as RFC 7240 has it; one over 30 seconds counts as 30.
    pub(crate) fn parse(headers: &HeaderMap, parameters: &mut Parameters) -> Self {
        let mut wanted = Self { position: 0, epoch: None, wait: WAIT_DEFAULT };
        let mut given = headers.get_all(MIN_POSITION).iter();
        if let Some(value) = given.next() {
            match value.to_str().ok().and_then(parse_position).filter(|_| given.next().is_none()) {
                Some((epoch, position)) => (wanted.epoch, wanted.position) = (epoch, position),
                None => parameters.note_value(
                    "Prospectus-Min-Position",
                    "must be a position of the log, such as 4711 or 1.5f3c9a2e-4711",
                ),
            }
        }
        let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let wait = preferences.flat_map(|value| value.split(',')).find_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse::<u64>().ok())?
        });
        if let Some(seconds) = wait {
            wanted.wait = Duration::from_secs(seconds.min(WAIT_SECONDS_MAX));
        }
        wanted
    }

    /// The position after which a stream of events goes on, and its epoch where the client names it: `Last-Event-ID`. What is none is
    /// noted with the parameters.
    pub(crate) fn last_event(headers: &HeaderMap, parameters: &mut Parameters) -> Option<Self> {
        let value = headers.get("last-event-id")?;
        let Some((epoch, position)) = value.to_str().ok().and_then(parse_position) else {
            parameters.note_value(
                "Last-Event-ID",
                "must be the id of an event of this feed, such as 1.0a0b0c0d-4711, or a position",
            );
            return None;
        };
        Some(Self { position, epoch, wait: WAIT_DEFAULT })
    }

    /// Passes if the wanted position is of this log's past: for a client that named an epoch. An epoch newer than all that this
    /// server knows may still be on its way, and passes too until the position is reached.
    pub(crate) async fn check_epoch(
        &self,
        client: &impl GenericClient,
        reached: bool,
    ) -> Result<Result<(), Problem>, ReadError> {
        let Some(epoch) = &self.epoch else { return Ok(Ok(())) };
        if Epoch::is_past(client, epoch, self.position).await? {
            return Ok(Ok(()));
        }
        let number: Option<i64> = epoch.split_once('.').and_then(|(number, _)| number.parse().ok());
        let newest = Epoch::newest(client).await?.map_or(0, |newest| newest.number);
        if !reached && number.is_some_and(|number| number > newest) {
            return Ok(Ok(()));
        }
        let detail = "the position is not of this log's past: the log began another life before it, and what stood there is lost";
        Ok(Err(Problem::new(Code::EpochMismatch, detail)))
    }

    /// The answer where the time is over.
    pub(crate) fn not_fresh(&self, state: &State) -> Problem {
        let reached = state.position;
        let lag = self.position.saturating_sub(reached);
        let problem = Problem::new(
            Code::NotFresh,
            format!("position {} was asked for, {reached} is what can be read now", self.position),
        )
        .member("position", reached)
        .member("lag", serde_json::json!({"wanted": self.position, "reached": reached, "events": lag}));
        state.describe(problem)
    }
}

/// A position, with the epoch that stands before it.
fn parse_position(text: &str) -> Option<(Option<String>, i64)> {
    let (epoch, number) = match text.trim().rsplit_once('-') {
        Some((epoch, number)) if is_epoch_name(epoch) => (Some(epoch.to_owned()), number),
        Some(_) => return None,
        None => (None, text.trim()),
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((epoch, number.parse().ok().filter(|_| digits)?))
}

fn is_epoch_name(text: &str) -> bool {
    text.split_once('.').is_some_and(|(number, id)| {
        !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
            && id.len() == 8
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(position: &str, prefer: &str) -> Result<Wanted, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(MIN_POSITION, HeaderValue::from_str(position).expect("ASCII"));
        headers.insert("prefer", HeaderValue::from_str(prefer).expect("ASCII"));
        let mut parameters = Parameters::parse(None, &[]).expect("there are none");
        let wanted = Wanted::parse(&headers, &mut parameters);
        parameters.check().map(|()| wanted)
    }

    #[test]
    fn positions_and_waits() {
        let wanted = parse("1.5f3c9a2e-4711", "respond-async, wait=5").expect("both are right");
        assert_eq!((wanted.position, wanted.epoch.as_deref(), wanted.wait.as_secs()), (4711, Some("1.5f3c9a2e"), 5));
        assert_eq!(parse("0", "wait=1000").expect("bounded").wait.as_secs(), 30);
        assert_eq!(parse("7", "wait=soon").expect("left out of account").wait, WAIT_DEFAULT);
        for wrong in ["-1", "+1", "x", "", "1.5f3c9a2e-", "5f3c9a2e-1", "99999999999999999999", "1.5f3c9a2e--1", "1e3"]
        {
            assert!(parse(wrong, "wait=1").is_err(), "{wrong}");
        }
    }
}
