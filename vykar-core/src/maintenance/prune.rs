//! Deleting the snapshots that no rule keeps.

use std::collections::{BTreeMap, BTreeSet};

use jiff::tz::TimeZone;

use super::delete::{DeleteReport, Removal};
use super::retention::{GroupBy, GroupKey, KeepRule, KeepRules, decide};
use crate::error::{Result, VykarError};
use crate::event::{Event, Events, emit};
use crate::format::Snapshot;
use crate::id::SnapshotId;
use crate::maintenance::vanished_guard::refuse_none;
use crate::repository::{LockOptions, Manifest, Repository};
use crate::text::first_few;

/// Things of a kind that a note names.
const NAMED: usize = 5;

/// What is kept.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// The rules; at least one.
    pub rules: KeepRules,
    /// What they are applied to together.
    pub group_by: GroupBy,
    /// Look at snapshots of this host alone.
    pub host: Option<String>,
    /// Look at snapshots with this label alone.
    pub label: Option<String>,
    /// In which days, weeks, months and years are reckoned.
    pub zone: TimeZone,
    /// Find out what would be done, without a lock, and do nothing.
    pub dry_run: bool,
    /// How long to wait for the lock.
    pub lock: LockOptions,
}

impl PruneOptions {
    /// With these rules, for each host and label.
    pub fn new(rules: KeepRules) -> Self {
        PruneOptions {
            rules,
            group_by: GroupBy::default(),
            host: None,
            label: None,
            zone: TimeZone::UTC,
            dry_run: false,
            lock: LockOptions::default(),
        }
    }

    fn looks_at(&self, snapshot: &Snapshot) -> bool {
        self.host.as_ref().is_none_or(|host| *host == snapshot.meta.hostname)
            && self.label.as_ref().is_none_or(|label| label == snapshot.label())
    }
}

/// What was decided, and done.
#[derive(Debug)]
pub struct PruneReport {
    /// Every snapshot that was looked at, oldest first, with the rules that keep it. It is deleted if there are none.
    pub decisions: Vec<(Snapshot, Vec<KeepRule>)>,
    /// What was deleted, or would be.
    pub removal: DeleteReport,
}

/// Deletes the snapshots that no rule keeps.
///
/// Tells [`Event::Progress`] as [`super::delete_snapshots`] does, and an [`Event::Note`] where snapshots are from the future, or a
/// group that loses some has several sources.
///
/// # Errors
/// [`VykarError::Usage`] without any rule. [`VykarError::SnapshotUnusable`] while any snapshot cannot be read,
/// [`VykarError::SnapshotsMissing`] when there may be some that are not seen, and [`VykarError::LockLost`] when the list of
/// snapshots changes meanwhile; then nothing is deleted.
pub fn prune(repository: &Repository, options: &PruneOptions, mut events: Events<'_>) -> Result<PruneReport> {
    if options.rules.is_empty() {
        return Err(VykarError::Usage("no rule says what to keep, so nothing is pruned".into()));
    }
    if options.dry_run {
        let manifest = all_snapshots(repository)?;
        let index = repository.open_sound_index()?;
        let (decisions, doomed) = decisions(&manifest, options);
        notes(&decisions, options.group_by, &mut events);
        let removal = Removal::plan((repository, index), manifest, &doomed, &mut events)?.report;
        return Ok(PruneReport { decisions, removal });
    }
    repository.with_maintenance_lock(&options.lock, |guard| {
        let manifest = all_snapshots(repository)?;
        let (decisions, doomed) = decisions(&manifest, options);
        notes(&decisions, options.group_by, &mut events);
        if doomed.is_empty() {
            return Ok(PruneReport { decisions, removal: DeleteReport::default() });
        }
        let removal = Removal::plan((repository, guard.open_index()?), manifest, &doomed, &mut events)?;
        Ok(PruneReport { decisions, removal: removal.apply(guard)? })
    })
}

/// The snapshots, when all can be read and two lists of them are the same.
fn all_snapshots(repository: &Repository) -> Result<Manifest> {
    let Manifest { snapshots, unreadable } = Manifest::load_all(repository)?;
    if let Some((snapshot, cause)) = unreadable.into_iter().next() {
        return Err(VykarError::SnapshotUnusable { snapshot, cause });
    }
    if snapshots.is_empty() {
        let index = repository.open_sound_index()?;
        refuse_none(repository, &[], index.stamp.map(|_| &index.index.chunks))?;
    }
    Ok(Manifest { snapshots, unreadable: Vec::new() })
}

