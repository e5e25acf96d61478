//! Checking a repository without changing it.
//!
//! Snapshots are listed before the index is read, and packs after it: what a backup adds meanwhile
//! is then in the later listing or in neither. What maintenance removes meanwhile can look like
//! damage: then it is looked at again, and [`CheckReport::changed_meanwhile`] says when that never ended.

use std::collections::{HashMap, HashSet};
use std::mem::{Discriminant, discriminant};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::evidence::refuse_unless_one_opens;
use super::finding::{Finding, Severity};
use super::items::ItemCheck;
use super::objects;
use super::references;
use super::verify::{ByPack, Pack, ThreadReport, Verifier, verdict};
use crate::crypto::pack_id;
use crate::error::{Result, StorageError, VykarError};
use crate::event::{Event, Events};
use crate::format::index::ChunkTable;
use crate::format::pack::{HEADER, LENGTH_PREFIX};
use crate::format::{IndexBlob, Snapshot};
use crate::id::{PackId, SnapshotId};
use crate::platform;
use crate::repository::objects::layout;
use crate::repository::objects::manifest::read_snapshot;
use crate::repository::{ChunkReader, IndexStamp, Manifest, Repository};
use crate::storage::ObjectInfo;

/// An unfinished write that is younger may be going on.
const YOUNG: Duration = Duration::from_secs(3600);
/// Findings listed of each kind; more are counted only.
const MAX_LISTED: u64 = 100;

/// How much is checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckOptions {
    /// Read every pack and open every chunk, instead of looking at lists and item streams alone.
    pub verify_data: bool,
    /// Only some of the packs, in place of all that `verify_data` asks for.
    pub subset: Option<Subset>,
    /// Threads that verify data; 0 for one a processor. Packs in memory are bounded to 256 MiB in
    /// all, or one pack.
    pub threads: usize,
}

/// Some of the packs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Subset {
    /// Each with this probability, 0 to 1. Which ones follows from their ids and the seed: with another seed they
    /// are others.
    Share {
        /// The probability.
        share: f64,
        /// Any number.
        seed: u64,
    },
    /// One of several parts of equal size. Which pack is in which follows from its id, so that all parts together
    /// are all packs.
    Part {
        /// Which part, from 1.
        part: u32,
        /// How many there are.
        of: u32,
    },
}

impl Subset {
    fn has(&self, pack: &PackId) -> bool {
        // Ids are hashes already.
        let head = pack.as_bytes().first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
        match *self {
            Subset::Part { part, of } => head % u64::from(of.max(1)) + 1 == u64::from(part),
            Subset::Share { share, seed } => {
                let mixed = pack_id(&[pack.as_bytes(), &seed.to_le_bytes()[..]].concat());
                let head = mixed.as_bytes().first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
                // 2^64, as both sides are rounded to what a double holds.
                (head as f64) < share * 18_446_744_073_709_551_616.0
            }
        }
    }
}

impl CheckOptions {
    /// The packs whose data is verified.
    fn chosen(&self, packs: &[Pack]) -> Option<Vec<Pack>> {
        match self.subset {
            Some(subset) => Some(packs.iter().filter(|pack| subset.has(&pack.id)).copied().collect()),
            None => self.verify_data.then(|| packs.to_vec()),
        }
    }
}

/// The outcome of a check.
#[derive(Debug, Default)]
pub struct CheckReport {
    /// What was found, at most 100 of each kind.
    pub findings: Vec<Finding>,
    /// How many findings are damage, those not listed included.
    pub damage: u64,
    /// How many were written by a newer program.
    pub newer: u64,
    /// How many are harmless.
    pub harmless: u64,
    /// Readable snapshots.
    pub snapshots: u64,
    /// Items of all snapshots together.
    pub items: u64,
    /// Chunks in the index.
    pub chunks: u64,
    /// Packs in the repository.
    pub packs: u64,
    /// Those of them that were read and verified.
    pub packs_verified: u64,
    /// Bytes of packs that were read and verified.
    pub bytes_verified: u64,
    /// Somebody else wrote to the repository each time that it was looked at: what looks like damage may be none.
    pub changed_meanwhile: bool,
}

impl CheckReport {
    /// Findings that were counted and are not in the list.
    pub fn unlisted(&self) -> u64 {
        self.damage + self.newer + self.harmless - self.findings.len() as u64
    }
}

/// Collects findings.
#[derive(Default)]
struct Collector {
    report: CheckReport,
    kinds: HashMap<Discriminant<Finding>, u64>,
}

impl Collector {
    fn add(&mut self, finding: Finding) {
        match finding.severity() {
            Severity::Damage => self.report.damage += 1,
            Severity::Newer => self.report.newer += 1,
            Severity::Harmless => self.report.harmless += 1,
        }
        let count = self.kinds.entry(discriminant(&finding)).or_default();
        *count += 1;
        if *count <= MAX_LISTED {
            self.report.findings.push(finding);
        }
    }
}

/// So often a repository is looked at that changes under the look and seems damaged.
const LOOKS: u32 = 3;

