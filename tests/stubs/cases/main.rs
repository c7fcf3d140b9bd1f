//! What has to hold on stubs of either generator, over each way that a call can take.

mod calls;
mod ways;