type Decisions = Vec<(Snapshot, Vec<KeepRule>)>;

fn decisions(manifest: &Manifest, options: &PruneOptions) -> (Decisions, Vec<SnapshotId>) {
    let looked_at: Vec<_> = manifest.snapshots.iter().filter(|s| options.looks_at(s)).cloned().collect();
    let kept = decide(&looked_at, &options.rules, options.group_by, (crate::clock::now(), &options.zone));
    let decisions: Decisions = looked_at.into_iter().zip(kept).collect();
    let doomed = decisions.iter().filter(|(_, rules)| rules.is_empty()).map(|(s, _)| s.id).collect();
    (decisions, doomed)
}

/// Says what about the decisions may not be what was meant.
fn notes(decisions: &Decisions, group_by: GroupBy, events: &mut Events<'_>) {
    let future = decisions.iter().filter(|(_, rules)| rules.contains(&KeepRule::Future));
    let future: Vec<_> =
        future.map(|(s, _)| format!("{:?} ({}), {}", s.meta.name, s.id.short(), s.time)).collect();
    if !future.is_empty() {
        let (count, names) = (future.len(), first_few(future, NAMED, "; "));
        let note =
            format!("{count} snapshot(s) are dated in the future, stay, and count for no rule: {names}");
        emit(events, Event::Note(note));
    }
    for note in mixed_sources(decisions, group_by) {
        emit(events, Event::Note(note));
    }
}

