//! What people see.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use vykar_core::Event;
use vykar_core::format::ItemType;

use crate::exit::CliError;
use crate::say;

/// An error and what to do next, on stderr.
pub fn error(error: &CliError) {
    say!("{error}");
    if let Some(hint) = error.hint_text() {
        say::hint(hint);
    }
}

/// A size in binary units.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Local time.
pub fn time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A time as it is stored, in local time where it parses.
pub fn stored_time(text: &str) -> String {
    text.parse().map(time).unwrap_or_else(|_| plain(text.as_bytes()))
}

/// Local time of a file, given in nanoseconds since the epoch.
pub fn nanoseconds(since_epoch: i64) -> String {
    Timestamp::from_nanosecond(since_epoch.into()).map_or_else(|_| since_epoch.to_string(), time)
}

/// Type and permissions, as `ls -l` has them.
pub fn mode(kind: ItemType, mode: u32) -> String {
    let mut text = String::from(match kind {
        ItemType::RegularFile => '-',
        ItemType::Directory => 'd',
        ItemType::Symlink => 'l',
        ItemType::Fifo => 'p',
        ItemType::Socket => 's',
        ItemType::CharDevice => 'c',
        ItemType::BlockDevice => 'b',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Text for a terminal: control characters and what is not UTF-8 are escaped.
pub fn plain(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if say::is_command(c) => out.extend(c.escape_default()),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

/// A path for a terminal.
pub fn path(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    plain(path.as_os_str().as_bytes())
}

/// A table with columns as wide as their contents; all but `right` are left-aligned. On a terminal its lines are cut where
/// they would wrap; who reads it through a pipe gets all of it.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let whole = whole_table(header, rows, right);
    let terminal = console::Term::stdout();
    match terminal.is_term() {
        true => fit(&whole, usize::from(terminal.size().1)),
        false => whole,
    }
}

fn fit(text: &str, width: usize) -> String {
    text.lines().map(|line| console::truncate_str(line, width, "...").into_owned() + "\n").collect()
}

fn whole_table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let header = header.iter().map(|h| (*h).to_owned()).collect();
    self::rows(&[&[header], rows].concat(), right)
}

/// The same without a header.
pub fn rows(rows: &[Vec<String>], right: &[usize]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Not with `{:width$}`, which panics above 65 535.
            let room = width.saturating_sub(cell.chars().count());
            match (right.contains(&at), at + 1 == row.len()) {
                (true, _) => line.extend([&" ".repeat(room), cell, "  "]),
                (false, false) => line.extend([cell, &" ".repeat(room), "  "]),
                // Nothing stands behind it.
                (false, true) => line.push_str(cell),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// One event as a line on stderr; progress is not a line.
pub fn event(event: &Event) {
    if let Some(line) = event_line(event) {
        say!("{line}");
    }
}

/// True when something could not be stored, restored or read as it is.
pub fn is_problem(event: &Event) -> bool {
    matches!(
        event,
        Event::SourceFailed { .. }
            | Event::SourceIncomplete { .. }
            | Event::SourceChanged { .. }
            | Event::ItemSkipped { .. }
            | Event::RestoreFailed { .. }
            | Event::RestoreIncomplete { .. }
            | Event::SnapshotUnreadable { .. }
    )
}

/// What an event says in words; nothing of progress.
pub fn event_line(event: &Event) -> Option<String> {
    Some(match event {
        Event::SourceFailed { path: p, reason } => format!("{}: not stored: {reason}", path(p)),
        Event::SourceIncomplete { path: p, reason } => format!("{}: stored, but {reason}", path(p)),
        Event::SourceChanged { path: p } => {
            format!("{}: changed while it was read; stored as it was read", path(p))
        }
        Event::Skipped { path: p, reason } => format!("{}: left out: {reason}", path(p)),
        Event::ItemSkipped { snapshot, path, reason } if path.is_empty() => {
            format!("snapshot {}: left out: {reason}", snapshot.short())
        }
        Event::ItemSkipped { snapshot, path, reason } => {
            format!("snapshot {}: {}: left out: {reason}", snapshot.short(), plain(path.as_bytes()))
        }
        Event::RestoreFailed { path: p, reason } => format!("{}: not restored: {reason}", path(p)),
        Event::RestoreIncomplete { path: p, reason } => format!("{}: restored, but {reason}", path(p)),
        Event::RestoreKept { path: p, reason } => {
            format!("{}: exists already; other than in the snapshot, and left as it is: {reason}", path(p))
        }
        Event::SnapshotUnreadable { snapshot, reason } => format!("snapshot {}: {reason}", snapshot.short()),
        Event::Note(text) => text.clone(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(5 << 30), "5.0 GiB");
        assert_eq!(size(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn terminals_get_no_control_characters() {
        assert_eq!(plain(b"a\nb\x1b[1m\\\xff\xc3\xa9"), "a\\nb\\u{1b}[1m\\\\\\xff\u{e9}");
        assert_eq!(plain("a\u{202e}b\u{9b}c".as_bytes()), "a\\u{202e}b\\u{9b}c");
    }

    #[test]
    fn modes_are_those_of_ls() {
        for (bits, text) in [
            (0o644, "rw-r--r--"),
            (0o755, "rwxr-xr-x"),
            (0o4755, "rwsr-xr-x"),
            (0o6644, "rwSr-Sr--"),
            (0o1777, "rwxrwxrwt"),
            (0o1770, "rwxrwx--T"),
            (0, "---------"),
        ] {
            assert_eq!(mode(ItemType::RegularFile, 0o100_000 | bits), format!("-{text}"));
        }
        assert_eq!(
            (mode(ItemType::Directory, 0o700), mode(ItemType::Symlink, 0o777)),
            ("drwx------".into(), "lrwxrwxrwx".into())
        );
    }

    #[test]
    fn tables_fit_a_terminal() {
        assert_eq!(fit("NAME  PATHS\nabc   /a/long/path\n", 12), "NAME  PATHS\nabc   /a/...\n");
    }

    #[test]
    fn tables_take_cells_of_any_length() {
        let long = "x".repeat(70_000);
        let text = rows(&[vec![long.clone(), "1".into()], vec!["y".into(), "2".into()]], &[1]);
        assert_eq!(text, format!("{long}  1\ny{}  2\n", " ".repeat(69_999)));
        let last = rows(&[vec!["a".into(), long.clone()], vec!["b".into(), "c".into()]], &[]);
        assert_eq!(last, format!("a  {long}\nb  c\n"));
    }

    #[test]
    fn tables_align() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "5".into()]];
        assert_eq!(table(&["N", "X"], &rows, &[1]), "N      X\na     10\nlong   5\n");
    }
}
