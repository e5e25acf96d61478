//! Reading what is to be restored, before anything is written.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::RestoreOptions;
use super::metadata::{Metadata, Owners};
use super::report::Reporter;
use super::select::{PathChoice, Selection};
use super::tree::{FileContent, NodeKind, PlanTree, ROOT};
use crate::error::{Result, VykarError};
use crate::event::{Event, Totals};
use crate::format::acl::{self, IdNames};
use crate::format::admission::{Misplaced, has_long_name};
use crate::format::{IndexBlob, Item, ItemProblem, ItemType, Snapshot};
use crate::id::ChunkId;
use crate::repository::RefreshingReader;
use crate::repository::read::items::{FoundItem, Loss, for_each_item};
use crate::repository::read::path_hint::meant;

pub(crate) mod fuzz;

/// A piece of a file: a chunk by its slot in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlannedPiece {
    pub slot: u32,
    pub size: u32,
}

/// Everything that is to be restored, and where its content is.
pub(super) struct RestorePlan {
    pub tree: PlanTree,
    /// The files' pieces, one file after another.
    pub pieces: Vec<PlannedPiece>,
    /// Of symlinks and special files that are further names of another one, that one.
    pub leaders: HashMap<u32, u32>,
    /// The index that the pieces' slots are of.
    pub index: Arc<IndexBlob>,
}

/// A path of a snapshot as a path of this system.
pub(super) fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

impl RestorePlan {
    /// The first name of what a node is a further name of.
    pub fn leader(&self, node: u32) -> Option<u32> {
        match self.tree.node(node).kind {
            NodeKind::Link { leader, .. } => Some(leader),
            _ => self.leaders.get(&node).copied(),
        }
    }

    /// Reads a snapshot's items. What cannot be restored is reported and left out.
    pub fn read(
        reader: &RefreshingReader<'_>,
        snapshot: &Snapshot,
        options: &RestoreOptions,
        reporter: &mut Reporter<'_>,
    ) -> Result<RestorePlan> {
        let selection = Selection::new(&options.paths).with_rules(&options.include, &options.exclude)?;
        let plan = RestorePlan {
            tree: PlanTree::new(),
            pieces: Vec::new(),
            leaders: HashMap::new(),
            index: reader.index(),
        };
        let owners = Owners::new(options.numeric_ids);
        let mut planner = Planner { plan, selection, owners, links: HashMap::new() };
        let mut names = IdNames::default();
        snapshot.meta.root_item().iter().for_each(|item| names.note(item));
        for_each_item(reader, snapshot, &mut |found| {
            match found {
                FoundItem::Item(item) => {
                    names.note(&item);
                    planner.item(&item, reporter);
                }
                FoundItem::Problem(problem) => planner.problem(&problem, snapshot, reporter),
                FoundItem::Lost(Loss { reason, .. }) => {
                    reporter.send(Event::ItemSkipped { snapshot: snapshot.id, path: String::new(), reason });
                }
            }
            Ok(true)
        })?;
        let missed = planner.selection.unmatched();
        let mut meant = if missed.is_empty() { HashMap::new() } else { meant(reader, snapshot, &missed)? };
        for path in missed {
            let reason = match meant.remove(&path) {
                Some(there) => format!("not in the snapshot; it has {}", as_path(there).display()),
                None => "not in the snapshot".to_owned(),
            };
            reporter.failed(path, reason);
        }
        let Planner { mut plan, mut owners, selection, .. } = planner;
        plan.tree.want_parents();
        if let Some(item) = snapshot.meta.root_item().filter(|_| selection.is_everything()) {
            let root = plan.tree.node_mut(ROOT);
            (root.kind, root.metadata) = (NodeKind::Directory, Metadata::of(&item, &mut owners));
        }
        plan.map_acls(&names, &mut owners);
        Ok(plan)
    }

    /// Gives ACLs the numbers of this machine, once all names are known.
    fn map_acls(&mut self, names: &IdNames, owners: &mut Owners) {
        for number in std::iter::once(ROOT).chain(self.tree.numbers()) {
            let xattrs = &mut self.tree.node_mut(number).metadata.xattrs;
            if xattrs.iter().any(|(name, _)| acl::is_acl(name)) {
                owners.map_acls(names, xattrs);
            }
        }
    }

