//! `samehost ping`: calls a server repeatedly and prints how long each call took, like ping(8).

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use samehost::ping::{PingRequest, PingResponse, PingServiceClient};
use samehost::{Address, Channel, ConnectError, ConnectErrorKind};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tonic::{Request, Response, Status};

use crate::args;
use crate::escaped::escaped;
use crate::failure::{Failure, GIVE_MORE_TIME, Outcome, in_options};
use crate::shutdown::Signals;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  samehost ping unix:/tmp/ping.sock
  samehost ping -c 1000 -i 0 -q 127.0.0.1:50051

Exits with 1 when no reply came, and at once where waiting cannot help: no socket
but another file, no HTTP/2, no permission. With --wait it waits for permission, too:
a server that is starting may still set the mode of its socket.")]
pub(crate) struct Args {
    /// The server: unix:/path, unix-abstract:name, 127.0.0.1:50051
    #[arg(value_parser = args::address)]
    address: Address,
    /// Stop after this many calls [default: at Ctrl-C]
    #[arg(short = 'c', long, allow_negative_numbers = true, value_parser = args::count::<usize>)]
    count: Option<usize>,
    /// Time between the starts of two calls; 0 starts the next call at once
    #[arg(short = 'i', long, value_name = "DURATION", default_value = "1s",
          allow_negative_numbers = true, value_parser = args::duration)]
    interval: Duration,
    /// Payload of each call, in bytes
    #[arg(short = 's', long, value_name = "BYTES", default_value = "56",
          allow_negative_numbers = true, value_parser = args::payload)]
    payload: usize,
    /// How long to wait for a reply, connecting included
    #[arg(short = 'W', long, value_name = "DURATION", default_value = "10s",
          allow_negative_numbers = true, value_parser = args::positive_duration)]
    timeout: Duration,
    /// Wait for a server that is not there yet; each call waits up to the time of -W
    #[arg(long)]
    wait: bool,
    /// Print the summary only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Print the summary as one JSON object, and nothing else
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Outcome {
    crate::runtime::new(1)?.block_on(async {
        let mut signals = Signals::new()?;
        let (stop, stopped) = oneshot::channel();
        // The calls run in a task of their own: a runtime whose main future is woken at each reply
        // asks the kernel for events twice as often.
        let mut pings = tokio::spawn(ping(args, stopped));
        let ended = tokio::select! {
            ended = &mut pings => ended,
            () = signals.next() => {
                let _ = stop.send(());
                pings.await
            }
        };
        ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    })
}

async fn ping(args: Args, mut stopped: oneshot::Receiver<()>) -> Outcome {
    let mut printer = Printer { quiet: args.quiet || args.json };
    printer.line(|| format!("PING {} with {} bytes of payload", args.address, args.payload))?;

    let mut caller = Pinger::new(&args);
    let mut tally = Tally::new(args.address.clone());
    let mut last_failure = None;
    for sequence in 1..=args.count.map_or(u64::MAX, |count| count as u64) {
        let (elapsed, reply) = tokio::select! {
            biased;
            done = caller.call(sequence) => done,
            _ = &mut stopped => break,
        };
        tally.sent += 1;
        let hopeless = matches!(&reply, Err(status) if needs_a_person(status));
        match failure(sequence, reply) {
            None => {
                tally.reply(elapsed);
                printer.line(|| {
                    format!(
                        "{} bytes from {}: seq={sequence} time={:.3} ms",
                        args.payload,
                        args.address,
                        milliseconds(elapsed)
                    )
                })?;
            }
            Some(failure) => {
                printer.line(|| format!("seq={sequence} {failure}"))?;
                last_failure = Some(failure);
            }
        }
        if hopeless {
            break;
        }
    }
    let summary = tally.summary();
    summary.print(args.json)?;
    match last_failure {
        Some(failure) if summary.received == 0 => {
            let address = &summary.address;
            Err(Failure::Failed(match failure.contains(address) {
                true => failure,
                false => format!("{address}: {failure}"),
            }))
        }
        _ if summary.received == 0 => Ok(ExitCode::FAILURE),
        _ => Ok(ExitCode::SUCCESS),
    }
}