/// Groups that lose snapshots, of which some are of other sources than the rest: one that is stored often takes the place
/// of one that is not.
fn mixed_sources(decisions: &Decisions, group_by: GroupBy) -> Vec<String> {
    let mut groups: BTreeMap<_, (bool, BTreeSet<Vec<&str>>)> = BTreeMap::new();
    for (snapshot, rules) in decisions {
        let (loses, sources) = groups.entry(group_by.key(snapshot)).or_default();
        *loses |= rules.is_empty();
        let mut paths: Vec<_> = snapshot.meta.source_paths.iter().map(String::as_str).collect();
        paths.sort_unstable();
        sources.insert(paths);
    }
    let mixed = groups.into_iter().filter(|(_, (loses, sources))| *loses && sources.len() > 1);
    let note = |((host, label, _), (_, sources)): (GroupKey<'_>, (bool, BTreeSet<Vec<&str>>))| {
        let mut of: Vec<String> = Vec::new();
        of.extend(host.map(|host| format!(" of host {host:?}")));
        of.extend(label.map(|label| format!(" with label {label:?}")));
        let sources = sources.iter().map(|paths| format!("{paths:?}"));
        format!(
            "the rules are applied together to snapshots{} of different sources: {}; --group-by host,label,paths keeps \
             each apart",
            of.concat(),
            first_few(sources, NAMED, "; ")
        )
    };
    mixed.map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::{CheckOptions, check};
    use crate::testing::{TestRepository, noise};

    /// Two hosts, three snapshots each, and every snapshot has a file that the one before had.
    fn six() -> TestRepository {
        let mut test = TestRepository::new();
        for n in 0..6u64 {
            let items = [n, n + 1].map(|seed| test.file(&format!("file {seed}"), &noise(seed, 100_000)));
            let mut meta = test.snapshot(&format!("s{n}"), &items, None);
            test.repository.backend().delete(&crate::repository::snapshot_key(&meta.id)).unwrap();
            meta.meta.hostname = format!("host{}", n % 2);
            meta.meta.time = format!("2026-01-0{}T00:00:00Z", n + 1);
            test.put_snapshot(&meta.meta.encode().unwrap(), None);
        }
        test
    }

    fn names(test: &TestRepository) -> Vec<String> {
        test.repository.manifest().unwrap().snapshots.into_iter().map(|s| s.meta.name).collect()
    }

    fn keep_last(last: u32) -> PruneOptions {
        PruneOptions::new(KeepRules { last, ..KeepRules::default() })
    }

    #[test]
    fn rules_apply_to_each_group_and_what_is_left_is_whole() {
        let test = six();
        assert!(matches!(prune(&test.repository, &keep_last(0), None), Err(VykarError::Usage(_))));
        let dry = PruneOptions { dry_run: true, ..keep_last(1) };
        let planned = prune(&test.repository, &dry, None).unwrap();
        assert_eq!(names(&test).len(), 6);
        let only = PruneOptions { host: Some("host1".into()), ..keep_last(1) };
        assert_eq!(prune(&test.repository, &only, None).unwrap().decisions.len(), 3);
        assert_eq!(names(&test), ["s0", "s2", "s4", "s5"]);
        let report = prune(&test.repository, &keep_last(1), None).unwrap();
        assert_eq!(names(&test), ["s4", "s5"]);
        assert_eq!(report.removal.deleted.len(), 2);
        assert_eq!(planned.decisions.iter().filter(|(_, rules)| rules.is_empty()).count(), 4);
        let none = GroupBy { host: false, label: false, paths: false };
        prune(&test.repository, &PruneOptions { group_by: none, ..keep_last(1) }, None).unwrap();
        assert_eq!(names(&test), ["s5"]);
        let options = CheckOptions { verify_data: true, ..CheckOptions::default() };
        let report = check(&test.repository, &options, None).unwrap();
        assert_eq!(report.damage, 0, "{:?}", report.findings);
        assert_eq!(test.repository.read_index().unwrap().chunks.len(), report.chunks as usize);
    }

    fn noted(test: &TestRepository, options: &PruneOptions) -> Vec<String> {
        let mut notes = Vec::new();
        let mut listen = |event| {
            if let Event::Note(text) = event {
                notes.push(text);
            }
        };
        prune(&test.repository, options, Some(&mut listen)).unwrap();
        notes
    }

    #[test]
    fn a_snapshot_from_the_future_stays_and_takes_nobodys_place() {
        let test = six();
        let mut future = test.repository.manifest().unwrap().snapshots[1].clone();
        future.meta.time = "2099-01-01T00:00:00Z".into();
        future.meta.name = "future".into();
        test.put_snapshot(&future.meta.encode().unwrap(), None);
        for _ in 0..2 {
            let notes = noted(&test, &keep_last(1));
            assert!(
                notes.len() == 1 && notes[0].contains("future") && notes[0].contains("2099"),
                "{notes:?}"
            );
            assert_eq!(names(&test), ["s4", "s5", "future"]);
        }
        let report = prune(&test.repository, &keep_last(1), None).unwrap();
        assert_eq!(report.decisions[2].1, [KeepRule::Future]);
    }

    #[test]
    fn a_group_that_loses_snapshots_and_has_several_sources_is_named() {
        let test = six();
        assert_eq!(noted(&test, &PruneOptions { dry_run: true, ..keep_last(1) }), [""; 0]);
        let mut other = test.repository.manifest().unwrap().snapshots[1].clone();
        other.meta.source_paths = vec!["/other".into()];
        test.put_snapshot(&other.meta.encode().unwrap(), None);
        // Nothing is lost, or each has its own.
        assert_eq!(noted(&test, &keep_last(9)), [""; 0]);
        let paths = GroupBy { paths: true, ..GroupBy::default() };
        assert_eq!(noted(&test, &PruneOptions { group_by: paths, dry_run: true, ..keep_last(1) }), [""; 0]);
        for dry_run in [true, false] {
            let notes = noted(&test, &PruneOptions { dry_run, ..keep_last(1) });
            assert_eq!(notes.len(), 1, "{notes:?}");
            for part in ["\"host1\"", "/source", "/other", "--group-by host,label,paths"] {
                assert!(notes[0].contains(part), "{notes:?}");
            }
        }
    }

    #[test]
    fn a_snapshot_that_cannot_be_read_stops_it() {
        let test = six();
        test.put_snapshot(b"?", None);
        for dry_run in [true, false] {
            let options = PruneOptions { dry_run, ..keep_last(1) };
            assert!(matches!(
                prune(&test.repository, &options, None),
                Err(VykarError::SnapshotUnusable { .. })
            ));
        }
        assert_eq!(names(&test).len(), 6);
    }
}