    /// What the files to be written come to.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { files: 0, bytes: 0 };
        for node in self.tree.numbers().map(|number| self.tree.node(number)).filter(|node| node.wanted) {
            if let NodeKind::File(content) = node.kind {
                totals.files += 1;
                totals.bytes = totals.bytes.saturating_add(content.size);
            }
        }
        totals
    }

    /// A file's pieces.
    pub fn pieces(&self, content: &FileContent) -> &[PlannedPiece] {
        &self.pieces[content.first..content.first + content.count]
    }
}

struct Planner {
    plan: RestorePlan,
    selection: Selection,
    owners: Owners,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), u32>,
}

impl Planner {
    fn problem(&mut self, problem: &ItemProblem, snapshot: &Snapshot, reporter: &mut Reporter<'_>) {
        let path = problem.path();
        if path.is_empty() || self.selection.place(path.as_bytes(), false) == PathChoice::Selected {
            let (path, reason) = (path.to_owned(), problem.to_string());
            reporter.send(Event::ItemSkipped { snapshot: snapshot.id, path, reason });
        }
    }

    fn item(&mut self, item: &Item<'_>, reporter: &mut Reporter<'_>) {
        let path = item.path_bytes();
        let wanted = match self.selection.place(path, item.kind == ItemType::Directory) {
            PathChoice::Selected => true,
            // What is not a directory there makes what is below it fail, so it must be known.
            PathChoice::Above => false,
            PathChoice::Outside => return,
        };
        if has_long_name(path) {
            return reporter.failed(path.to_vec(), Misplaced::LongName.to_string());
        }
        let (number, new) = match self.plan.tree.insert(path) {
            Ok(place) => place,
            Err(error) => return reporter.failed(path.to_vec(), error.to_string()),
        };
        let implied = self.plan.tree.node(number).kind == NodeKind::Implied;
        if !new && !implied {
            return reporter.failed(path.to_vec(), Misplaced::Twice.to_string());
        }
        if !new && item.kind != ItemType::Directory {
            return reporter.failed(path.to_vec(), Misplaced::HasEntries.to_string());
        }
        let kind = match item.kind {
            ItemType::Directory => NodeKind::Directory,
            ItemType::Symlink => NodeKind::Symlink(item.target_bytes().unwrap_or_default().into()),
            ItemType::Fifo | ItemType::Socket | ItemType::CharDevice | ItemType::BlockDevice => {
                NodeKind::Special(item.kind.mode_bits(), item.rdev)
            }
            ItemType::RegularFile if !wanted => NodeKind::Failed,
            ItemType::RegularFile => match self.content(item) {
                Ok(content) => self.file_or_link(item, content, number),
                Err(chunk) => {
                    reporter.failed(path.to_vec(), VykarError::ChunkMissing { chunk }.to_string());
                    NodeKind::Failed
                }
            },
        };
        let metadata = match kind {
            NodeKind::Failed => Metadata::default(),
            _ => Metadata::of(item, &mut self.owners),
        };
        let node = self.plan.tree.node_mut(number);
        (node.kind, node.metadata, node.wanted) = (kind, metadata, wanted);
        if let (true, Some(key), NodeKind::Symlink(_) | NodeKind::Special(..)) =
            (wanted, item.link_key(), &node.kind)
        {
            let leader = *self.links.entry(key).or_insert(number);
            if leader != number && self.plan.tree.node(leader).kind == self.plan.tree.node(number).kind {
                self.plan.leaders.insert(number, leader);
            }
        }
    }

    /// Looks a file's chunks up; fails with the first that the index does not have.
    fn content(&mut self, item: &Item<'_>) -> Result<FileContent, ChunkId> {
        let pieces = &mut self.plan.pieces;
        let first = pieces.len();
        for chunk in item.chunks.iter().filter(|chunk| chunk.size > 0) {
            let Some(slot) = self.plan.index.chunks.find(&chunk.id) else {
                pieces.truncate(first);
                return Err(chunk.id);
            };
            // The index has less than 2^32 chunks.
            pieces.push(PlannedPiece { slot: slot as u32, size: chunk.size });
        }
        Ok(FileContent { first, count: pieces.len() - first, size: item.size })
    }

    /// Another name of a file met before, if its content is the same as well.
    fn file_or_link(&mut self, item: &Item<'_>, content: FileContent, number: u32) -> NodeKind {
        let Some(key) = item.link_key() else { return NodeKind::File(content) };
        let leader = *self.links.entry(key).or_insert(number);
        match self.plan.tree.node(leader).kind {
            NodeKind::File(first) if self.plan.pieces(&first) == self.plan.pieces(&content) => {
                self.plan.pieces.truncate(content.first);
                NodeKind::Link { leader, content: first }
            }
            _ => NodeKind::File(content),
        }
    }
}
