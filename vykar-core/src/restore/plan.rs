//! Reading what is to be restored, before anything is written.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::RestoreOptions;
use super::metadata::{Metadata, Owners};
use super::report::Reporter;
use super::select::{Place, Selection};
use super::tree::{Content, Kind, ROOT, Tree};
use crate::error::{Result, VykarError};
use crate::event::{Event, Totals};
use crate::format::acl::{self, IdNames};
use crate::format::admission::{Misplaced, has_long_name};
use crate::format::{IndexBlob, Item, ItemProblem, ItemType, Snapshot};
use crate::id::ChunkId;
use crate::repository::MovingReader;
use crate::repository::items::{Found, Loss, for_each_item};
use crate::repository::meant::meant;

pub(crate) mod fuzz;

/// A piece of a file: a chunk by its slot in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub slot: u32,
    pub size: u32,
}

/// Everything that is to be restored, and where its content is.
pub(super) struct Plan {
    pub tree: Tree,
    /// The files' pieces, one file after another.
    pub pieces: Vec<Piece>,
    /// Of symlinks and special files that are further names of another one, that one.
    pub leaders: HashMap<u32, u32>,
    /// The index that the pieces' slots are of.
    pub index: Arc<IndexBlob>,
}

/// A path of a snapshot as a path of this system.
pub(super) fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

impl Plan {
    /// The first name of what a node is a further name of.
    pub fn leader(&self, node: u32) -> Option<u32> {
        match self.tree.node(node).kind {
            Kind::Link { leader, .. } => Some(leader),
            _ => self.leaders.get(&node).copied(),
        }
    }

    /// Reads a snapshot's items. What cannot be restored is reported and left out.
    pub fn read(
        reader: &MovingReader<'_>,
        snapshot: &Snapshot,
        options: &RestoreOptions,
        reporter: &mut Reporter<'_>,
    ) -> Result<Plan> {
        let selection = Selection::new(&options.paths).with_rules(&options.include, &options.exclude)?;
        let plan =
            Plan { tree: Tree::new(), pieces: Vec::new(), leaders: HashMap::new(), index: reader.index() };
        let owners = Owners::new(options.numeric_ids);
        let mut planner = Planner { plan, selection, owners, links: HashMap::new() };
        let mut names = IdNames::default();
        snapshot.meta.root_item().iter().for_each(|item| names.note(item));
        for_each_item(reader, snapshot, &mut |found| {
            match found {
                Found::Item(item) => {
                    names.note(&item);
                    planner.item(&item, reporter);
                }
                Found::Problem(problem) => planner.problem(&problem, snapshot, reporter),
                Found::Lost(Loss { reason, .. }) => {
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
            (root.kind, root.metadata) = (Kind::Directory, Metadata::of(&item, &mut owners));
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
            if let Kind::File(content) = node.kind {
                totals.files += 1;
                totals.bytes = totals.bytes.saturating_add(content.size);
            }
        }
        totals
    }

    /// A file's pieces.
    pub fn pieces(&self, content: &Content) -> &[Piece] {
        &self.pieces[content.first..content.first + content.count]
    }
}

struct Planner {
    plan: Plan,
    selection: Selection,
    owners: Owners,
    /// The first name of each file that has several.
    links: HashMap<(u64, u64), u32>,
}

impl Planner {
    fn problem(&mut self, problem: &ItemProblem, snapshot: &Snapshot, reporter: &mut Reporter<'_>) {
        let path = problem.path();
        if path.is_empty() || self.selection.place(path.as_bytes(), false) == Place::Selected {
            let (path, reason) = (path.to_owned(), problem.to_string());
            reporter.send(Event::ItemSkipped { snapshot: snapshot.id, path, reason });
        }
    }

    fn item(&mut self, item: &Item<'_>, reporter: &mut Reporter<'_>) {
        let path = item.path_bytes();
        let wanted = match self.selection.place(path, item.kind == ItemType::Directory) {
            Place::Selected => true,
            // What is not a directory there makes what is below it fail, so it must be known.
            Place::Above => false,
            Place::Outside => return,
        };
        if has_long_name(path) {
            return reporter.failed(path.to_vec(), Misplaced::LongName.to_string());
        }
        let (number, new) = match self.plan.tree.insert(path) {
            Ok(place) => place,
            Err(error) => return reporter.failed(path.to_vec(), error.to_string()),
        };
        let implied = self.plan.tree.node(number).kind == Kind::Implied;
        if !new && !implied {
            return reporter.failed(path.to_vec(), Misplaced::Twice.to_string());
        }
        if !new && item.kind != ItemType::Directory {
            return reporter.failed(path.to_vec(), Misplaced::HasEntries.to_string());
        }
        let kind = match item.kind {
            ItemType::Directory => Kind::Directory,
            ItemType::Symlink => Kind::Symlink(item.target_bytes().unwrap_or_default().into()),
            ItemType::Fifo | ItemType::Socket | ItemType::CharDevice | ItemType::BlockDevice => {
                Kind::Special(item.kind.mode_bits(), item.rdev)
            }
            ItemType::RegularFile if !wanted => Kind::Failed,
            ItemType::RegularFile => match self.content(item) {
                Ok(content) => self.file_or_link(item, content, number),
                Err(chunk) => {
                    reporter.failed(path.to_vec(), VykarError::ChunkMissing { chunk }.to_string());
                    Kind::Failed
                }
            },
        };
        let metadata = match kind {
            Kind::Failed => Metadata::default(),
            _ => Metadata::of(item, &mut self.owners),
        };
        let node = self.plan.tree.node_mut(number);
        (node.kind, node.metadata, node.wanted) = (kind, metadata, wanted);
        if let (true, Some(key), Kind::Symlink(_) | Kind::Special(..)) = (wanted, item.link_key(), &node.kind)
        {
            let leader = *self.links.entry(key).or_insert(number);
            if leader != number && self.plan.tree.node(leader).kind == self.plan.tree.node(number).kind {
                self.plan.leaders.insert(number, leader);
            }
        }
    }

    /// Looks a file's chunks up; fails with the first that the index does not have.
    fn content(&mut self, item: &Item<'_>) -> Result<Content, ChunkId> {
        let pieces = &mut self.plan.pieces;
        let first = pieces.len();
        for chunk in item.chunks.iter().filter(|chunk| chunk.size > 0) {
            let Some(slot) = self.plan.index.chunks.find(&chunk.id) else {
                pieces.truncate(first);
                return Err(chunk.id);
            };
            // The index has less than 2^32 chunks.
            pieces.push(Piece { slot: slot as u32, size: chunk.size });
        }
        Ok(Content { first, count: pieces.len() - first, size: item.size })
    }

    /// Another name of a file met before, if its content is the same as well.
    fn file_or_link(&mut self, item: &Item<'_>, content: Content, number: u32) -> Kind {
        let Some(key) = item.link_key() else { return Kind::File(content) };
        let leader = *self.links.entry(key).or_insert(number);
        match self.plan.tree.node(leader).kind {
            Kind::File(first) if self.plan.pieces(&first) == self.plan.pieces(&content) => {
                self.plan.pieces.truncate(content.first);
                Kind::Link { leader, content: first }
            }
            _ => Kind::File(content),
        }
    }
}
