//! The line on a terminal that says how far a backup or a restore is.
//!
//! It is drawn some ten times a second, only where stderr is a terminal that can take a line back, and
//! gone when the command ends.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use console::{Term, measure_text_width};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;
use vykar_core::{Event, Totals};

use crate::args::ResolvedOptions;
use crate::problems::Problems;
use crate::{render, say};

/// Redraws a second, at most: two for each [`Event::Progress`], of its numbers and of its path.
const REDRAWS: u8 = 20;
/// How often the time is redrawn when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// Nothing is foretold before this: the first files say little.
const FORETELL_AFTER: Duration = Duration::from_secs(2);
/// Lines about single paths that a command prints; more are counted.
const MAX_LINES: u64 = 100;
/// A path is left out where there is less room for it, in columns.
const MIN_PATH: usize = 12;
/// Between the parts of the line.
const GAP: &str = "  ";
/// Stands for the beginning of a path that is too long; ASCII, as not every terminal has an ellipsis.
const CUT: &str = "...";

/// A status line, or nothing where it has no place.
pub struct StatusLine {
    bar: ProgressBar,
    /// Events are for programs: when the last one was written.
    json: Option<Cell<Instant>>,
    /// There was a path: when there is none any more, the rest is no matter of files.
    begun: Cell<bool>,
    problems: Arc<Problems>,
    /// Lines about single paths that are still printed; the others are counted.
    room: Room,
}

/// Bounds the lines about single paths: a damaged snapshot may have millions.
pub struct Room {
    left: Cell<u64>,
    hidden: Cell<u64>,
}

impl Room {
    /// For a command; `-v` shows everything.
    pub fn of(global: &ResolvedOptions) -> Self {
        Self::new(if global.verbose > 0 { u64::MAX } else { MAX_LINES })
    }

    fn new(left: u64) -> Self {
        Room { left: Cell::new(left), hidden: Cell::new(0) }
    }

    /// True when one more line is printed; else it is counted.
    pub fn take(&self) -> bool {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                true
            }
            None => {
                self.hidden.set(self.hidden.get().saturating_add(1));
                false
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.hidden.get() > 0 {
            say!("{} more messages like these (-v shows all)", self.hidden.get());
        }
    }
}

impl StatusLine {
    /// What a command shows: a line on a terminal; with `json` objects on stderr; with `--quiet` nothing.
    pub fn of(global: &ResolvedOptions, json: bool) -> Self {
        let problems = global.problems.clone();
        match json {
            true => Self::build(
                false,
                (!global.quiet).then(|| Cell::new(Instant::now())),
                problems,
                Room::of(global),
            ),
            false => Self::build(!global.quiet, None, problems, Room::of(global)),
        }
    }

    /// A line on stderr; none when not wanted, when stderr is no terminal, or when that is a dumb one.
    pub fn new(wanted: bool) -> Self {
        Self::build(wanted, None, Arc::default(), Room::new(MAX_LINES))
    }

    fn build(wanted: bool, json: Option<Cell<Instant>>, problems: Arc<Problems>, room: Room) -> Self {
        let target = match wanted {
            true => ProgressDrawTarget::stderr_with_hz(REDRAWS),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        if !bar.is_hidden() {
            let time = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // Only memory is written to.
                let _ = out.write_str(&clock(state.elapsed()));
            };
            if let Ok(style) = ProgressStyle::with_template("{time}  {msg}") {
                bar.set_style(style.with_key("time", time));
            }
            bar.set_message("starting");
            bar.enable_steady_tick(TICK);
        }
        StatusLine { bar, json, begun: Cell::new(false), problems, room }
    }

