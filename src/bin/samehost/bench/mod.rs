//! `samehost bench`: the comparison.
use crate::Outcome;
#[derive(clap::Args)]
pub(crate) struct Args {}
#[derive(clap::Args)]
pub(crate) struct ServerArgs {}
pub(crate) fn run(_: Args) -> Outcome {
    todo!()
}
pub(crate) fn run_server(_: ServerArgs) -> Outcome {
    todo!()
}
