//! How long something is measured, and how often it was done in that time.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

/// One measurement: a warm-up of a fifth of its length, then the time that counts.
#[derive(Clone, Copy)]
pub struct Clock {
    from: Instant,
    to: Instant,
}

/// The turns of one task: `while turns.next() { one more }`.
pub struct Turns {
    clock: Clock,
    begun: bool,
    done: u64,
}

impl Clock {
    fn start(length: Duration) -> Self {
        let from = Instant::now() + length / 5;
        Self { from, to: from + length }
    }

    /// Turns until the measurement is over.
    pub fn turns(self) -> Turns {
        Turns { clock: self, begun: false, done: 0 }
    }
}

impl Turns {
    /// Whether there is time for one more; counts the one before, if it ended in the time that counts.
    pub fn next(&mut self) -> bool {
        let now = Instant::now();
        if self.begun && (self.clock.from..self.clock.to).contains(&now) {
            self.done += 1;
        }
        self.begun = true;
        now < self.clock.to
    }

    /// How many were done.
    pub fn done(self) -> u64 {
        self.done
    }
}

/// Runs `work` for each of `tasks` at the same time for `length`; gives how often a second it was done by all of them.
///
/// # Errors
/// The first error of any of them.
pub async fn rate<T, F, R>(tasks: Vec<T>, length: Duration, work: F) -> anyhow::Result<f64>
where
    F: Fn(T, Turns) -> R,
    R: Future<Output = anyhow::Result<Turns>> + Send + 'static,
{
    let clock = Clock::start(length);
    let mut set = JoinSet::new();
    for task in tasks {
        set.spawn(work(task, clock.turns()));
    }
    let mut done = 0;
    while let Some(turns) = set.join_next().await {
        done += turns??.done();
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(done as f64 / length.as_secs_f64())
}

/// Does something one at a time for `length`, with a rest before each time; gives the median time it took, in milliseconds.
///
/// # Errors
/// The first error.
pub async fn median_ms(
    length: Duration,
    rest: Duration,
    mut once: impl AsyncFnMut() -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let clock = Clock::start(length);
    let mut took = Vec::new();
    loop {
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        let started = Instant::now();
        if started >= clock.to {
            return Ok(percentile_ms(took, 50));
        }
        once().await?;
        if started >= clock.from {
            took.push(started.elapsed());
        }
    }
}

/// The `percent`th percentile, in milliseconds; 0 where nothing was measured.
pub fn percentile_ms(mut took: Vec<Duration>, percent: usize) -> f64 {
    took.sort_unstable();
    let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
    took.get(index).map_or(0.0, |took| took.as_secs_f64() * 1_000.0)
}
