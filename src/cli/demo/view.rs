//! The live view of the demo on a terminal, and plain progress lines elsewhere.

use std::io::Stderr;
use std::time::{Duration, Instant};

use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Gauge, Paragraph};
use ratatui::{Terminal, TerminalOptions, Viewport};

use super::tap::Seen;
use crate::cli::audit::Shown;
use crate::cli::output::Output;
use crate::domain::State;
use crate::providers::simulator::Stats;

const HEIGHT: u16 = 9;
/// A progress line this often, where there is no terminal.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// One look at the demo.
pub(super) struct Frame<'a> {
    pub(super) wanted: u64,
    pub(super) sold: u64,
    pub(super) seen: &'a Seen,
    pub(super) rate: f64,
    pub(super) quota: f64,
    pub(super) provider: Stats,
    /// Open cases, up to a thousand.
    pub(super) cases: usize,
}

/// Draws frames.
pub(super) struct View {
    terminal: Option<Terminal<CrosstermBackend<Stderr>>>,
    output: Output,
    last: Option<(Instant, u64, u64)>,
    told_at: Option<Instant>,
    /// Orders closed and calls made per second, smoothed.
    rates: (f64, f64),
}

impl View {
    pub(super) fn open(output: Output) -> Self {
        let terminal = output.live.then(|| {
            let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
            Terminal::with_options(CrosstermBackend::new(std::io::stderr()), options).ok()
        });
        Self { terminal: terminal.flatten(), output, last: None, told_at: None, rates: (0.0, 0.0) }
    }

    pub(super) fn draw(&mut self, frame: &Frame<'_>) {
        self.measure(frame);
        let rates = self.rates;
        if let Some(terminal) = &mut self.terminal {
            // A terminal that went away is no reason to end the demo.
            drop(terminal.draw(|canvas| paint(canvas, frame, rates)));
            return;
        }
        if self.told_at.is_none_or(|at| at.elapsed() >= PLAIN_EVERY) {
            self.told_at = Some(Instant::now());
            self.output.progress(plain(frame, rates));
        }
    }

    pub(super) fn close(&mut self) {
        if let Some(terminal) = &mut self.terminal {
            drop(terminal.show_cursor());
        }
        self.output.progress("");
    }

    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    fn measure(&mut self, frame: &Frame<'_>) {
        let (now, closed, calls) = (Instant::now(), frame.seen.closed(), frame.provider.submits);
        if let Some((at, closed_then, calls_then)) = self.last {
            let seconds = now.duration_since(at).as_secs_f64().max(1e-3);
            let smooth = |old: f64, new: u64| 0.7 * old + 0.3 * new as f64 / seconds;
            self.rates = (
                smooth(self.rates.0, closed.saturating_sub(closed_then)),
                smooth(self.rates.1, calls.saturating_sub(calls_then)),
            );
        }
        self.last = Some((now, closed, calls));
    }
}

fn plain(frame: &Frame<'_>, rates: (f64, f64)) -> String {
    let seen = frame.seen;
    format!(
        "sold {}/{}  succeeded {}  failed {}  cancelled {}  open {}  in doubt {}  cases {}  {:.0} orders/s  quota {:.0} %  met {} missed {}  {}",
        frame.sold,
        frame.wanted,
        seen.of(State::Succeeded),
        seen.of(State::Failed),
        seen.of(State::Cancelled),
        seen.open() - seen.of(State::InDoubt),
        seen.of(State::InDoubt),
        frame.cases,
        rates.0,
        100.0 * rates.1 / frame.quota.max(1e-9),
        seen.met,
        seen.missed,
        Shown(seen.resolution)
    )
}

fn paint(canvas: &mut ratatui::Frame<'_>, frame: &Frame<'_>, rates: (f64, f64)) {
    let [sold, closed, states, quota, deadline, latency, provider] =
        Layout::vertical([Constraint::Length(1); 7]).areas(canvas.area());
    let share = |part: u64, whole: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a gauge for people")]
        let share = part as f64 / (whole.max(1)) as f64;
        share.clamp(0.0, 1.0)
    };
    let gauge = |label: String, ratio: f64, colour: Color| {
        Gauge::default().gauge_style(Style::new().fg(colour)).label(label).ratio(ratio)
    };
    let seen = frame.seen;
    let label = format!("sold {} of {} at {:.0}/s", frame.sold, frame.wanted, frame.rate);
    canvas.render_widget(gauge(label, share(frame.sold, frame.wanted), Color::Blue), sold);
    let label = format!("decided {} at {:.0}/s", seen.closed(), rates.0);
    canvas.render_widget(gauge(label, share(seen.closed(), frame.wanted), Color::Green), closed);
    let state = |state: State, colour: Color| {
        Span::styled(format!("{} {}   ", state.as_str(), seen.of(state)), Style::new().fg(colour))
    };
    let line = Line::from(vec![
        state(State::AwaitingPayment, Color::DarkGray),
        state(State::Queued, Color::Blue),
        state(State::InFlight, Color::Cyan),
        state(State::RetryWait, Color::Yellow),
        state(State::InDoubt, Color::LightRed),
        state(State::Succeeded, Color::Green),
        state(State::Failed, Color::Red),
        state(State::Cancelled, Color::Gray),
        Span::styled(format!("cases {}   retries {}", frame.cases, seen.retries), Style::new().fg(Color::LightRed)),
    ]);
    canvas.render_widget(Paragraph::new(line), states);
    let used = rates.1 / frame.quota.max(1e-9);
    let label = format!("quota {:.0} % of {:.0}/s", 100.0 * used, frame.quota);
    canvas.render_widget(gauge(label, used.clamp(0.0, 1.0), Color::Magenta), quota);
    let decided = seen.met + seen.missed;
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    let adherence = if decided == 0 { 100.0 } else { 100.0 * seen.met as f64 / decided as f64 };
    let text = format!("deadline met {adherence:.2} %   met {}   missed {}", seen.met, seen.missed);
    canvas.render_widget(Paragraph::new(text.bold()), deadline);
    canvas.render_widget(Paragraph::new(format!("payment to credit  {}", Shown(seen.resolution))), latency);
    let said = &frame.provider;
    let text = format!(
        "provider: {} calls, {} delivered, {} refused, {} left without a clear answer",
        said.submits,
        said.executed,
        said.refused,
        said.unclear()
    );
    canvas.render_widget(Paragraph::new(text.dim()), provider);
}
