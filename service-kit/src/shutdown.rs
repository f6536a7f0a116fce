//! The end of a process: one signal asks it to finish what it accepted, a second one ends it at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Tells everyone who holds a clone that the process is to end.
#[derive(Debug, Clone)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
}

/// Requests the end; for the signal's task and for tests.
#[derive(Debug)]
pub struct ShutdownTrigger {
    request: watch::Sender<bool>,
}

impl Shutdown {
    /// A shutdown and what triggers it. A trigger that is dropped triggers too, so that nobody waits for ever.
    pub fn new() -> (ShutdownTrigger, Self) {
        let (request, requested) = watch::channel(false);
        (ShutdownTrigger { request }, Self { requested })
    }

    /// Returns once the end is requested; at once if it already is.
    pub async fn requested(&self) {
        // An error means that the trigger is gone, which is a request as well.
        let _ = self.requested.clone().wait_for(|requested| *requested).await;
    }

    /// Whether the end is requested.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow() || self.requested.has_changed().is_err()
    }
}

impl ShutdownTrigger {
    /// Requests the end.
    pub fn request(&self) {
        // Without receivers there is nobody to tell.
        let _ = self.request.send(true);
    }
}

/// A shutdown that SIGTERM or SIGINT triggers; the second signal ends the process with status 130.
///
/// # Errors
/// If the signals cannot be listened for.
pub fn on_signal() -> std::io::Result<Shutdown> {
    let (trigger, shutdown) = Shutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("shutting down: finishing what was accepted");
        trigger.request();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::warn!("second signal: ending at once");
        std::process::exit(130);
    });
    Ok(shutdown)
}
