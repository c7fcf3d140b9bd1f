//! [`Progress`] on standard error: a bar on a terminal, a line a round elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::cell::Cell;

/// How often the bar is drawn, so that drawing does not show up in the client's CPU time.
const REDRAW: Duration = Duration::from_secs(1);

pub(super) struct Progress {
    bar: ProgressBar,
    lines: bool,
    rounds: u32,
}

impl Progress {
    pub(super) fn new(cells: usize, rounds: u32) -> Self {
        let lines = !std::io::stderr().is_terminal();
        // If it is hidden, it still knows the time left.
        let target = match lines {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(Some(cells as u64 * u64::from(rounds)), target);
        bar.set_style(style());
        if !lines {
            bar.enable_steady_tick(REDRAW);
        }
        let progress = Self { bar, lines, rounds };
        let plural = |number| if number == 1 { "" } else { "s" };
        progress.line(|| {
            let (s, t) = (plural(cells as u64), plural(u64::from(rounds)));
            format!("measuring {cells} cell{s} in {rounds} round{t}")
        });
        progress
    }

    pub(super) fn cell_started(&self, cell: &Cell) {
        self.bar.set_message(cell.to_string());
    }

    pub(super) fn cell_done(&self) {
        self.bar.inc(1);
    }

    pub(super) fn round_done(&self, round: u32) {
        let left = HumanDuration(self.bar.eta());
        self.line(|| format!("round {round} of {} done, {left:#} left", self.rounds));
    }

    fn line(&self, text: impl FnOnce() -> String) {
        if self.lines {
            let _ = writeln!(std::io::stderr(), "{}", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> ProgressStyle {
    let left = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // At the start there is nothing to calculate it from.
        let _ = match state.pos() {
            0 => write!(out, "…"),
            _ => write!(out, "{:#} left", HumanDuration(state.eta())),
        };
    };
    ProgressStyle::with_template("{bar:20} {percent:>3} % {left} {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("left", left)
}
