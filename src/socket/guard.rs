//! [`Guard`]: a task that watches over a published socket while its listener is open, and answers
//! successors if a take-over is permitted.

use std::future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::accept::ListeningSocket;
use super::bind_error::BindError;
use super::hand_over::answer;
use super::listener_state::ListenerState;
use super::location::Location;
use super::lock::Lock;
use super::published::{Settings, files};

/// How long after a failure the socket is published again.
const RETRY: Duration = Duration::from_secs(5);

/// The task. Dropping it ends the task.
#[derive(Debug)]
pub(super) struct Guard(JoinHandle<()>);

impl Guard {
    /// Watches over what is published.
    pub(super) fn spawn(shared: &Arc<ListenerState>, settings: Settings) -> Self {
        let shared = Arc::clone(shared);
        Self(tokio::spawn(async move { watch(&shared, &settings).await }))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Notices that the socket file was deleted or moved away, or its directory, and logs it. If asked for, it publishes
/// the socket again. It ends when the socket was handed over.
pub(super) async fn watch(shared: &Arc<ListenerState>, settings: &Settings) {
    while let Some((file, control)) = shared.watched() {
        let answering = async {
            match &control {
                Some(control) => answer(shared, control).await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            () = answering => return,
            () = file.gone() => {}
        }
        let address = &file.location().address;
        // The task that would have decided on an offer has ended.
        let handed_over = if settings.republish { shared.decide() } else { shared.offer_no_more() };
        if handed_over {
            tracing::info!(%address, "the socket was handed over");
            return;
        }
        if !settings.republish {
            tracing::warn!(
                %address,
                "the socket file is gone: no new client can connect; restart this server, or let it \
                 publish its socket again (BindOptions::republish)"
            );
            return;
        }
        tracing::warn!(%address, "the socket file is gone: publishing the socket again");
        let mut is_logged = false;
        while let Err(error) = republish(shared, settings, file.location()).await {
            if !std::mem::replace(&mut is_logged, true) {
                tracing::warn!(%error, "the socket cannot be published again yet");
            }
            sleep(RETRY).await;
            if file.is_back() {
                break;
            }
        }
    }
}

/// Publishes a new socket at the same address. Clients that are in the old one's queue are accepted
/// first.
async fn republish(
    shared: &ListenerState,
    settings: &Settings,
    former: &Location,
) -> Result<(), BindError> {
    let address = &former.address;
    // The directory may have been deleted and made again, and the lock file with it.
    let location = Arc::new(former.reopen()?);
    if !settings.allow_shared_directory {
        location.check_directory(settings.group)?;
    }
    // A successor that was offered the old socket does not get it any more.
    if shared.decide() {
        return Ok(());
    }
    let kept = shared.published().as_ref().is_some_and(|now| now.lock.is_of(&location));
    let lock = if kept {
        None
    } else {
        Some(Lock::acquire(&location)?.map_err(|held| held.refusal(&location))?)
    };
    let has_control = shared.published().as_ref().is_some_and(|published| {
        published.control.as_ref().is_some_and(|control| control.file.is_at(&location))
    });
    let (control, file, socket) = files(&location, settings, has_control).await?;
    let socket = ListeningSocket::new(socket, true)
        .map_err(|error| BindError::io(address, "register the socket with the runtime", error))?;
    // The task that answers successors may have made another offer before it was stopped.
    shared.replace(socket, |published| published.renew(location, control, file, lock));
    Ok(())
}
