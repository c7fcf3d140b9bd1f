//! [`Channel`]: what generated stubs send their calls through.

mod builder;
mod call;
mod channel;
mod connecting;
mod direct;
mod failed_attempt;
mod link;
mod plan;
mod preference;
mod reopening;
mod response;
mod retry;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod watched;

pub use crate::grpc::ResponseBody;
pub use builder::{Addresses, ChannelBuilder, WaitForReady};
pub(crate) use call::{RESENDS, headers_too_large, no_slot};
pub use channel::Channel;
pub(crate) use connecting::{WAITING, unavailable, unconnected_in_time};
pub(crate) use direct::{DirectBody, DirectCall, DirectResponse};
pub(crate) use failed_attempt::{FailedAttempt, Waited};
pub(crate) use link::{authority, check_server, not_ready};
pub(crate) use plan::{CallDefaults, CallPlan};
pub(crate) use reopening::Reopening;
pub use response::ResponseFuture;
pub(crate) use response::of_call;
pub use retry::RetryPolicy;
pub(crate) use retry::{PREVIOUS_ATTEMPTS, PolicyAttempts, Tokens};
pub use state::ChannelState;
pub use stats::{ChannelSnapshot, ChannelStats};