/// Checks a repository; never writes to it.
///
/// Tells [`Event::Progress`] with packs and bytes verified. A damaged or missing index is a finding. Where something looks
/// like damage and the repository changed meanwhile, it is looked at again, with only those packs read once more that
/// seemed damaged.
///
/// # Errors
/// When the storage cannot list snapshots or packs.
pub fn check(repository: &Repository, options: &CheckOptions, mut events: Events<'_>) -> Result<CheckReport> {
    let mut report = look(repository, options, None, &mut events)?;
    let (packs_verified, bytes_verified) = (report.packs_verified, report.bytes_verified);
    for _ in 1..LOOKS {
        if report.damage == 0 || !report.changed_meanwhile {
            break;
        }
        let suspects = report.findings.iter().filter_map(Finding::pack).collect();
        report = look(repository, options, Some(&suspects), &mut events)?;
        (report.packs_verified, report.bytes_verified) = (packs_verified, bytes_verified);
    }
    Ok(report)
}

/// Looks once. Of the packs whose data is to be verified only `suspects` are read, where they are given.
fn look(
    repository: &Repository,
    options: &CheckOptions,
    suspects: Option<&HashSet<PackId>>,
    events: &mut Events<'_>,
) -> Result<CheckReport> {
    let mut found = Collector::default();
    objects::check_opened_with(repository, &mut |finding| found.add(finding));
    let before = RepositoryState::of(repository)?;
    let (snapshots, all_known) = read_snapshots(repository, &before.snapshots, &mut found);
    objects::check_snapshot_names(&snapshots, &mut |finding| found.add(finding));
    objects::check_chunk_sizes(repository, &snapshots, &mut |finding| found.add(finding));
    let index = read_index(repository, &mut found);
    let usable = index.is_some();
    let (backend, keys) = (repository.backend().clone(), repository.keys().clone());
    let reader = ChunkReader::new(backend, keys, Arc::new(index.unwrap_or_default()));
    let index: &IndexBlob = &reader.index();
    if let Err(VykarError::KeysDoubtful { reason }) = refuse_unless_one_opens(&reader, &snapshots) {
        found.add(Finding::ConfigUnusable { reason: format!("{reason}: it is wrong, and not the data") });
    }
    let table = &index.chunks;
    let by_pack = ByPack::new(table);
    let verdicts: Vec<AtomicU32> = (0..table.len()).map(|_| AtomicU32::new(verdict::UNKNOWN)).collect();

    let packs = list_packs(repository, table)?;
    check_packs(&packs, table, &by_pack, &verdicts, usable, &mut found);
    if usable {
        objects::check_hint(repository, index.generation, &mut |finding| found.add(finding));
    }
    objects::check_names(repository, &mut |finding| found.add(finding))?;
    objects::check_markers(repository, &mut |finding| found.add(finding))?;
    if let Some(mut verified) = options.chosen(&packs) {
        verified.retain(|pack| suspects.is_none_or(|suspects| suspects.contains(&pack.id)));
        let verifier = Verifier::new(repository, table, &by_pack, &verified, &verdicts);
        verify(&verifier, options.threads, &mut found, events);
    }
    if usable {
        check_references(&reader, table, &snapshots, &verdicts, all_known, &mut found);
    }

    let leftovers = repository.backend().leftovers(YOUNG)?;
    for ObjectInfo { key: name, size } in leftovers.into_iter().filter(|o| layout::is_place(&o.key)) {
        found.add(Finding::Leftover { name, size });
    }

    found.report.snapshots = snapshots.len() as u64;
    found.report.chunks = table.len() as u64;
    found.report.packs = packs.len() as u64;
    found.report.changed_meanwhile = RepositoryState::of(repository)? != before;
    Ok(found.report)
}

fn read_index(repository: &Repository, found: &mut Collector) -> Option<IndexBlob> {
    let reason = match repository.read_index() {
        Ok(index) => return Some(index),
        Err(VykarError::IndexMissing) => "missing although there are snapshots".to_owned(),
        Err(VykarError::Damaged { cause, .. }) => cause.to_string(),
        Err(error) => error.to_string(),
    };
    found.add(Finding::IndexUnusable { reason });
    None
}

/// What changes whenever somebody publishes something, or takes it away.
#[derive(PartialEq, Eq)]
struct RepositoryState {
    snapshots: Vec<SnapshotId>,
    index: Option<IndexStamp>,
}

impl RepositoryState {
    fn of(repository: &Repository) -> Result<Self> {
        // One that cannot be read is a finding, and stays the same.
        Ok(RepositoryState {
            snapshots: Manifest::ids(repository)?,
            index: repository.index_stamp().ok().flatten(),
        })
    }
}

