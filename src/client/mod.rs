//! [`Channel`]: what generated stubs send their calls through.

mod builder;
mod call;
mod channel;
mod connecting;
mod link;
mod preference;
mod retry;
mod state;
#[cfg(test)]
mod tests;

pub use crate::grpc::ResponseBody;
pub use builder::{Addresses, ChannelBuilder, WaitForReady};
pub use call::ResponseFuture;
pub use channel::Channel;
pub use retry::RetryPolicy;
pub use state::ChannelState;