    /// True when somebody can see it.
    pub fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Takes progress into the line; prints everything else above it.
    pub fn event(&self, event: &Event) {
        if render::is_problem(event) {
            render::event_line(event).iter().for_each(|line| self.problems.note(line));
        }
        if let Some(last) = &self.json {
            return write_json(event, last);
        }
        match event {
            Event::Progress { files, bytes, path, expected } => {
                if self.is_shown() {
                    self.bar.set_position(*bytes);
                    let (rate, elapsed) = (self.bar.per_sec(), self.bar.elapsed());
                    let parts =
                        ProgressParts { files: *files, bytes: *bytes, expected: *expected, rate, elapsed };
                    self.show(&parts, path.as_deref());
                }
            }
            other if render::is_problem(other) && !self.room.take() => {}
            other => self.bar.suspend(|| render::event(other)),
        }
    }

    /// Prints something above it.
    pub fn suspend(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    fn show(&self, parts: &ProgressParts, path: Option<&Path>) {
        let what = match path {
            Some(path) => render::path(path),
            None if self.begun.get() => "finishing".to_owned(),
            None => String::new(),
        };
        self.begun.set(self.begun.get() || path.is_some());
        let used = clock(parts.elapsed).len() + GAP.len();
        // The last column stays free: a full line wraps on some terminals.
        let width = usize::from(Term::stderr().size().1).saturating_sub(used + 1);
        self.bar.set_message(parts.line(&what, width));
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// One object a line on stderr: progress now and then, and everything else at once.
fn write_json(event: &Event, last: &Cell<Instant>) {
    let object = match event {
        Event::Progress { .. } if last.get().elapsed() < TICK => return,
        Event::Progress { files, bytes, path, expected } => {
            last.set(Instant::now());
            json!({
                "event": "progress",
                "files": files,
                "bytes": bytes,
                "path": path.as_ref().map(|path| path.to_string_lossy()),
                "total_files": expected.map(|totals| totals.files),
                "total_bytes": expected.map(|totals| totals.bytes),
            })
        }
        other => match render::event_line(other) {
            Some(text) => json!({ "event": "message", "text": text }),
            None => return,
        },
    };
    say::raw(&format!("{object}\n"));
}

/// What the line says in numbers.
struct ProgressParts {
    files: u64,
    bytes: u64,
    expected: Option<Totals>,
    /// Bytes a second of late.
    rate: f64,
    elapsed: Duration,
}

impl ProgressParts {
    /// In so many columns, with what is worked on at the end.
    fn line(&self, what: &str, width: usize) -> String {
        let mut parts = Vec::new();
        parts.extend(self.percent().map(|percent| format!("{percent}%")));
        parts.push(format!("{} files", self.files));
        parts.push(render::size(self.bytes));
        if self.rate >= 1.0 {
            parts.push(format!("{}/s", render::size(self.rate as u64)));
        }
        parts.extend(self.left().map(|left| format!("{} left", clock(left))));
        let mut line = parts.join(GAP);
        let room = width.saturating_sub(measure_text_width(&line) + GAP.len());
        if let Some(what) = shorten(what, room).filter(|what| !what.is_empty()) {
            line.push_str(GAP);
            line.push_str(&what);
        }
        console::truncate_str(&line, width, "").into_owned()
    }

    /// What is done of what is expected; nothing once there turns out to be more.
    fn percent(&self) -> Option<u64> {
        let total = self.expected?.bytes;
        let percent = u128::from(self.bytes) * 100 / u128::from(total).max(1);
        u64::try_from(percent).ok().filter(|_| self.bytes <= total && total > 0)
    }

    /// How long the rest takes at this rate.
    fn left(&self) -> Option<Duration> {
        let left = self.expected?.bytes.checked_sub(self.bytes).filter(|left| *left > 0)?;
        let foreseeable = self.elapsed >= FORETELL_AFTER && self.rate >= 1.0;
        foreseeable.then(|| Duration::try_from_secs_f64((left as f64 / self.rate).ceil()).ok())?
    }
}

/// Minutes and seconds, and hours where there are any.
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

/// The end of a text that fits in `room` columns; nothing where that would say little.
fn shorten(text: &str, room: usize) -> Option<String> {
    if measure_text_width(text) <= room {
        return Some(text.to_owned());
    }
    if room < MIN_PATH {
        return None;
    }
    let (mut from, mut used) = (text.len(), CUT.len());
    for (at, c) in text.char_indices().rev() {
        used += measure_text_width(c.encode_utf8(&mut [0; 4]));
        if used > room {
            break;
        }
        from = at;
    }
    Some(format!("{CUT}{}", &text[from..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_lines_are_printed_and_the_others_counted() {
        let room = Room::new(MAX_LINES);
        assert_eq!((0..1000).filter(|_| room.take()).count() as u64, MAX_LINES);
        assert_eq!(room.hidden.replace(0), 900);
        assert!((0..1000).all(|_| Room::new(u64::MAX).take()));
    }

    const MIB: u64 = 1 << 20;

    fn parts() -> ProgressParts {
        let expected = Some(Totals { files: 100, bytes: 60 * MIB });
        let (rate, elapsed) = (4.0 * MIB as f64, Duration::from_secs(10));
        ProgressParts { files: 25, bytes: 20 * MIB, expected, rate, elapsed }
    }

    #[test]
    fn the_line_says_how_much_how_fast_how_long_and_what() {
        let line = parts().line("photos/beach.jpg", 80);
        assert_eq!(line, "33%  25 files  20.0 MiB  4.0 MiB/s  0:10 left  photos/beach.jpg");
        let unknown = ProgressParts { expected: None, ..parts() };
        assert_eq!(unknown.line("finishing", 80), "25 files  20.0 MiB  4.0 MiB/s  finishing");
        let begun = ProgressParts { files: 0, bytes: 0, rate: 0.0, ..unknown };
        assert_eq!(begun.line("", 80), "0 files  0 B");
    }

    #[test]
    fn nothing_is_foretold_from_what_does_not_fit() {
        let (more, early) =
            (ProgressParts { bytes: 61 * MIB, ..parts() }, ProgressParts { elapsed: TICK, ..parts() });
        assert_eq!((more.percent(), more.left()), (None, None), "there is more than last time");
        assert_eq!((early.percent(), early.left()), (Some(33), None));
        let stalled = ProgressParts { rate: 0.0, ..parts() };
        assert_eq!(stalled.left(), None);
        let empty = ProgressParts { bytes: 0, expected: Some(Totals { files: 3, bytes: 0 }), ..parts() };
        assert_eq!((empty.percent(), empty.left()), (None, None));
        let all = ProgressParts { bytes: 60 * MIB, ..parts() };
        assert_eq!((all.percent(), all.left()), (Some(100), None));
        let endless =
            ProgressParts { rate: 1.0, expected: Some(Totals { files: 1, bytes: u64::MAX }), ..parts() };
        assert!(endless.line("x", 80).contains(" left"));
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let path = "a/long/path/with/w\u{ef}de/\u{6f22}\u{5b57}\u{6f22}\u{5b57}/and/e\u{301}/letters";
        for width in 0..120 {
            let line = parts().line(path, width);
            assert!(measure_text_width(&line) <= width, "{width}: {line:?}");
        }
        assert!(parts().line(path, 119).ends_with(path));
    }

    #[test]
    fn a_path_keeps_its_end() {
        assert_eq!(shorten("photos/2019/beach.jpg", 21).as_deref(), Some("photos/2019/beach.jpg"));
        assert_eq!(shorten("photos/2019/beach.jpg", 16).as_deref(), Some("...019/beach.jpg"));
        assert_eq!(
            shorten("photos/\u{6f22}\u{5b57}\u{6f22}/x.jpg", 12).as_deref(),
            Some("...\u{6f22}/x.jpg")
        );
        assert_eq!(shorten("photos/2019/beach.jpg", 11), None);
    }

    #[test]
    fn times_are_minutes_and_hours() {
        for (seconds, text) in
            [(0, "0:00"), (59, "0:59"), (61, "1:01"), (3599, "59:59"), (36_061, "10:01:01")]
        {
            assert_eq!(clock(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn without_a_terminal_there_is_no_line() {
        assert!(!StatusLine::new(false).is_shown());
    }
}
