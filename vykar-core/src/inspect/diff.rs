//! What is different between two snapshots.

use std::collections::HashMap;

use super::facts::{Aspect, Digester, Facts};
use crate::error::Result;
use crate::event::{Event, Events, emit};
use crate::format::{Item, Snapshot, path};
use crate::repository::ReadChunk;
use crate::repository::read::items::{FoundItem, Loss, for_each_item};

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Only the second snapshot has it.
    Added,
    /// Only the first one has it.
    Removed,
    /// It is something else there, as a symlink in place of a file.
    Type,
    /// A file with other content, and perhaps other metadata.
    Content,
    /// Only what is known about it differs.
    Metadata,
}

/// A path that differs.
#[derive(Debug, Clone)]
pub struct Change {
    /// The exact path; empty for the source directory itself.
    pub path: Vec<u8>,
    /// As it is in the first snapshot.
    pub before: Option<Facts>,
    /// As it is in the second one.
    pub after: Option<Facts>,
}

impl Change {
    /// What differs, where both have it.
    pub fn differences(&self) -> Vec<Aspect> {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => before.differences(after),
            _ => Vec::new(),
        }
    }

    /// What kind of change that is.
    pub fn kind(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            (Some(before), Some(after)) => match before.differences(after)[..] {
                [Aspect::Type, ..] => ChangeKind::Type,
                [Aspect::Content, ..] => ChangeKind::Content,
                _ => ChangeKind::Metadata,
            },
        }
    }
}

/// Numbers of paths, and bytes of their content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiffSummary {
    /// Paths that only the second snapshot has.
    pub added: u64,
    /// Paths that only the first one has.
    pub removed: u64,
    /// Paths of another type.
    pub types: u64,
    /// Files with other content.
    pub content: u64,
    /// Paths of which only metadata differs.
    pub metadata: u64,
    /// Paths that are the same.
    pub unchanged: u64,
    /// Bytes of files that only the second one has.
    pub added_bytes: u64,
    /// Bytes of files that only the first one has.
    pub removed_bytes: u64,
    /// Bytes of what has another type, before and after: of files.
    pub type_bytes: (u64, u64),
    /// Bytes of the files with other content, before and after.
    pub content_bytes: (u64, u64),
}

impl DiffSummary {
    fn count(&mut self, change: &Change) {
        let size = |facts: &Option<Facts>| facts.as_ref().map_or(0, |facts| facts.size);
        let (before, after) = (size(&change.before), size(&change.after));
        let add = |to: &mut u64, n: u64| *to = to.saturating_add(n);
        match change.kind() {
            ChangeKind::Added => {
                self.added += 1;
                add(&mut self.added_bytes, after);
            }
            ChangeKind::Removed => {
                self.removed += 1;
                add(&mut self.removed_bytes, before);
            }
            ChangeKind::Type => {
                self.types += 1;
                add(&mut self.type_bytes.0, before);
                add(&mut self.type_bytes.1, after);
            }
            ChangeKind::Content => {
                self.content += 1;
                add(&mut self.content_bytes.0, before);
                add(&mut self.content_bytes.1, after);
            }
            ChangeKind::Metadata => self.metadata += 1,
        }
    }
}

/// All differences.
#[derive(Debug)]
pub struct DiffReport {
    /// Sorted by path.
    pub changes: Vec<Change>,
    /// All of them together.
    pub summary: DiffSummary,
    /// False when a part of a snapshot could not be read, which an event told: what is in it looks as if it were not
    /// there.
    pub complete: bool,
    /// True when such a part may be readable later: it is not damaged, as far as is known.
    pub out_of_reach: bool,
    /// True when any path of the snapshots was looked at.
    pub met: bool,
}

/// Compares two snapshots, or `top` in them and what is below it.
///
/// Takes some hundred bytes of memory for each path of the first one, and as much again for each difference. The first
/// one is read twice when there are any.
///
/// # Errors
/// None yet; what cannot be read is told by [`Event::ItemSkipped`] and [`Event::SnapshotUnreadable`].
pub fn diff(
    reader: &dyn ReadChunk,
    (before, after): (&Snapshot, &Snapshot),
    top: &[u8],
    events: Events<'_>,
) -> Result<DiffReport> {
    let roots = before.meta.root_item().is_some() && after.meta.root_item().is_some();
    let mut comparison = Comparison::new(reader, top, roots && top.is_empty(), events);
    comparison.take_before(before)?;
    comparison.take_after(after)?;
    comparison.complete_changes(before)?;
    Ok(comparison.report())
}

/// What is known of a path of either snapshot.
struct KnownPath {
    /// Digest of its facts.
    facts: u128,
    /// The second snapshot has it, or it was dealt with otherwise.
    met: bool,
}

