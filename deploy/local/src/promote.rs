//! Making a replica the primary: the old one is fenced, every standby is asked what it has received, the one that has received most is
//! promoted, and the others, the old primary too, follow it.
//!
//! What is kept in which order: nothing is promoted before no process of the old primary is left (until then it could still have a standby
//! acknowledge a commit) and its directory and `servers.json` say that it is none any more (so that no restart makes it one again).

use std::fmt;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use tokio_postgres::Client;

use crate::error::StackError;
use crate::part::Part;
use crate::postgres;
use crate::processes::processes_in;
use crate::stack::Stack;

/// How long a standby may take to say what it has received.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a standby may take to read what the old primary's connection still holds.
const DRAINED: Duration = Duration::from_secs(20);
/// How long the old primary's processes may take to end before they are killed.
const GONE: Duration = Duration::from_secs(5);
/// How long the promoted one may take to end its recovery, in seconds.
const PROMOTED_SECONDS: i32 = 60;
/// How long a standby may take to follow the new primary.
const FOLLOWS: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(15);

/// What a promotion did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// Which server is the primary now, by the name of its directory.
    pub server: String,
    /// What each standby had received, as a place in the write-ahead log, by the name of its directory; none where it did not say.
    pub received: Vec<(String, Option<u64>)>,
    /// How the other servers follow, by the names of their directories.
    pub others: Vec<(String, Behind)>,
}

/// How a server came behind the new primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// It went on from where it was.
    Followed,
    /// What it had beyond the new primary was taken back (`pg_rewind`).
    Rewound,
    /// It was made anew from the new primary, because it could not go on or be rewound.
    Copied(String),
    /// It is held off, and is made anew when it is started.
    LeftOut(String),
    /// Something went wrong with it; it may follow or not.
    Failed(String),
}

impl Promotion {
    /// Whether nothing went wrong with any of the others.
    pub fn is_whole(&self) -> bool {
        !self.others.iter().any(|(_, behind)| matches!(behind, Behind::Failed(_)))
    }
}

impl fmt::Display for Promotion {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (server, received) in &self.received {
            match received {
                Some(lsn) => writeln!(out, "{server} had received up to {}", Lsn(*lsn))?,
                None => writeln!(out, "{server} did not say what it had received")?,
            }
        }
        writeln!(out, "the primary is {}", self.server)?;
        for (server, behind) in &self.others {
            match behind {
                Behind::Followed => writeln!(out, "{server} follows it")?,
                Behind::Rewound => writeln!(out, "{server} was rewound and follows it")?,
                Behind::Copied(why) => writeln!(out, "{server} was made anew and follows it ({why})")?,
                Behind::LeftOut(why) => {
                    writeln!(out, "{server} is held off and is made anew when it is started ({why})")?;
                }
                Behind::Failed(why) => {
                    writeln!(out, "{server} does not follow it yet ({why}): stop it and start it again")?;
                }
            }
        }
        Ok(())
    }
}

/// A place in the write-ahead log, as PostgreSQL writes it.
struct Lsn(u64);

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// What a standby says of itself.
struct Received {
    /// The newest timeline that it has write-ahead log of: one that is behind in that has followed nobody since, whatever its place.
    timeline: String,
    /// How far it has the write-ahead log on its disk.
    lsn: u64,
    /// Whether nothing more is on its way to it.
    drained: bool,
}

