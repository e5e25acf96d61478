use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use vykar_core::clock;
use vykar_core::repository::{Liveness, LockInfo, Repository, SessionInfo};

use super::{print, print_json};
use crate::args::ResolvedOptions;
use crate::confirm::confirm;
use crate::exit::{CliResult, Exit};
use crate::{context, render};

pub struct BreakLockRequest {
    pub sessions: bool,
    pub yes: bool,
    pub dry_run: bool,
    pub json: bool,
}

/// A lock or session marker, as it is shown.
struct Marker {
    kind: &'static str,
    key: String,
    holder: Option<MarkerHolder>,
    standing: Liveness,
}

struct MarkerHolder {
    host: String,
    pid: u32,
    since: String,
    refreshed: String,
}

pub fn run(global: &ResolvedOptions, request: &BreakLockRequest) -> CliResult {
    let repository = context::open(global)?;
    let markers = markers(&repository, request.sessions)?;
    if !request.json {
        print(&text(&markers, request.sessions));
    }
    let alive = markers.iter().filter(|m| !m.standing.is_over()).count();
    let question = match (markers.len(), alive) {
        (0, _) => String::new(),
        (all, 0) => format!("Remove {all}?"),
        (all, alive) => format!(
            "Remove {all}? {alive} of them may belong to a program that is running: a backup then fails or has to \
             store again, and what maintenance was doing stops half way"
        ),
    };
    let remove = !markers.is_empty() && !request.dry_run && confirm(&question, request.yes)?;
    if remove {
        // Those that were shown, and no others.
        for marker in &markers {
            repository.backend().delete(&marker.key).map_err(vykar_core::VykarError::from)?;
        }
    }
    if request.json {
        let markers: Vec<_> = markers.iter().map(marker_json).collect();
        print_json(&json!({ "markers": markers, "removed": remove }))?;
    } else if !markers.is_empty() && !global.quiet {
        print(if remove { "Removed\n" } else { "Nothing removed\n" });
    }
    Ok(Exit::Success)
}

fn markers(repository: &Repository, sessions: bool) -> CliResult<Vec<Marker>> {
    let lock = |lock: LockInfo| Marker {
        kind: "lock",
        standing: lock.standing,
        holder: lock.marker.map(|m| MarkerHolder {
            host: m.hostname,
            pid: m.pid,
            since: m.time.clone(),
            refreshed: m.time,
        }),
        key: lock.key,
    };
    let session = |session: SessionInfo| Marker {
        kind: "session",
        key: session.marker_key(),
        standing: session.standing,
        holder: session.marker.map(|m| MarkerHolder {
            host: m.hostname,
            pid: m.pid,
            since: m.registered_at,
            refreshed: m.last_refresh,
        }),
    };
    let mut markers: Vec<_> = LockInfo::list(repository)?.into_iter().map(lock).collect();
    if sessions {
        markers.extend(SessionInfo::list(repository)?.into_iter().map(session));
    }
    Ok(markers)
}

fn text(markers: &[Marker], sessions: bool) -> String {
    if markers.is_empty() {
        return match sessions {
            true => "No locks and no sessions\n".to_owned(),
            false => "No locks\n".to_owned(),
        };
    }
    let row = |m: &Marker| {
        let of = |field: fn(&MarkerHolder) -> String| m.holder.as_ref().map_or("?".to_owned(), field);
        vec![
            m.kind.to_owned(),
            of(|h| render::plain(h.host.as_bytes())),
            of(|h| h.pid.to_string()),
            of(|h| render::stored_time(&h.since)),
            of(|h| age(&h.refreshed)),
            standing(m.standing).to_owned(),
        ]
    };
    let rows: Vec<_> = markers.iter().map(row).collect();
    render::table(&["KIND", "HOST", "PROCESS", "SINCE", "REFRESHED", "STATE"], &rows, &[2])
}

/// What is known about a marker's program, for people.
pub fn standing(standing: Liveness) -> &'static str {
    match standing {
        Liveness::Alive => "running",
        Liveness::Unknown => "cannot be told from here",
        Liveness::Dead => "gone",
        Liveness::Stale => "silent for too long",
        Liveness::Unreadable => "unreadable",
    }
}

/// How long ago a time was, in its two largest units.
fn age(time: &str) -> String {
    let Ok(time) = time.parse::<Timestamp>() else { return "?".to_owned() };
    match Duration::try_from(clock::now().duration_since(time)).map(|age| age.as_secs()) {
        Err(_) => "in the future".to_owned(),
        Ok(s) if s < 60 => format!("{s} s ago"),
        Ok(s) if s < 3600 => format!("{} min {} s ago", s / 60, s % 60),
        Ok(s) if s < 48 * 3600 => format!("{} h {} min ago", s / 3600, s % 3600 / 60),
        Ok(s) => format!("{} days {} h ago", s / 86400, s % 86400 / 3600),
    }
}

/// The same for programs.
pub fn state(standing: Liveness) -> &'static str {
    match standing {
        Liveness::Alive => "alive",
        Liveness::Unknown => "unknown",
        Liveness::Dead => "dead",
        Liveness::Stale => "stale",
        Liveness::Unreadable => "unreadable",
    }
}

fn marker_json(m: &Marker) -> serde_json::Value {
    let holder = m.holder.as_ref();
    json!({
        "kind": m.kind,
        "key": m.key,
        "hostname": holder.map(|h| &h.host),
        "pid": holder.map(|h| h.pid),
        "since": holder.map(|h| &h.since),
        "refreshed": holder.map(|h| &h.refreshed),
        "state": state(m.standing),
    })
}
