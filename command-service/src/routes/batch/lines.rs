//! The lines of a body as they arrive, and how they end: with the body, or early, with a last line that says so.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use service_kit::problem::{Code, Problem};
use service_kit::shutdown::Shutdown;

use crate::routes::COMMAND_BYTES_MAX;

/// Lines of one batch.
const LINES_MAX: usize = 1_000_000;
/// After an early end: how long what the client still sends is thrown away, and how much of it. A client that is cut off while it
/// sends may lose answers that are on their way.
const DISCARD_WAIT: Duration = Duration::from_secs(5);
const DISCARDED_BYTES_MAX: usize = 16 << 20;

/// Cuts a body into lines as it arrives.
pub(super) struct Lines {
    body: Body,
    /// How long the client may send nothing.
    silence: Duration,
    shutdown: Shutdown,
    buffer: BytesMut,
    /// Up to here there is no line break.
    searched: usize,
    /// The rest of a line that is too long is thrown away.
    skipping: bool,
    count: usize,
    /// No more comes from the body, or nobody waits for it.
    body_ended: bool,
    ended: bool,
}

impl Lines {
    /// The lines of `body`, until it is silent for as long as `silence` or the process is to end.
    pub(super) fn new(body: Body, silence: Duration, shutdown: Shutdown) -> Self {
        Self {
            body,
            silence,
            shutdown,
            buffer: BytesMut::new(),
            searched: 0,
            skipping: false,
            count: 0,
            body_ended: false,
            ended: false,
        }
    }

    /// The next line that is not blank; none at the end. An error stands for a line that is too long, or for the rest of the batch
    /// where that is not read: then it is the last. Nothing is lost if the future is dropped.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Problem>> {
        while !self.ended {
            if let Some(line) = self.cut() {
                if line.as_ref().is_ok_and(|line| line.trim_ascii().is_empty()) {
                    continue;
                }
                if self.shutdown.is_requested() {
                    return Some(self.end_early(stopping()));
                }
                self.count += 1;
                if self.count > LINES_MAX {
                    return Some(self.end_early(too_many()));
                }
                return Some(line);
            }
            if self.body_ended {
                self.ended = true;
                break;
            }
            let frame = tokio::select! {
                () = self.shutdown.requested() => return Some(self.end_early(stopping())),
                frame = tokio::time::timeout(self.silence, self.body.frame()) => frame,
            };
            match frame {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Ok(None) => self.body_ended = true,
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "a batch broke off");
                    self.body_ended = true;
                    return Some(self.end_early(broken_off()));
                }
                Err(_) => {
                    self.body_ended = true;
                    return Some(self.end_early(silent(self.silence)));
                }
            }
        }
        None
    }

    /// Throws away what the client still sends after an early end, within bounds.
    pub(super) async fn discard_rest(&mut self) {
        let discard = async {
            let mut bytes = 0;
            while bytes <= DISCARDED_BYTES_MAX
                && let Some(Ok(frame)) = self.body.frame().await
            {
                bytes += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        if !self.body_ended {
            // Past the time the client has had its chance.
            let _ = tokio::time::timeout(DISCARD_WAIT, discard).await;
        }
    }

    fn end_early(&mut self, why: Problem) -> Result<Bytes, Problem> {
        self.ended = true;
        Err(why)
    }

    /// The next line of what has arrived.
    fn cut(&mut self) -> Option<Result<Bytes, Problem>> {
        loop {
            let end = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| at + self.searched);
            let line = match end {
                Some(end) => {
                    self.searched = 0;
                    self.buffer.split_to(end + 1)
                }
                None if self.body_ended && !self.buffer.is_empty() => {
                    self.searched = 0;
                    self.buffer.split()
                }
                None if self.buffer.len() > COMMAND_BYTES_MAX => {
                    self.searched = 0;
                    self.buffer.clear();
                    if std::mem::replace(&mut self.skipping, true) {
                        return None;
                    }
                    return Some(Err(too_long()));
                }
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
            };
            // The rest of a line that was answered already.
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            return Some(if line.len() > COMMAND_BYTES_MAX + 1 { Err(too_long()) } else { Ok(line.freeze()) });
        }
    }
}

fn too_long() -> Problem {
    Problem::new(Code::BodyTooLarge, format!("a line may have at most {COMMAND_BYTES_MAX} bytes"))
        .member("limit", COMMAND_BYTES_MAX)
}

fn too_many() -> Problem {
    let detail = format!("a batch has at most {LINES_MAX} lines; this one and all after it were not carried out");
    Problem::new(Code::BodyTooLarge, detail)
}

fn stopping() -> Problem {
    let detail = "the service is stopping; this line and all after it were not carried out, send them again";
    Problem::new(Code::ShuttingDown, detail)
}

fn broken_off() -> Problem {
    let detail = "the body broke off; what arrived of this line and all after it were not carried out";
    Problem::new(Code::InvalidParameter, detail)
}

fn silent(silence: Duration) -> Problem {
    let detail = format!(
        "nothing came for {} s; what arrived of this line and all after it were not carried out",
        silence.as_secs_f64()
    );
    Problem::new(Code::RequestTimeout, detail)
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    /// A client that is not silent on purpose is not taken for it.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// What is read of frames; the body stays open after them if it does not break off or end.
    async fn read(frames: Vec<Result<&'static str, &'static str>>, open: bool, silence: Duration) -> Vec<String> {
        let (_trigger, shutdown) = Shutdown::new();
        let frames = stream::iter(frames);
        let body = if open {
            Body::from_stream(futures_util::StreamExt::chain(frames, stream::pending()))
        } else {
            Body::from_stream(frames)
        };
        let mut lines = Lines::new(body, silence, shutdown);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            found.push(match line {
                Ok(line) => String::from_utf8_lossy(&line).trim_end().to_owned(),
                Err(problem) => problem.code().name().to_owned(),
            });
        }
        found
    }

    #[tokio::test]
    async fn a_body_that_ends_is_read_to_its_last_line() {
        assert_eq!(read(vec![Ok("a\n\nb"), Ok("b\n \nc")], false, PATIENCE).await, ["a", "bb", "c"]);
        assert!(read(vec![], false, PATIENCE).await.is_empty());
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_or_falls_silent_has_a_last_line_that_says_so() {
        let broken = vec![Ok("a\nb\nhalf"), Err("broken")];
        assert_eq!(read(broken, false, PATIENCE).await, ["a", "b", "invalid_parameter"]);
        let silence = Duration::from_millis(50);
        assert_eq!(read(vec![Ok("a\nhalf")], true, silence).await, ["a", "request_timeout"]);
    }

    #[tokio::test]
    async fn a_process_that_ends_reads_no_more() {
        let (trigger, shutdown) = Shutdown::new();
        let frames = stream::iter([Ok::<_, &str>("a\nb\n")]);
        let body = Body::from_stream(futures_util::StreamExt::chain(frames, stream::pending()));
        let mut lines = Lines::new(body, PATIENCE, shutdown);
        assert!(lines.next().await.is_some_and(|line| line.is_ok()));
        trigger.request();
        let code = lines.next().await.and_then(Result::err).map(|problem| problem.code());
        assert_eq!(code, Some(Code::ShuttingDown));
        assert!(lines.next().await.is_none());
    }
}