impl Stack {
    /// Makes the replica that has received most the primary. The old primary is stopped and fenced; it and the other replicas follow.
    ///
    /// # Errors
    /// If not every replica says what it has received, unless `accept_loss`: nothing has changed then. If the fence or the promotion
    /// fails, the message says what is to be done. What goes wrong with the others once there is a new primary is in the answer.
    pub async fn promote(&self, accept_loss: bool) -> Result<Promotion, StackError> {
        if self.options.postgres_only {
            return Err(StackError::Order("this stack has no replica that could be promoted".to_owned()));
        }
        let standbys: Vec<Part> = (1..=self.options.replicas).map(Part::Replica).collect();
        // A refusal must leave the primary alone, so they are asked before it is fenced too.
        self.enough(&self.ask(&standbys).await, accept_loss)?;
        let old = self.seat(Part::Primary);
        self.fence(old).await?;
        let answers = self.ask_drained(&standbys).await;
        if let Err(error) = self.enough(&answers, accept_loss) {
            // Nobody was promoted, so the old one may be what it was.
            postgres::remove_standby_mark(&self.shared.data, old)?;
            self.start_part(Part::Primary).await?;
            return Err(error);
        }
        let best = answers
            .iter()
            .filter_map(|(part, answer)| answer.as_ref().ok().map(|one| ((&one.timeline, one.lsn), *part)));
        // Of two that have received the same, the first.
        let chosen = best.max_by_key(|(most, part)| (*most, std::cmp::Reverse(*part))).map(|(_, part)| part);
        let chosen = chosen.ok_or_else(|| StackError::Promotion("no replica answers".to_owned()))?;
        let received = answers
            .iter()
            .map(|(part, answer)| (self.seat(*part).name(), answer.as_ref().ok().map(|received| received.lsn)));
        let received = received.collect();

        // Before there is another primary, so that no restart of ours serves from one that may have what was given up.
        for (part, _) in answers.iter().filter(|(_, answer)| answer.is_err()) {
            self.shared.seats.set_anew(self.seat(*part), true)?;
        }
        self.shared.seats.promote(chosen)?;
        self.pids.publish();
        let server = self.seat(Part::Primary).name();
        // One that did not answer is made anew, and its slot with it.
        let follow = answers.iter().filter(|(part, answer)| *part != chosen && answer.is_ok());
        let seats: Vec<Part> = follow.map(|(part, _)| self.seat(*part)).chain([old]).collect();
        // A new primary's first checkpoint, which comes at once, may remove what they have not received, and what the old one is rewound with:
        // so the slots are there before. Where that fails it is tried again for each.
        if let Err(error) = self.make_slots(&seats).await {
            eprintln!("local-stack | slots on {server} before it is promoted: {error}");
        }
        self.promote_server(self.port(Part::Primary)).await.map_err(|error| match error {
            StackError::Promotion(_) => error,
            other => StackError::Promotion(format!(
                "{server} was chosen, and it is not known whether it is the primary now ({other}). The old primary stays fenced; promote \
                 again, or restart the stack, which ends the promotion"
            )),
        })?;
        let others = self.gather(&answers, chosen, old).await;
        Ok(Promotion { server, received, others })
    }

    /// Has every other server follow the new primary. What goes wrong with one of them keeps nobody from the next.
    async fn gather(
        &self,
        answers: &[(Part, Result<Received, String>)],
        chosen: Part,
        old: Part,
    ) -> Vec<(String, Behind)> {
        let mut others = Vec::new();
        for (part, answer) in answers.iter().filter(|(part, _)| *part != chosen) {
            let behind = match answer {
                Ok(_) => self.follow(*part).await,
                Err(why) => self.leave_out(*part, why).await,
            };
            others.push((self.seat(*part).name(), behind));
        }
        others.push((old.name(), self.bring_back(chosen).await));
        let told =
            |behind: Result<Behind, StackError>| behind.unwrap_or_else(|error| Behind::Failed(error.to_string()));
        others.into_iter().map(|(server, behind)| (server, told(behind))).collect()
    }

    async fn make_slots(&self, seats: &[Part]) -> Result<(), StackError> {
        let primary = self.primary_client(self.port(Part::Primary)).await?;
        for seat in seats {
            postgres::ensure_slot(&primary, *seat).await?;
        }
        Ok(())
    }

    /// Ends the recovery of the server at this port, where it is in one.
    pub(crate) async fn promote_server(&self, port: u16) -> Result<(), StackError> {
        let client = self.primary_client(port).await?;
        let promote = "SELECT NOT pg_is_in_recovery() OR pg_promote(true, $1)";
        let done = client.query_one(promote, &[&PROMOTED_SECONDS]).await;
        let done: bool = done.map_err(StackError::database("promoting"))?.get(0);
        if done {
            return Ok(());
        }
        Err(StackError::Promotion(format!(
            "{} was told to be the primary and has not ended its recovery after {PROMOTED_SECONDS} s; its log says why. The old primary \
             stays fenced; `local-stack promote --accept-loss` tries another replica",
            self.seat(Part::Primary).name()
        )))
    }

    async fn primary_client(&self, port: u16) -> Result<Client, StackError> {
        postgres::connect_to(&self.shared.data, port, "postgres").await
    }