struct Comparison<'a, 'e> {
    reader: &'a dyn ReadChunk,
    top: &'a [u8],
    /// Both snapshots keep the source directory's own item, and it is to be compared.
    roots: bool,
    events: Events<'e>,
    digester: Digester,
    /// By digests of paths.
    known: HashMap<u128, KnownPath>,
    /// What differs: the state in the second snapshot.
    differing: HashMap<u128, Facts>,
    changes: Vec<Change>,
    summary: DiffSummary,
    complete: bool,
    out_of_reach: bool,
}

impl<'a, 'e> Comparison<'a, 'e> {
    fn new(reader: &'a dyn ReadChunk, top: &'a [u8], roots: bool, events: Events<'e>) -> Self {
        Comparison {
            reader,
            top,
            roots,
            events,
            digester: Digester::default(),
            known: HashMap::new(),
            differing: HashMap::new(),
            changes: Vec::new(),
            summary: DiffSummary::default(),
            complete: true,
            out_of_reach: false,
        }
    }

    fn take_before(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.each(snapshot, true, &mut |this, path, facts| {
            let facts = this.digester.of(&facts);
            // Of a path that is there twice, the first one counts.
            this.known.entry(this.digester.of(&path)).or_insert(KnownPath { facts, met: false });
        })
    }

    fn take_after(&mut self, snapshot: &Snapshot) -> Result<()> {
        self.each(snapshot, true, &mut |this, path, facts| {
            let (digest, of_facts) = (this.digester.of(&path), this.digester.of(&facts));
            match this.known.get_mut(&digest) {
                None => {
                    this.known.insert(digest, KnownPath { facts: of_facts, met: true });
                    this.change(Change { path: path.to_vec(), before: None, after: Some(facts) });
                }
                Some(known) if known.met => {}
                Some(known) => {
                    known.met = true;
                    match known.facts == of_facts {
                        true => this.summary.unchanged += 1,
                        false => drop(this.differing.insert(digest, facts)),
                    }
                }
            }
        })
    }

    /// Reads the first snapshot again for what the second one does not have, or has otherwise.
    fn complete_changes(&mut self, snapshot: &Snapshot) -> Result<()> {
        if self.differing.is_empty() && self.known.values().all(|known| known.met) {
            return Ok(());
        }
        self.each(snapshot, false, &mut |this, path, facts| {
            let digest = this.digester.of(&path);
            let after = this.differing.remove(&digest);
            let removed = match this.known.get_mut(&digest) {
                Some(known) => !std::mem::replace(&mut known.met, true),
                None => false,
            };
            if removed || after.is_some() {
                this.change(Change { path: path.to_vec(), before: Some(facts), after });
            }
        })
    }

    fn change(&mut self, change: Change) {
        self.summary.count(&change);
        self.changes.push(change);
    }

    fn report(mut self) -> DiffReport {
        self.changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let met = !self.known.is_empty();
        let (complete, out_of_reach) = (self.complete, self.out_of_reach);
        DiffReport { changes: self.changes, summary: self.summary, complete, out_of_reach, met }
    }

    /// Goes through what is compared of a snapshot. Without `tell` nobody hears of what cannot be read.
    fn each(
        &mut self,
        snapshot: &Snapshot,
        tell: bool,
        take: &mut dyn FnMut(&mut Self, &[u8], Facts),
    ) -> Result<()> {
        let mut links = HashMap::new();
        if let Some(root) = snapshot.meta.root_item().filter(|_| self.roots) {
            let facts = self.facts(&root, &mut links);
            take(self, b"", facts);
        }
        for_each_item(self.reader, snapshot, &mut |found| {
            let event = match found {
                FoundItem::Item(item) => {
                    if path::is_within(item.path_bytes(), self.top) {
                        let facts = self.facts(&item, &mut links);
                        take(self, item.path_bytes(), facts);
                    }
                    return Ok(true);
                }
                FoundItem::Problem(problem) => {
                    let path = problem.path().to_owned();
                    if !path.is_empty() && !path::is_within(path.as_bytes(), self.top) {
                        return Ok(true);
                    }
                    Event::ItemSkipped { snapshot: snapshot.id, path, reason: problem.to_string() }
                }
                FoundItem::Lost(Loss { reason, may_come_back }) => {
                    self.out_of_reach |= may_come_back;
                    Event::SnapshotUnreadable { snapshot: snapshot.id, reason }
                }
            };
            self.complete = false;
            if tell {
                emit(&mut self.events, event);
            }
            Ok(true)
        })
    }

    /// The first name of a file is no other name of anything. `links` has the digest of the first name's path.
    fn facts(&self, item: &Item<'_>, links: &mut HashMap<(u64, u64), u128>) -> Facts {
        let digest = self.digester.of(&item.path_bytes());
        let first = item.link_key().map(|key| *links.entry(key).or_insert(digest));
        Facts::of(item, first.filter(|first| *first != digest).unwrap_or(0), &self.digester)
    }
}

#[cfg(test)]
mod tests;