type Reply = Result<Response<PingResponse>, Status>;

/// Returns why a call failed, or `None` if it succeeded.
fn failure(sequence: u64, reply: Reply) -> Option<String> {
    match reply {
        Ok(reply) if reply.get_ref().sequence == sequence => None,
        Ok(_) => Some("the reply belongs to another call".to_owned()),
        Err(status) => Some(failure_text(&status)),
    }
}

/// Makes the calls, one after the other.
struct Pinger {
    client: PingServiceClient<Channel>,
    payload: Bytes,
    pace: Option<Interval>,
    timeout: Duration,
}

impl Pinger {
    fn new(args: &Args) -> Self {
        let channel = Channel::builder(&args.address)
            .connect_timeout(args.timeout)
            .wait_for_ready(args.wait)
            .connect_lazy();
        let pace = (!args.interval.is_zero()).then(|| {
            let mut pace = interval(args.interval);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        Self {
            client: PingServiceClient::new(channel),
            payload: Bytes::from(vec![0; args.payload]),
            pace,
            timeout: args.timeout,
        }
    }

    /// Waits for the time of the next call, makes it, and returns how long it took.
    async fn call(&mut self, sequence: u64) -> (Duration, Reply) {
        if let Some(pace) = &mut self.pace {
            pace.tick().await;
        }
        let payload = self.payload.clone();
        let mut request = Request::new(PingRequest { payload, sequence, ..PingRequest::ping() });
        // The error tells what the call was waiting for.
        request.set_timeout(self.timeout);
        let started = Instant::now();
        let reply = self.client.ping(request).await;
        (started.elapsed(), reply)
    }
}

/// Returns whether calls fail in the same way until a person changes something.
fn needs_a_person(status: &Status) -> bool {
    let source = std::error::Error::source(status).and_then(|e| e.downcast_ref::<ConnectError>());
    source.is_some_and(|error| {
        error.kind().is_permanent() || error.kind() == ConnectErrorKind::PermissionDenied
    })
}

/// Returns a status as one line. Its message has the address if the server was not reached.
fn failure_text(status: &Status) -> String {
    let message = in_options(status.message()).replace(GIVE_MORE_TIME, "give it more time by -W");
    let message = escaped(&message);
    if status.code() == tonic::Code::Unavailable {
        message.into_owned()
    } else {
        format!("{:?}: {message}", status.code())
    }
}

struct Printer {
    quiet: bool,
}

impl Printer {
    fn line(&mut self, text: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.quiet {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", text()).and_then(|()| out.flush()).map_err(|e| Failure::output(&e))
    }
}

/// The sums from which ping(8) computes mean and deviation, for any number of calls.
struct Tally {
    address: Address,
    started: Instant,
    sent: u64,
    received: u64,
    min: Duration,
    max: Duration,
    sum: f64,
    sum_of_squares: f64,
}

impl Tally {
    fn new(address: Address) -> Self {
        Self {
            address,
            started: Instant::now(),
            sent: 0,
            received: 0,
            min: Duration::MAX,
            max: Duration::ZERO,
            sum: 0.0,
            sum_of_squares: 0.0,
        }
    }

    fn reply(&mut self, elapsed: Duration) {
        let ms = milliseconds(elapsed);
        self.received += 1;
        self.min = self.min.min(elapsed);
        self.max = self.max.max(elapsed);
        self.sum += ms;
        self.sum_of_squares += ms * ms;
    }

    fn summary(&self) -> Summary {
        let round_trip = (self.received > 0).then(|| {
            let mean = self.sum / self.received as f64;
            let variance = self.sum_of_squares / self.received as f64 - mean * mean;
            RoundTrip {
                min_ms: milliseconds(self.min),
                avg_ms: mean,
                max_ms: milliseconds(self.max),
                // By rounding, a variance of nearly zero can be negative.
                mdev_ms: variance.max(0.0).sqrt(),
            }
        });
        Summary {
            address: self.address.to_string(),
            sent: self.sent,
            received: self.received,
            loss_percent: match self.sent {
                0 => 0.0,
                sent => (sent - self.received) as f64 / sent as f64 * 100.0,
            },
            time_ms: milliseconds(self.started.elapsed()),
            round_trip,
        }
    }
}

#[derive(Serialize)]
struct Summary {
    address: String,
    sent: u64,
    received: u64,
    loss_percent: f64,
    time_ms: f64,
    #[serde(flatten)]
    round_trip: Option<RoundTrip>,
}

#[derive(Serialize)]
struct RoundTrip {
    min_ms: f64,
    avg_ms: f64,
    max_ms: f64,
    mdev_ms: f64,
}

impl Summary {
    fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = if json {
            let json = serde_json::to_string(self)?;
            writeln!(out, "{json}")
        } else {
            write!(out, "{}", self.text())
        };
        written.and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
    }

    /// Returns the part that was lost, with as many digits as it takes to tell it from none and from
    /// all.
    fn loss(&self) -> String {
        let is_exact = self.received == 0 || self.received == self.sent;
        let mut texts = (1..=20).map(|digits| format!("{:.digits$}", self.loss_percent));
        let told = |text: &String| {
            let digits = text.trim_matches(['0', '.']);
            is_exact || !digits.is_empty() && !text.starts_with("100")
        };
        let text = texts.find(told).unwrap_or_else(|| self.loss_percent.to_string());
        format!("{text}%")
    }

    fn text(&self) -> String {
        let mut text = format!(
            "\n--- {} ping statistics ---\n{}, {}, {} loss, time {:.0} ms\n",
            self.address,
            counted(self.sent, "call", "calls"),
            counted(self.received, "reply", "replies"),
            self.loss(),
            self.time_ms
        );
        if let Some(RoundTrip { min_ms, avg_ms, max_ms, mdev_ms }) = &self.round_trip {
            text += &format!(
                "rtt min/avg/max/mdev = {min_ms:.3}/{avg_ms:.3}/{max_ms:.3}/{mdev_ms:.3} ms\n"
            );
        }
        text
    }
}

fn counted(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_the_figures_of_ping() {
        let mut tally = Tally::new("unix:/x".parse().unwrap());
        tally.sent = 4;
        for ms in [1, 2, 3] {
            tally.reply(Duration::from_millis(ms));
        }
        let summary = tally.summary();
        assert_eq!((summary.sent, summary.received, summary.loss_percent), (4, 3, 25.0));
        let text = summary.text();
        assert!(text.contains("4 calls, 3 replies, 25.0% loss"), "{text}");
        assert!(text.contains("min/avg/max/mdev = 1.000/2.000/3.000/0.816 ms"), "{text}");
    }

    #[test]
    fn a_loss_is_neither_rounded_to_none_nor_to_all() {
        for (sent, received, says) in [
            (1, 1, "1 call, 1 reply, 0.0% loss"),
            (1, 0, "1 call, 0 replies, 100.0% loss"),
            (0, 0, "0 calls, 0 replies, 0.0% loss"),
            (3, 2, "3 calls, 2 replies, 33.3% loss"),
            (10_000, 9_999, "10000 calls, 9999 replies, 0.01% loss"),
            (10_000_000, 9_999_999, "9999999 replies, 0.00001% loss"),
            (10_000, 1, "10000 calls, 1 reply, 99.99% loss"),
            (u64::MAX, u64::MAX - 1, "% loss"),
        ] {
            let mut tally = Tally::new("unix:/x".parse().unwrap());
            (tally.sent, tally.received) = (sent, received);
            let text = tally.summary().text();
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn without_a_reply_there_are_no_times() {
        let tally = Tally::new("unix:/x".parse().unwrap());
        assert!(!tally.summary().text().contains("rtt"));
        assert!(!serde_json::to_string(&tally.summary()).unwrap().contains("min_ms"));
    }
}
