//! Makes the attempts of a call until it is answered.

use tonic::Status;

use super::call::BlockingCall;
use super::channel::Channel;
use super::encoded::Encoded;
use super::request::{BlockingRequest, NoResponse};
use crate::client::DirectResponse;

impl BlockingRequest {
    /// Sends a message, and waits for the head of its response. It sends the message again while no
    /// server has processed it, and when the channel's policy asks for it.
    pub(super) fn answer(
        mut self,
        channel: &Channel,
        message: &mut Encoded,
    ) -> Result<(BlockingCall, DirectResponse), Status> {
        loop {
            let wait = match self.attempt(channel, message) {
                Ok((mut call, response)) => match self.retry_answer(channel, &response, message) {
                    None => {
                        call.answered(self.observation.take(), &response);
                        return Ok((call, response));
                    }
                    Some(wait) => wait,
                },
                Err(reason) => {
                    let resent = self.resend(&reason);
                    let status = Status::from(reason);
                    match resent.or_else(|| self.retry(channel, &status, None, message)) {
                        Some(wait) => wait,
                        None => return Err(self.failed(status)),
                    }
                }
            };
            self.back_off(wait)?;
        }
    }

    fn attempt(
        &mut self,
        channel: &Channel,
        message: &mut Encoded,
    ) -> Result<(BlockingCall, DirectResponse), NoResponse> {
        let mut call = BlockingCall::open(channel, self, Some(message))?;
        let response = call.head()?;
        Ok((call, response))
    }

    /// Begins a call with a stream of requests. It sends the head again while no server has
    /// processed it.
    pub(super) fn begin(mut self, channel: &Channel) -> Result<BlockingCall, Status> {
        loop {
            let mut opened = BlockingCall::open(channel, &mut self, None);
            if let Ok(call) = &mut opened {
                // If it cannot be written, that is noticed below or by what comes next.
                let _ = call.written();
            }
            let unprocessed = opened.as_mut().ok().and_then(BlockingCall::unprocessed);
            let reason = match (opened, unprocessed) {
                (Ok(mut call), None) => {
                    call.observe(self.observation.take());
                    return Ok(call);
                }
                (Err(reason), _) | (Ok(_), Some(reason)) => reason,
            };
            match self.resend(&reason) {
                Some(wait) => self.back_off(wait)?,
                None => return Err(self.failed(reason.into())),
            }
        }
    }
}
