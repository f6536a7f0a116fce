//! The log of one database, opened for writing: what executors share.

use std::sync::Arc;

use service_kit::postgres::Database;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::append::{Appender, LogState};
use crate::keyring::Keyring;
use crate::load::Loader;

/// Appends and loads. Clones share everything.
#[derive(Clone)]
pub struct Store {
    appender: Appender,
    loader: Loader,
    keyring: Arc<Keyring>,
    state: watch::Receiver<LogState>,
}

/// The store's tasks, to be waited for at the end.
pub struct StoreTask {
    stop: watch::Sender<bool>,
    appending: JoinHandle<()>,
    loading: JoinSet<()>,
}

impl Store {
    /// Opens the log of `database`, whose role must be the appender.
    pub fn open(database: &Database, keyring: Arc<Keyring>) -> (Self, StoreTask) {
        let (stop, stopping) = watch::channel(false);
        let (appender, appending) = Appender::start(database, stopping);
        let state = appender.state();
        let (loader, loading) = Loader::start(database, Arc::clone(&keyring));
        (Self { appender, loader, keyring, state }, StoreTask { stop, appending, loading })
    }

    /// Where appends go.
    pub fn appender(&self) -> &Appender {
        &self.appender
    }

    /// Where records are loaded.
    pub fn loader(&self) -> &Loader {
        &self.loader
    }

    /// The keys.
    pub fn keyring(&self) -> &Arc<Keyring> {
        &self.keyring
    }

    /// Name of the log's epoch, once known.
    pub fn epoch(&self) -> Option<Arc<str>> {
        self.state.borrow().epoch.as_ref().map(|epoch| Arc::clone(&epoch.name))
    }
}

impl StoreTask {
    /// Returns when a task has ended although nobody asked it to: nothing can be carried out any more, and the process should end.
    pub async fn broken(&mut self) {
        // What a task that panicked has to say stands in the log already.
        tokio::select! {
            _ = &mut self.appending => {}
            Some(_) = self.loading.join_next() => {}
        }
    }

    /// Takes no more commands, finishes those that were accepted, and ends.
    pub async fn finish(self) {
        // If the task has ended already there is nothing to tell it.
        let _ = self.stop.send(true);
        if let Err(error) = self.appending.await {
            tracing::error!(%error, "the appending task broke");
        }
    }
}
