//! The signals that end the process.

use tokio::sync::mpsc;

/// SIGTERM and SIGINT of this process, one item each. Must be called inside a runtime.
pub fn signals() -> std::io::Result<mpsc::Receiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(2);
    // Ends with the runtime, or when nobody listens any more.
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if sender.send(name).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_sigterm_of_the_system_is_seen() {
        let mut signals = signals().unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
        let seen = tokio::time::timeout(Duration::from_secs(10), signals.recv()).await.unwrap();
        assert_eq!(seen, Some("SIGTERM"));
    }
}
