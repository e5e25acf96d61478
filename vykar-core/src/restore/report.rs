//! Events and counters on the calling thread.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::RestoreSummary;
use super::plan::as_path;
use super::site::Site;
use super::tree::ROOT;
use crate::event::{Event, Events, Totals};

/// Progress is told this often at most.
const EVERY: Duration = Duration::from_millis(100);

/// Passes events on and counts what they say.
pub(super) struct Reporter<'e> {
    events: Events<'e>,
    told: Instant,
    /// What all files come to.
    pub expected: Option<Totals>,
    /// What was done so far.
    pub summary: RestoreSummary,
}

impl<'e> Reporter<'e> {
    pub fn new(events: Events<'e>) -> Self {
        Reporter { events, told: Instant::now(), expected: None, summary: RestoreSummary::default() }
    }

    pub fn send(&mut self, event: Event) {
        match &event {
            Event::RestoreFailed { .. } | Event::ItemSkipped { .. } => self.summary.errors += 1,
            Event::RestoreIncomplete { .. } | Event::RestoreKept { .. } => {
                self.summary.incomplete += 1;
                self.summary.named += 1;
            }
            _ => {}
        }
        if let Some(events) = &mut self.events {
            events(event);
        }
    }

    /// A path of the snapshot that is not restored.
    pub fn failed(&mut self, path: Vec<u8>, reason: String) {
        self.send(Event::RestoreFailed { path: as_path(path), reason });
    }

    /// Tells about progress, unless that was done just now.
    pub fn progress(&mut self, site: &Site<'_>) {
        if self.told.elapsed() >= EVERY {
            self.told = Instant::now();
            let files = site.files.load(Ordering::Relaxed);
            let bytes = site.progress.load(Ordering::Relaxed);
            let path = match site.current.load(Ordering::Relaxed) {
                ROOT => None,
                node => Some(as_path(site.plan.tree.path(node))),
            };
            self.send(Event::Progress { files, bytes, path, expected: self.expected });
        }
    }
}
