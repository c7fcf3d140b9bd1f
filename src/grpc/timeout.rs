//! The field `grpc-timeout`, and the deadline that follows from it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

use super::field;

/// The longest timeout: a longer one is shortened to it.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Returns the timeout of a request if it has a valid one: at most eight digits and a unit.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = field(headers, &GRPC_TIMEOUT)?.as_bytes();
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Returns a timeout in the form of `grpc-timeout`: at most eight digits, rounded up.
pub(crate) fn timeout_value(timeout: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let nanos = timeout.as_nanos();
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S')];
    let coarse = [(60_000_000_000, 'M'), (3_600_000_000_000, 'H')];
    let fits = |(size, unit)| {
        let amount = nanos.div_ceil(size);
        (amount <= MOST).then(|| format!("{amount}{unit}"))
    };
    let text = units.into_iter().chain(coarse).find_map(fits);
    let text = text.unwrap_or_else(|| format!("{MOST}H"));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("99999999H"))
}

/// The time at which a call must have ended. Its timer is made when it is first polled: a call that
/// is answered at once needs none.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    call: Option<CallName>,
}

/// The path and the timeout of a call. The status after the deadline names them.
#[derive(Debug)]
enum CallName {
    Sent(Box<str>, Duration),
    Received(PathAndQuery, Duration, LimitOf),
}

/// Which end has limited the time of a call that arrived.
#[derive(Clone, Copy, Debug)]
pub(super) enum LimitOf {
    Client,
    Server,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(timeout.min(LONGEST))?;
        Some(Self { at, timer: None, call: None })
    }

    /// Returns how much time is left.
    pub(crate) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    /// Returns the deadline of a call on a server.
    pub(super) fn of_call(path: &PathAndQuery, timeout: Duration, limit: LimitOf) -> Option<Self> {
        let call = Some(CallName::Received(path.clone(), timeout, limit));
        Some(Self { call, ..Self::after(timeout)? })
    }

    /// Returns the same deadline for the rest of a response on a client.
    pub(crate) fn of_response(self, path: &str, timeout: Duration) -> Self {
        Self { call: Some(CallName::Sent(path.into(), timeout)), ..self }
    }

    /// Returns the status of a call that this deadline ended.
    pub(crate) fn exceeded(&self) -> Status {
        match &self.call {
            Some(CallName::Received(path, timeout, limit)) => {
                let setter = match limit {
                    LimitOf::Client => "",
                    LimitOf::Server => " (Server::timeout)",
                };
                Status::deadline_exceeded(format!(
                    "{path}: its deadline of {timeout:?}{setter} has passed at the server"
                ))
            }
            Some(CallName::Sent(path, timeout)) => Status::deadline_exceeded(format!(
                "{path}: the response was not complete within the deadline of {timeout:?}"
            )),
            None => Self::passed(),
        }
    }

    /// Returns whether the server has limited the time of the call.
    pub(super) fn is_of_server(&self) -> bool {
        matches!(&self.call, Some(CallName::Received(_, _, LimitOf::Server)))
    }

    /// Returns the status after a deadline of which nothing is known.
    pub(crate) fn passed() -> Status {
        Status::deadline_exceeded("the deadline has passed")
    }

    /// Returns whether the deadline has passed, without polling the timer.
    pub(crate) fn has_passed(&self) -> bool {
        self.at <= Instant::now()
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(at))).as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        grpc_timeout(&headers)
    }

    #[test]
    fn every_unit_is_known() {
        assert_eq!(parsed("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parsed("2M"), Some(Duration::from_secs(120)));
        assert_eq!(parsed("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parsed("4m"), Some(Duration::from_millis(4)));
        assert_eq!(parsed("5u"), Some(Duration::from_micros(5)));
        assert_eq!(parsed("0n"), Some(Duration::ZERO));
        assert_eq!(parsed("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    }

    #[test]
    fn a_time_that_is_written_is_read_as_no_shorter() {
        for (timeout, value) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_nanos(100_000_001), "100001u"),
            (Duration::from_secs(3_600), "3600000m"),
            (Duration::from_secs(1_000_000), "1000000S"),
            (Duration::MAX, "99999999H"),
        ] {
            let written = timeout_value(timeout);
            assert_eq!(written, value);
            let read = parsed(value).unwrap();
            assert!(read >= timeout || timeout == Duration::MAX, "{value}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_none() {
        for value in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S"] {
            assert_eq!(parsed(value), None, "{value}");
        }
    }

    #[tokio::test]
    async fn the_longest_timeout_is_no_overflow() {
        assert!(Deadline::after(Duration::MAX).is_some());
    }
}