/// Reads the snapshots; the flag is false when one of them could not be.
fn read_snapshots(
    repository: &Repository,
    ids: &[SnapshotId],
    found: &mut Collector,
) -> (Vec<Snapshot>, bool) {
    let mut snapshots = Vec::with_capacity(ids.len());
    let mut all = true;
    for id in ids {
        let snapshot = *id;
        match read_snapshot(repository, id) {
            Ok(snapshot) => snapshots.push(snapshot),
            // Deleted since it was listed.
            Err(VykarError::Storage(StorageError::NotFound { .. })) => {}
            Err(VykarError::SnapshotUnusable { cause, .. }) => {
                all = false;
                let reason = cause.to_string();
                found.add(match cause.is_newer() {
                    true => Finding::SnapshotNewer { snapshot, reason },
                    false => Finding::SnapshotUnreadable { snapshot, reason },
                });
            }
            Err(error) => {
                all = false;
                found.add(Finding::SnapshotUnreadable { snapshot, reason: error.to_string() });
            }
        }
    }
    snapshots.sort_by_key(|s| (s.time, s.id));
    (snapshots, all)
}

pub(super) fn list_packs(repository: &Repository, table: &ChunkTable) -> Result<Vec<Pack>> {
    Ok(packs_of(&repository.backend().list("packs/")?, table))
}

/// The packs among the objects, by id.
pub(super) fn packs_of(objects: &[ObjectInfo], table: &ChunkTable) -> Vec<Pack> {
    let numbers: HashMap<PackId, u32> = table.packs().iter().copied().zip(0..).collect();
    let pack = |object: &ObjectInfo| {
        let id = objects::pack_of(&object.key)?;
        Some(Pack { id, size: object.size, number: numbers.get(&id).copied() })
    };
    let mut packs: Vec<Pack> = objects.iter().filter_map(pack).collect();
    packs.sort_unstable_by_key(|pack| pack.id);
    packs
}

/// Compares the index with the list of packs.
fn check_packs(
    packs: &[Pack],
    table: &ChunkTable,
    by_pack: &ByPack,
    verdicts: &[AtomicU32],
    usable: bool,
    found: &mut Collector,
) {
    let mut sizes: Vec<Option<u64>> = vec![None; table.packs().len()];
    for pack in packs {
        match pack.number {
            Some(number) => sizes[number as usize] = Some(pack.size),
            None if usable => found.add(Finding::PackUnreferenced { pack: pack.id, size: pack.size }),
            None => {}
        }
    }
    let judge = |slot: u32, verdict| verdicts[slot as usize].store(verdict, Ordering::Relaxed);
    for (number, (id, size)) in (0..).zip(table.packs().iter().zip(sizes)) {
        let slots = by_pack.of(number);
        let Some(size) = size else {
            slots.iter().for_each(|slot| judge(*slot, verdict::NO_PACK));
            found.add(Finding::PackMissing { pack: *id, chunks: slots.len() as u64 });
            continue;
        };
        let mut behind = 0;
        for slot in slots {
            let entry = table.entry(*slot as usize);
            if entry.offset < HEADER.len() as u64 + LENGTH_PREFIX {
                judge(*slot, verdict::OUTSIDE);
                let reason = "lies in the pack's header".into();
                found.add(Finding::ChunkDamaged { chunk: entry.id, pack: *id, reason });
            } else if entry.offset.saturating_add(entry.stored_size.into()) > size {
                judge(*slot, verdict::OUTSIDE);
                behind += 1;
            }
        }
        if behind > 0 {
            found.add(Finding::PackTooShort { pack: *id, size, chunks: behind });
        }
    }
}

fn verify(verifier: &Verifier<'_>, threads: usize, found: &mut Collector, events: &mut Events<'_>) {
    let (sender, told) = crossbeam_channel::bounded(1024);
    std::thread::scope(|scope| {
        for _ in 0..platform::threads(threads, verifier.packs.len()) {
            let sender = sender.clone();
            scope.spawn(move || verifier.run(&sender));
        }
        drop(sender);
        let mut files = 0;
        for told in told {
            match told {
                ThreadReport::Found(finding) => found.add(finding),
                ThreadReport::Read(bytes) => {
                    files += 1;
                    found.report.packs_verified = files;
                    found.report.bytes_verified += bytes;
                    if let Some(events) = events {
                        let bytes = found.report.bytes_verified;
                        events(Event::Progress { files, bytes, path: None, expected: None });
                    }
                }
            }
        }
    });
}

/// Goes through all items, and compares their references with the index's counts.
fn check_references(
    reader: &ChunkReader,
    table: &ChunkTable,
    snapshots: &[Snapshot],
    verdicts: &[AtomicU32],
    all_known: bool,
    found: &mut Collector,
) {
    let mut items = ItemCheck::new(verdicts);
    let mut add = |finding| found.add(finding);
    let references = references::count(reader, table, snapshots, &mut |seen| items.see(seen, &mut add));
    items.leave(&mut add);
    found.report.items = references.items;
    for (entry, counted) in table.iter().zip(&references.counts) {
        let (chunk, counted, recorded) = (entry.id, *counted, entry.refcount);
        if counted > recorded {
            found.add(Finding::RefcountTooLow { chunk, counted, recorded });
        } else if !all_known || !references.complete {
            // What could not be read may account for the rest.
        } else if counted == 0 {
            found.add(Finding::ChunkUnreferenced { chunk, pack: entry.pack });
        } else if counted < recorded {
            found.add(Finding::RefcountTooHigh { chunk, counted, recorded });
        }
    }
}