    /// An acknowledged command is on one standby at least; only all of them together surely have it.
    fn enough(&self, answers: &[(Part, Result<Received, String>)], accept_loss: bool) -> Result<(), StackError> {
        let silent: Vec<String> = answers
            .iter()
            .filter_map(|(part, answer)| Some(format!("{}: {}", self.seat(*part).name(), answer.as_ref().err()?)))
            .collect();
        if silent.is_empty() || (accept_loss && silent.len() < answers.len()) {
            return Ok(());
        }
        Err(StackError::Promotion(format!(
            "{} of {} replicas answer ({}); a command that was acknowledged may be only on one that does not. Bring it back, or \
             accept the loss with `local-stack promote --accept-loss`, which needs one that answers",
            answers.len() - silent.len(),
            answers.len(),
            silent.join("; ")
        )))
    }

    async fn ask(&self, standbys: &[Part]) -> Vec<(Part, Result<Received, String>)> {
        let mut answers = Vec::new();
        for part in standbys {
            let answer = tokio::time::timeout(ANSWER, self.ask_one(*part)).await;
            answers.push((*part, answer.unwrap_or_else(|_| Err(format!("no answer after {} s", ANSWER.as_secs())))));
        }
        answers
    }

    /// Asks until nothing more is on its way to any of them.
    async fn ask_drained(&self, standbys: &[Part]) -> Vec<(Part, Result<Received, String>)> {
        let started = Instant::now();
        loop {
            let mut answers = self.ask(standbys).await;
            let on_their_way =
                |(_, answer): &(Part, Result<Received, String>)| answer.as_ref().is_ok_and(|one| !one.drained);
            if !answers.iter().any(on_their_way) {
                return answers;
            }
            if started.elapsed() > DRAINED {
                for (_, answer) in &mut answers {
                    if answer.as_ref().is_ok_and(|one| !one.drained) {
                        *answer = Err(format!("still reads what it received after {} s", DRAINED.as_secs()));
                    }
                }
                return answers;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn ask_one(&self, part: Part) -> Result<Received, String> {
        // What is received ends with the connection to the primary; a standby that was started since has no such place until it has
        // replayed what is on its disk.
        const SQL: &str = "-- local_stack::promote::ask_one
            SELECT pg_is_in_recovery(),
                   (greatest(coalesce(pg_last_wal_receive_lsn(), '0/0'), coalesce(pg_last_wal_replay_lsn(), '0/0')) - '0/0')::bigint,
                   NOT EXISTS (SELECT FROM pg_stat_wal_receiver AS r WHERE r.status = 'streaming')
                   AND (pg_last_wal_receive_lsn() IS NOT NULL
                        OR EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.backend_type = 'startup'
                                   AND a.wait_event IN ('RecoveryWalStream', 'RecoveryRetrieveRetryInterval', 'RecoveryPause'))),
                   (SELECT max(left(f.name, 8)) FROM pg_ls_waldir() AS f WHERE f.name ~ '^[0-9A-F]{24}$')";
        let client = postgres::connect_to(&self.shared.data, self.port(part), "postgres").await;
        let client = client.map_err(|error| error.to_string())?;
        let row = client.query_one(SQL, &[]).await.map_err(|error| service_kit::postgres::describe(&error))?;
        if !row.get::<_, bool>(0) {
            return Err("it is not a standby".to_owned());
        }
        let lsn = u64::try_from(row.get::<_, i64>(1)).map_err(|error| error.to_string())?;
        Ok(Received { timeline: row.get::<_, Option<String>>(3).unwrap_or_default(), lsn, drained: row.get(2) })
    }

    /// Stops the primary for good: the supervisor does not start it again, none of its processes is left, and whoever starts it by hand
    /// gets a standby.
    async fn fence(&self, seat: Part) -> Result<(), StackError> {
        self.stop_seat(seat).await?;
        let directory = postgres::directory(&self.shared.data, seat);
        let started = Instant::now();
        loop {
            let left = processes_in(&directory, &self.postgres.program("postgres"))
                .map_err(StackError::io("looking for the old primary's processes, so nothing was promoted"))?;
            if left.is_empty() {
                break;
            }
            if started.elapsed() > 2 * GONE {
                return Err(StackError::Promotion(format!(
                    "the old primary's processes {left:?} cannot be ended, so nothing was promoted: end them, then promote again"
                )));
            }
            if started.elapsed() > GONE {
                for pid in left {
                    // One that has ended meanwhile needs none.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            tokio::time::sleep(LOOK).await;
        }
        postgres::mark_standby(&self.shared.data, self.account, seat)
    }

    /// Waits until a standby streams from the new primary; one that cannot is made anew.
    async fn follow(&self, part: Part) -> Result<Behind, StackError> {
        let seat = self.seat(part);
        let primary = self.primary_client(self.port(Part::Primary)).await?;
        postgres::ensure_slot(&primary, seat).await?;
        if self.streams(&primary, seat).await? {
            return Ok(Behind::Followed);
        }
        self.stop_seat(seat).await?;
        self.shared.seats.set_anew(seat, true)?;
        self.start_part(part).await?;
        Ok(Behind::Copied(format!("it did not follow within {} s", FOLLOWS.as_secs())))
    }

    async fn leave_out(&self, part: Part, why: &str) -> Result<Behind, StackError> {
        let seat = self.seat(part);
        self.shared.seats.set_anew(seat, true)?;
        self.stop_seat(seat).await?;
        Ok(Behind::LeftOut(why.to_owned()))
    }

    /// Makes the old primary, which has the job of `part` now, a replica.
    async fn bring_back(&self, part: Part) -> Result<Behind, StackError> {
        let (data, seat) = (&self.shared.data, self.seat(part));
        let primary = self.primary_client(self.port(Part::Primary)).await?;
        postgres::ensure_slot(&primary, seat).await?;
        // pg_rewind reads the new timeline from the control file, where a checkpoint writes it.
        primary.batch_execute("CHECKPOINT").await.map_err(StackError::database("a checkpoint on the new primary"))?;
        let rewound = postgres::rewind(&self.postgres, data, self.account, seat, self.port(Part::Primary)).await;
        let mut behind = Behind::Rewound;
        match rewound {
            Ok(()) => self.shared.seats.set_anew(seat, false)?,
            Err(error) => behind = Behind::Copied(error.to_string()),
        }
        let why = match self.start_part(part).await {
            Err(error) if behind == Behind::Rewound => Some(error.to_string()),
            Err(error) => return Err(error),
            Ok(()) if behind == Behind::Rewound && !self.streams(&primary, seat).await? => {
                Some(format!("not within {} s", FOLLOWS.as_secs()))
            }
            Ok(()) => None,
        };
        if let Some(why) = why {
            self.stop_seat(seat).await?;
            self.shared.seats.set_anew(seat, true)?;
            self.start_part(part).await?;
            behind = Behind::Copied(format!("rewound, it did not follow: {why}"));
        }
        // Slots of the time when it was the primary would keep write-ahead log that nobody fetches here any more.
        let standby = postgres::connect_to(data, self.port(part), "postgres").await?;
        let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active";
        standby.execute(drop, &[]).await.map_err(StackError::database("dropping the old primary's slots"))?;
        Ok(behind)
    }

    /// Waits until the server in a seat streams on the primary's own timeline. That it streams is not enough: one that has gone beyond
    /// where the primary's timeline began connects again and again, and is turned away each time.
    async fn streams(&self, primary: &Client, seat: Part) -> Result<bool, StackError> {
        const TIMELINE: &str = "-- local_stack::promote::streams, timeline
            SELECT ('x' || lpad(left(pg_walfile_name(pg_current_wal_lsn()), 8), 16, '0'))::bit(64)::bigint::int";
        const RECEIVES: &str = "-- local_stack::promote::streams, receives
            SELECT EXISTS (SELECT FROM pg_stat_wal_receiver AS r WHERE r.status = 'streaming' AND r.received_tli = $1)";
        let timeline = primary.query_one(TIMELINE, &[]).await.map_err(StackError::database("the new timeline"))?;
        let timeline: i32 = timeline.get(0);
        let port = self.port(self.shared.seats.part(seat));
        let started = Instant::now();
        while started.elapsed() < FOLLOWS {
            let receives = tokio::time::timeout(ANSWER, async {
                let standby = postgres::connect_to(&self.shared.data, port, "postgres").await.ok()?;
                Some(standby.query_one(RECEIVES, &[&timeline]).await.ok()?.get::<_, bool>(0))
            });
            if receives.await.ok().flatten() == Some(true) {
                return Ok(true);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(false)
    }
}
