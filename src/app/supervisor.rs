//! What systemd is told, where it runs us, and SIGUSR2, by which it lets us upgrade.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use sd_notify::NotifyState;

/// The gateway serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It was told to stop.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Another process goes on in its place.
pub(super) fn handed_over(pid: Option<i32>) {
    if let Some(pid) = pid.and_then(|pid| u32::try_from(pid).ok()) {
        tell(&[NotifyState::MainPid(pid)]);
    }
}

/// Says again and again that the gateway is alive, where a watchdog wants to hear it.
pub(super) async fn beat() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    // Twice in the time is what its manual asks for.
    let mut every = tokio::time::interval((limit / 2).max(Duration::from_millis(1)));
    loop {
        every.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Starts this program anew, as it was started, to take over from this process. What came in the
/// place of its file runs then.
pub(super) fn upgrade() {
    if std::process::id() == 1 {
        tracing::error!("not upgraded: a container ends with its first process");
        return;
    }
    let mut arguments = std::env::args_os();
    let Some(program) = arguments.next() else { return };
    let mut arguments: Vec<OsString> = arguments.collect();
    if !arguments.iter().any(|argument| argument == "--upgrade") {
        arguments.push("--upgrade".into());
    }
    // The watchdog's is this process, until it is told of another.
    let child = Command::new(program).args(arguments).env_remove("WATCHDOG_PID").spawn();
    match child {
        Ok(mut child) => {
            tracing::info!(pid = child.id(), "upgrading");
            // Waited for, so that one that fails leaves nothing behind.
            let waiting = std::thread::Builder::new().name("upgrade".into()).spawn(move || {
                match child.wait() {
                    Ok(status) => tracing::error!(%status, "the upgrade ended"),
                    Err(error) => tracing::error!(%error, "the upgrade cannot be watched"),
                }
            });
            if let Err(error) = waiting {
                tracing::warn!(%error, "the upgrade is not watched");
            }
        }
        Err(error) => tracing::error!(%error, "the upgrade cannot be started"),
    }
}
