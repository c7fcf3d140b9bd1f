//! What it costs that descriptors may be sent, where none are: calls each second with and without, by turns.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use samehost::Channel;
use samehost::ping::{PingRequest, PingServiceClient};

use crate::Scale;
use crate::support::{Serving, block_on, directory, socket_in};

/// Of one turn.
const TURN: Duration = Duration::from_millis(500);

/// Of each side.
const TURNS: usize = 20;

/// A timing: it is printed, and fails nothing.
pub(crate) fn of_those_that_are_not_sent(scale: Scale) -> String {
    let turns = scale.pick(TURNS / 4, TURNS);
    let directory = directory();
    let address = socket_in(directory.path());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["as", "unused", &address.to_string()]).stdin(Stdio::null());
    let mut on = Serving::spawn(&mut command);
    assert_eq!(on.line(), "ready");
    let off_address = samehost::Address::unix(directory.path().join("off.sock")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["as", "plain", &off_address.to_string()]).stdin(Stdio::null());
    let mut off = Serving::spawn(&mut command);
    assert_eq!(off.line(), "ready");
    let (mut with, mut without) = block_on(async {
        let channel = Channel::builder(&address).descriptors(16).connect().await.unwrap();
        let mut on = PingServiceClient::new(channel);
        let mut off = PingServiceClient::new(Channel::connect(&off_address).await.unwrap());
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for turn in 0..=turns {
            let (first, second) = (calls(&mut on).await, calls(&mut off).await);
            // The first turn warms up.
            if turn > 0 {
                with.push(first);
                without.push(second);
            }
        }
        (with, without)
    });
    let (with, without) = (median(&mut with), median(&mut without));
    let change = 100.0 * (with / without - 1.0);
    format!("{with:.0} calls/s where some may be sent, {without:.0} without: {change:+.1} %")
}

/// Calls each second, one at a time.
async fn calls(client: &mut PingServiceClient<Channel>) -> f64 {
    let started = Instant::now();
    let mut made = 0_u32;
    while started.elapsed() < TURN {
        for _ in 0..64 {
            client.ping(PingRequest::ping()).await.unwrap();
        }
        made += 64;
    }
    f64::from(made) / started.elapsed().as_secs_f64()
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
