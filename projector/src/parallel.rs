//! Work that some tasks share: as many as there are processors, each taking the next piece until none is left.

use std::sync::Mutex;

use tokio::task::JoinSet;

/// Tasks that share a piece of work at most.
const WORKERS_MAX: usize = 4;
const UNPOISONED: &str = "nobody panics while holding it";

/// How many tasks share a piece of work.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
}

/// Pieces of work that wait for somebody, the last one first.
pub(crate) struct Pieces<T>(Mutex<Vec<T>>);

impl<T> Pieces<T> {
    /// These pieces.
    pub(crate) fn new(pieces: Vec<T>) -> Self {
        Self(Mutex::new(pieces))
    }

    /// Takes the next one.
    pub(crate) fn next(&self) -> Option<T> {
        self.0.lock().expect(UNPOISONED).pop()
    }

    /// Adds what came up meanwhile. Whoever adds has not ended, so nobody is needed to wait for it.
    pub(crate) fn add(&self, more: Vec<T>) {
        self.0.lock().expect(UNPOISONED).extend(more);
    }
}

/// Does all of this at the same time and gives what came out, in no order; the first that fails ends the others.
///
/// # Errors
/// The first one's.
pub(crate) async fn all<F, T, E>(work: impl Iterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
{
    let mut running = JoinSet::new();
    for one in work {
        running.spawn(one);
    }
    let mut done = Vec::with_capacity(running.len());
    while let Some(one) = running.join_next().await {
        done.push(one.expect("whoever works does not panic")?);
    }
    Ok(done)
}
